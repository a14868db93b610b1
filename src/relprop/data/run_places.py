"""Where a run is kept: a folder of this machine's file systems, or an object store that fsspec knows.

A run asks little of either: a file appears whole or not at all, and some files are made by one process alone.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from relprop.errors import InputError
from relprop.rendering.visible import quoted
from relprop.results.files import atomic

_LEFT_OVER = 3600.0
"""Seconds after which a temporary file counts as left by a writer that was killed."""


class RunPlace(ABC):
    """The files of a run. Their names are relative to it, with `/` between the parts.

    Attributes:
        folder: a `Path`, or the address of an object store.
        own: whether no other process can see it.
    """

    folder: Any
    own = False

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of where it is."""

    @abstractmethod
    def full(self, name: str) -> Any:
        """Where a file is, as messages say it."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: it is not there.
        """

    @abstractmethod
    def write(self, name: str, content: bytes | memoryview) -> None:
        """Writes a file, which is whole or not there whatever stops the writer, and replaces an older one."""

    @abstractmethod
    def create(self, name: str, content: bytes) -> bool:
        """Writes a file unless it is there; says whether this process made it."""

    @abstractmethod
    def make(self, files: Mapping[str, bytes], first: str) -> bool:
        """Makes the run with its first files; says whether this process made it, of several that start together.

        Args:
            files: their contents.
            first: the one whose presence says that this is a run.

        Raises:
            InputError: something else is there, or it cannot be written.
        """

    @abstractmethod
    def size(self, name: str) -> int | None:
        """The bytes of a file; None if it is not there."""

    @abstractmethod
    def sizes(self, under: str) -> Mapping[str, int] | None:
        """The bytes of all files in a folder, where that is quicker than to ask for each; else None."""

    @abstractmethod
    def age(self, name: str) -> float | None:
        """Seconds since a file was written; None if it is not there."""

    @abstractmethod
    def keep_young(self, name: str, content: bytes) -> None:
        """Makes a file young that is there."""

    @abstractmethod
    def names(self, under: str = "") -> list[str]:
        """All files in a folder and below it, in their order."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Deletes a file, if it is there."""

    @abstractmethod
    def remove(self, last: str) -> None:
        """Deletes the whole run; if this is interrupted, what is left is a run, or nothing that has its name.

        Args:
            last: the file whose presence says that this is a run.
        """

    @abstractmethod
    def zarr(self, name: str) -> Any:
        """What zarr opens to read a folder."""

    @abstractmethod
    def free(self) -> int | None:
        """The bytes that are free; None where nobody can tell."""

    def exists(self, name: str) -> bool:
        """Whether a file is there."""
        return self.size(name) is not None

    def used(self) -> bool:
        """Whether anything is there."""
        return bool(self.names())

    def tidy(self) -> None:
        """Deletes what killed writers have left."""
        return None

    def without_empty(self, under: str) -> None:
        """Removes a folder if nothing is in it."""
        return None


class LocalPlace(RunPlace):
    """A folder of this machine's file systems. A file is written under another name, flushed, and renamed.

    Args:
        folder: where.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """The last part of where it is."""
        return str(self.folder.name)

    def full(self, name: str) -> Path:
        """Where a file is."""
        return Path(self.folder / name)

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return self.full(name).read_bytes()

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Writes a file by rename, and flushes it and its entry."""
        atomic.write(self.full(name), content)
        _flush(self.full(name))

    def create(self, name: str, content: bytes) -> bool:
        """Writes a file unless it is there: a second name for one that is whole, which only one process gets."""
        path = self.full(name)
        while True:
            try:
                path.parent.mkdir(exist_ok=True)
                handle, part = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".part", dir=path.parent)
            except FileNotFoundError:
                if not self.folder.is_dir():
                    raise
                continue  # another process has just removed the empty folder
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                return _second_name(part, path, content)
            finally:
                Path(part).unlink(missing_ok=True)

    def make(self, files: Mapping[str, bytes], first: str) -> bool:
        """Makes the folder under another name, and renames it."""
        folder = self.folder
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=f".{folder.name[:40]}.", suffix=".part", dir=folder.parent))
        except OSError as error:
            raise InputError(f"{quoted(folder)} cannot be written: {error.strerror}. Choose another folder.") from error
        try:
            for name, content in files.items():
                atomic.write(part / name, content)
            os.chmod(part, 0o777 & ~_umask())
            try:
                os.rename(part, folder)  # fails if the folder has content
            except OSError:
                if not (folder / first).is_file():
                    raise InputError(
                        f"{quoted(folder)} exists and is not a run: choose another folder, or empty it first."
                    ) from None
                return False
            _flush(folder)
            return True
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def size(self, name: str) -> int | None:
        """The bytes of a file."""
        try:
            found = os.stat(self.full(name))
            return found.st_size if stat.S_ISREG(found.st_mode) else None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sizes(self, under: str) -> None:
        """None: files are asked one by one."""
        return None

    def age(self, name: str) -> float | None:
        """Seconds since a file was written."""
        try:
            return time.time() - self.full(name).stat().st_mtime
        except FileNotFoundError:
            return None

    def keep_young(self, name: str, content: bytes) -> None:
        """Changes its time alone."""
        with suppress(FileNotFoundError):
            os.utime(self.full(name))

    def names(self, under: str = "") -> list[str]:
        """All files in a folder and below it, and links to folders, which are not followed."""
        found = []
        for base, folders, files in os.walk(self.full(under)):
            inside = [Path(base) / name for name in files]
            inside += [Path(base) / name for name in folders if (Path(base) / name).is_symlink()]
            found += [path.relative_to(self.folder).as_posix() for path in inside]
        return sorted(found)

    def used(self) -> bool:
        """Whether there is a file, or a folder with anything in it."""
        return bool(self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())))

    def delete(self, name: str) -> None:
        """Deletes a file, if it is there."""
        self.full(name).unlink(missing_ok=True)

    def remove(self, last: str) -> None:
        """Renames the folder first, so that a process that is killed here leaves no half of a run."""
        parent = self.folder.absolute().parent
        aside = Path(tempfile.mkdtemp(prefix=f".{self.name[:40]}.", suffix=".part", dir=parent))
        self.folder.rename(aside / "run")
        shutil.rmtree(aside)

    def zarr(self, name: str) -> str:
        """The path."""
        return str(self.full(name))

    def free(self) -> int:
        """The bytes that are free on its file system."""
        place = self.folder if self.folder.exists() else next(p for p in self.folder.absolute().parents if p.exists())
        return shutil.disk_usage(place).free

    def tidy(self) -> None:
        """Deletes temporary files that killed writers have left."""
        for path in self.folder.rglob("*.part"):
            try:
                if path.name.startswith(".") and time.time() - path.stat().st_mtime > _LEFT_OVER:
                    path.unlink()
            except FileNotFoundError:  # its writer has just renamed it
                continue

    def without_empty(self, under: str) -> None:
        """Removes a folder if nothing is in it."""
        with suppress(OSError):
            self.full(under).rmdir()


def _second_name(part: str, path: Path, content: bytes) -> bool:
    """Gives a file its name, unless that is taken."""
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without second names: others may see the file before it is whole
        try:
            with open(path, "xb") as file:
                file.write(content)
        except FileExistsError:
            return False
    return True


def _flush(path: Path) -> None:
    """Flushes the entry of a file in its folder, so that the rename survives a loss of power."""
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
