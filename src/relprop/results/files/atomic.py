"""Files and folders that appear whole or not at all, whatever interrupts the writer."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relprop.errors import InputError


def write(path: Path, content: bytes | memoryview) -> None:
    """Writes a temporary file next to `path`, and moves it there when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp lets nobody else read the file; a saved file gets the usual permissions, by the umask.
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def file(path: Path) -> Iterator[Path]:
    """A temporary path to write a file at. It is flushed and moved to `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
        with open(name, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def folder(path: Path, mark: str) -> Iterator[Path]:
    """A temporary folder to write into, which is moved to `path` when the block ends without an error.

    An old folder at `path` is set aside first. Even if a signal that cannot be caught stops the writer, one of the two
    is whole: `whole` finds it, and the next writer puts it back.

    Args:
        path: the final place. A folder that is there already is replaced if it is empty or holds the file `mark`.
        mark: the name of a file that only our folders hold.

    Raises:
        InputError: something else is at `path`.
    """
    _recover(path, mark)
    if path.exists() and not (path.is_dir() and ((path / mark).is_file() or not any(path.iterdir()))):
        raise InputError(f"{str(path)!r} exists and is not a saved result: choose another name, or remove it first.")
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
    """Where a saved folder is: at `path`, or set aside if its writer was stopped before the new folder was in place."""
    aside = _aside(path)
    try:
        return aside if not path.exists() and (aside / mark).is_file() else path
    except (OSError, ValueError):  # the file system allows no such path
        return path


def _aside(path: Path) -> Path:
    """Where a folder waits while another takes its place: next to it, under a fixed name."""
    return path.parent / f".{path.name}.old"


def _recover(path: Path, mark: str) -> None:
    """Completes an exchange of folders: the old one goes back if there is no new one, and is removed otherwise."""
    aside = _aside(path)
    if not (aside / mark).is_file():
        return
    if not path.exists():
        aside.rename(path)
        return
    # renamed first: if the removal is interrupted, no partial folder keeps the name that `whole` looks for
    last = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent))
    aside.rename(last / "old")
    shutil.rmtree(last, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
