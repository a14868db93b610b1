"""Runs in object stores, such as s3://bucket/maps, through fsspec.

An object is written by one request, and is there whole or not at all. Nothing is renamed: the run's description is made
first and by one process alone, and then its arrays' descriptions, which follow from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import Any

from relprop.data.run_places import RunPlace
from relprop.errors import InputError, RelpropError
from relprop.optional import library
from relprop.rendering.visible import quoted


class ObjectPlace(RunPlace):
    """A run in an object store. Credentials are those of the environment, or of fsspec's settings.

    Args:
        address: such as s3://bucket/maps.

    Raises:
        InputError: fsspec knows no such address, or what it needs is not installed.
    """

    def __init__(self, address: str) -> None:
        core = library("fsspec.core", "runs in object stores need fsspec", "objects")
        self.folder = address.rstrip("/")
        try:
            self.files, self.root = core.url_to_fs(self.folder)
        except ImportError as error:  # fsspec says which package
            raise InputError(f"{quoted(address)} cannot be opened: {error}.") from error
        except ValueError as error:
            raise InputError(
                f"fsspec cannot open {quoted(address)} ({error}): write an address such as s3://bucket/maps or gs://bucket/maps."
            ) from error
        except Exception as error:  # whatever a store raises at its door
            raise InputError(f"{quoted(address)} cannot be opened: {_said(error)}.") from error
        self.own = address.startswith("memory://")

    @property
    def name(self) -> str:
        """The last part of the address."""
        return str(self.folder.rpartition("/")[2])

    def full(self, name: str) -> str:
        """The address of an object."""
        return f"{self.folder}/{name}"

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    @contextmanager
    def _asked(self, name: str) -> Iterator[None]:
        """What a store raises besides that an object is there or is not, as an error of ours."""
        try:
            yield
        except (FileNotFoundError, FileExistsError, RelpropError):
            raise
        except Exception as error:  # each store has errors of its own
            raise InputError(
                f"the store of {quoted(self.full(name))} refuses: {_said(error)}. What is done stays."
            ) from error

    def read(self, name: str) -> bytes:
        """The content of an object."""
        with self._asked(name):
            return bytes(self.files.cat_file(self._path(name)))

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Puts an object."""
        with self._asked(name):
            self.files.pipe_file(self._path(name), bytes(content))

    def create(self, name: str, content: bytes) -> bool:
        """Puts an object unless it is there. Where the store has no such request, two processes may both believe it."""
        with self._asked(name):
            try:
                self.files.pipe_file(self._path(name), content, mode="create")
            except FileExistsError:
                return False
            except (TypeError, NotImplementedError):  # its file system is older than this request
                if self.exists(name):
                    return False
                self.files.pipe_file(self._path(name), content)
        return True

    def make(self, files: Mapping[str, bytes], first: str) -> bool:
        """Puts the description of the run first; the others follow from it, so that who comes later may put them, too.

        What was put is read again: where the store has no request that only one process succeeds with, the last one to
        write has made the run.
        """
        if (names := self.names()) and first not in names:
            raise InputError(f"{quoted(self.folder)} has objects and is not a run: choose another address.")
        made = self.create(first, files[first]) and self.read(first) == files[first]
        if made:
            for name, content in files.items():
                if name != first:
                    self.write(name, content)
        return made

    def size(self, name: str) -> int | None:
        """The bytes of an object."""
        try:
            found = self._info(name)
        except FileNotFoundError:
            return None
        return int(found["size"]) if found.get("type", "file") == "file" else None

    def sizes(self, under: str) -> Mapping[str, int]:
        """The bytes of all objects below a name, by one listing."""
        start = len(self._path("x")) - 1
        return {path[start:]: int(about["size"]) for path, about in self._listed(under).items()}

    def age(self, name: str) -> float | None:
        """Seconds since an object was put, by the store's clock and ours; endless where the store does not tell."""
        with self._asked(name):
            self.files.invalidate_cache()
            try:
                when = self.files.modified(self._path(name))
            except FileNotFoundError:
                return None
            except NotImplementedError:
                return float("inf")
        when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
        return (datetime.now(timezone.utc) - when).total_seconds()

    def keep_young(self, name: str, content: bytes) -> None:
        """Puts it again, if it is there."""
        if self.exists(name):
            self.write(name, content)

    def names(self, under: str = "") -> list[str]:
        """All objects below a name, in their order."""
        start = len(self._path("x")) - 1
        return sorted(path[start:] for path in self._listed(under))

    def delete(self, name: str) -> None:
        """Deletes an object, if it is there."""
        with self._asked(name), suppress(FileNotFoundError):
            self.files.rm_file(self._path(name))

    def remove(self, last: str) -> None:
        """Deletes records first and the description last, so that what an interruption leaves is a run."""
        names = [name for name in self.names() if name != last]
        for name in sorted(names, key=lambda name: (not name.startswith("units/"), name)):
            self.delete(name)
        self.delete(last)

    def zarr(self, name: str) -> Any:
        """Zarr's store over the same address."""
        storage = library("zarr.storage", "runs over data sets need zarr 3, on Python 3.11 or newer", "data")
        return storage.FsspecStore.from_url(self.full(name), read_only=True)

    def free(self) -> None:
        """None: object stores do not tell."""
        return None

    def _info(self, name: str) -> dict[str, Any]:
        with self._asked(name):
            self.files.invalidate_cache()  # of listings, which other processes have changed since
            return dict(self.files.info(self._path(name)))

    def _listed(self, under: str) -> dict[str, Any]:
        with self._asked(under):
            self.files.invalidate_cache()
            try:
                return dict(self.files.find(self._path(under), detail=True))
            except FileNotFoundError:
                return {}


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
