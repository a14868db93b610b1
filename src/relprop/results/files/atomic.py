"""Files and folders that appear whole or not at all, whatever interrupts their writing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relprop.errors import InputError


def write(path: Path, content: bytes) -> None:
    """Writes a file beside its place, and moves it there when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp lets nobody else read it; what a program writes is read by others, as the umask says.
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def folder(path: Path, mark: str) -> Iterator[Path]:
    """A folder to write into, moved to its place when the block ends without an error.

    A folder that is replaced is set aside first. Whenever the writer is stopped, be it by a signal that nothing can catch,
    one of the two is whole: `whole` finds it, and the next writer puts it back.

    Args:
        path: its place. A folder that is there already is replaced if it is empty or holds the file `mark`.
        mark: the name of a file that only our folders hold.

    Raises:
        InputError: something else is in that place.
    """
    _recover(path, mark)
    if path.exists() and not (path.is_dir() and ((path / mark).is_file() or not any(path.iterdir()))):
        raise InputError(f"{str(path)!r} exists and is no saved result: choose another name, or remove it first.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent
    try:
        part = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent))
        yield part
        part.chmod(0o777 & ~_umask())
        if path.exists():
            if any(path.iterdir()):
                path.rename(_aside(path))
            else:
                path.rmdir()
        part.rename(path)
    except BaseException:
        if part != path.parent:
            shutil.rmtree(part, ignore_errors=True)
        raise
    finally:
        _recover(path, mark)


def whole(path: Path, mark: str) -> Path:
    """Where a saved folder lies: in its place, or set aside by a writer that was stopped before its own took the place."""
    aside = _aside(path)
    try:
        return aside if not path.exists() and (aside / mark).is_file() else path
    except (OSError, ValueError):  # no path that a file system knows
        return path


def _aside(path: Path) -> Path:
    """Where a folder waits while another takes its place: next to it, under a name that anyone finds again."""
    return path.parent / f".{path.name}.old"


def _recover(path: Path, mark: str) -> None:
    """Ends an exchange of folders: the old one goes back if no new one took its place, and is removed otherwise."""
    aside = _aside(path)
    if not (aside / mark).is_file():
        return
    if not path.exists():
        aside.rename(path)
        return
    # moved on first: half a folder under the name that is looked for would stand in the way
    last = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent))
    aside.rename(last / "old")
    shutil.rmtree(last, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
