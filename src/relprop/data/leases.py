"""Leases: several runs on one folder do not do one unit at the same time.

A lease only saves work. Doing a unit twice writes the same bytes, so nothing depends on it for correctness.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

LEASES = "leases"
_BEAT, _LOST = 10.0, 60.0
"""Seconds between two signs of life, and without one until a lease counts as lost."""


class Leases:
    """The leases that this process holds on parts of a run.

    A lease is a file that is made exclusively; its time of change is a sign of life. It is lost if there is no such sign for a
    minute, or if it was taken on this machine by a process that is gone.

    Args:
        folder: the folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / LEASES
        self.held: set[str] = set()
        self._me = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "began": _began(os.getpid())})
        self._stop = threading.Event()
        self._beating: threading.Thread | None = None

    def take(self, name: str) -> bool:
        """Takes a lease, unless another process has it."""
        for _ in range(2):
            try:
                self.folder.mkdir(exist_ok=True)
                with open(self.folder / name, "x", encoding="utf-8") as file:
                    file.write(self._me)
            except FileNotFoundError:
                continue  # another process has just removed the empty folder
            except FileExistsError:
                if not self._lost(name):
                    return False
                (self.folder / name).unlink(missing_ok=True)
                continue
            self.held.add(name)
            return True
        return False

    def release(self, name: str) -> None:
        """Gives a lease back."""
        self.held.discard(name)
        (self.folder / name).unlink(missing_ok=True)

    def living(self) -> str | None:
        """The name of a lease that another process has; None if there is none."""
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return next((name for name in names if name not in self.held and not self._lost(name)), None)

    def _lost(self, name: str) -> bool:
        """Whether a lease is one of a process that is gone."""
        path = self.folder / name
        try:
            if time.time() - path.stat().st_mtime > _LOST:
                return True
            said = json.loads(path.read_text(encoding="utf-8"))
            here = said["host"] == socket.gethostname()
            return bool(here and _began(int(said["pid"])) != said["began"])
        except FileNotFoundError:
            return True
        except (ValueError, KeyError, TypeError):
            return False  # it is being written, or its writer was killed: then it gets old

    def _beat(self) -> None:
        while not self._stop.wait(_BEAT):
            for name in list(self.held):
                with suppress(FileNotFoundError):
                    os.utime(self.folder / name)

    def __enter__(self) -> Leases:
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for name in list(self.held):
            self.release(name)
        with suppress(OSError):
            self.folder.rmdir()  # another run may have its own in it


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
