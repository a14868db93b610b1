"""Leases: several runs on one folder do not do one unit at the same time.

A lease only saves work. Doing a unit twice writes the same bytes, so nothing depends on it for correctness.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from relprop.data.run_addresses import place_of
from relprop.errors import RelpropError

LEASES = "leases"
_BEAT, _LOST = 10.0, 60.0
"""Seconds between two signs of life, and without one until a lease counts as lost."""


class Leases:
    """The leases that this process holds on parts of a run.

    A lease is a file that is made exclusively; its time of change is a sign of life. It is lost if there is no such sign for a
    minute, or if it was taken on this machine by a process that is gone. In an object store it is an object, which is put again
    as a sign of life; the minute is that of the store's clock against ours.

    Args:
        folder: the folder of the run, or where it is.
    """

    def __init__(self, folder: Any) -> None:
        self.place = place_of(folder)
        self.held: set[str] = set()
        self._me = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "began": _began(os.getpid())})
        self._stop = threading.Event()
        self._beating: threading.Thread | None = None

    def take(self, name: str) -> bool:
        """Takes a lease, unless another process has it."""
        for _ in range(2):
            if self.place.create(f"{LEASES}/{name}", self._me.encode()):
                self.held.add(name)
                return True
            if not self.lost(name):
                return False
            self.place.delete(f"{LEASES}/{name}")
        return False

    def release(self, name: str) -> None:
        """Gives a lease back."""
        self.held.discard(name)
        self.place.delete(f"{LEASES}/{name}")

    def living(self) -> str | None:
        """The name of a lease that another process has; None if there is none."""
        names = [name.rpartition("/")[2] for name in self.place.names(LEASES)]
        return next((n for n in names if not n.startswith(".") and n not in self.held and not self.lost(n)), None)

    def lost(self, name: str) -> bool:
        """Whether a lease is given back, or one of a process that is gone."""
        try:
            age = self.place.age(f"{LEASES}/{name}")
            if age is None or age > _LOST:
                return True
            said = json.loads(self.place.read(f"{LEASES}/{name}"))
            here = said["host"] == socket.gethostname()
            return bool(here and _began(int(said["pid"])) != said["began"])
        except FileNotFoundError:
            return True
        except (ValueError, KeyError, TypeError):
            return False  # it is being written, or its writer was killed: then it gets old

    def _beat(self) -> None:
        while not self._stop.wait(_BEAT):
            for name in list(self.held):
                try:
                    self.place.keep_young(f"{LEASES}/{name}", self._me.encode())
                except (OSError, RelpropError):
                    continue  # the next sign may arrive

    def begin(self) -> Leases:
        """Begins to give signs of life."""
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()
        return self

    def __enter__(self) -> Leases:
        return self.begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for name in list(self.held):
            self.release(name)
        self.place.without_empty(LEASES)  # another run may have its own in it


def _began(process: int) -> str | None:
    """When a process began, which tells it from a later one of the same number; None if there is no such process."""
    try:
        return (
            Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
        )
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return "running"
    return "running"
