"""One evaluation at a time writes to a folder. The operating system drops the lock when a process ends, however it ends."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from relprop.errors import InputError

NAME = "journal.lock"


class Lock:
    """Holds a folder until it is released, or the process ends.

    Args:
        folder: the folder, which exists.

    Raises:
        InputError: another evaluation writes to the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._file = self.path.open("a+", encoding="utf-8")
        try:
            _hold(self._file)
        except OSError as error:
            if error.errno not in _HELD:  # this file system has no locks
                return
            self._file.seek(0)
            who = self._file.read().strip()
            self._file.close()
            raise InputError(
                f"another evaluation writes to {str(folder)!r}{f' ({who})' if who else ''}: wait until it has ended, stop it, "
                "or choose another folder."
            ) from None
        with suppress(OSError):  # who holds it is for the message alone
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()}")
            self._file.flush()

    def release(self) -> None:
        """Lets others write to the folder."""
        self._file.close()


def _hold(file: IO[str]) -> None:
    """Takes the lock, or raises an `OSError` at once. Locks belong to the open file, so that threads exclude each other."""
    if sys.platform == "win32":
        import msvcrt

        file.seek(_FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_FAR = 2**30
"""Windows refuses to read what is locked; nothing is written so far behind the start."""
