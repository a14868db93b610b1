"""The folder of a run: run.json, a zarr group, and the record of each unit, which is written last."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relprop.data.shards import ARRAYS, Spec, make_arrays, shard, zarr_library
from relprop.errors import FormatError, InputError
from relprop.rendering.visible import quoted
from relprop.results.files import atomic

RUN, UNITS, TOKENS = "run.json", "units", "tokens.json"
VERSION, FIRST_VERSION = 2, 1
"""The newest version of the format that is read, and that of a run with one target for each sample that is no text."""
NOT_YET, EXPLAINED, QUARANTINED, NO_SAMPLE = 0, 1, 2, 3
STATUS = {NOT_YET: "not yet", EXPLAINED: "explained", QUARANTINED: "quarantined", NO_SAMPLE: "no sample"}
_LEFT_OVER = 3600.0
"""Seconds after which a temporary file counts as left by a writer that was killed."""


@dataclass(frozen=True)
class Unit:
    """Consecutive samples of the source that are stored together.

    Attributes:
        number: which unit.
        samples: their numbers in the source.
        row: the row of the first of them in the arrays.
    """

    number: int
    samples: range
    row: int


class Store:
    """A run's folder.

    Args:
        folder: an existing one.

    Raises:
        FormatError: it is not a run, it is damaged, or a newer version wrote it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, Any] = {}
        self._names: list[str] | None = None
        self.about = _about(folder)
        self.specs = [Spec(s["name"], tuple(s["shape"]), s["dtype"], tuple(s["axes"])) for s in self.about["arrays"]]

    @property
    def size(self) -> int:
        """Samples per unit."""
        return int(self.about["unit"])

    def units(self) -> list[Unit]:
        """All units. A source that grew has its new samples in new units."""
        found: list[Unit] = []
        first = 0
        for length in self.about["lengths"]:
            for start in range(first, first + length, self.size):
                stop = min(start + self.size, first + length)
                found.append(Unit(len(found), range(start, stop), len(found) * self.size))
            first += length
        return found

    def record_path(self, number: int) -> Path:
        """The file of a unit's record."""
        return self.folder / UNITS / f"{number:06d}.json"

    def record(self, number: int) -> dict[str, Any] | None:
        """The record of a unit; None as long as the unit is not done.

        Raises:
            FormatError: it is damaged.
        """
        path = self.record_path(number)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise FormatError(f"{quoted(path)} is damaged: {error}. Delete it, and the unit is done again.") from error
        if not isinstance(found, dict) or not {"rows", "keys", "files", "quarantined"} <= found.keys():
            raise FormatError(f"{quoted(path)} is not a record of a unit. Delete it, and the unit is done again.")
        return found

    def records(self) -> Iterator[dict[str, Any]]:
        """The records of the units that are done, in their order."""
        for unit in self.units():
            if (found := self.record(unit.number)) is not None:
                yield found

    def done(self) -> set[int]:
        """The numbers of the units that are done."""
        return {int(path.stem) for path in (self.folder / UNITS).glob("[0-9]*.json") if path.stem.isdigit()}

    def whole(self, record: dict[str, Any]) -> bool:
        """Whether a unit that is done can be read; False if it is being done again.

        zarr gives zeros for a shard that is not there, so that this must be looked at first.

        Raises:
            FormatError: a file of it is missing or cut.
        """
        for name, said in record["files"].items():
            try:
                size = (self.folder / name).stat().st_size
            except FileNotFoundError:
                size = None
            if size != said["bytes"]:
                if self.record(record["unit"]) != record:
                    return False
                wrong = "is missing" if size is None else f"has {size} bytes, and {said['bytes']} were written"
                raise FormatError(
                    f"{quoted(self.folder / name)} {wrong}. Delete {quoted(self.record_path(record['unit']))}, and the same "
                    "call does that unit again."
                )
        return True

    def read(self, name: str, rows: Any) -> np.ndarray:
        """Rows of an array as they are stored: a slice, a row, or an array of numbers.

        Raises:
            FormatError: a shard is damaged.
        """
        array = self.array(name)
        try:
            return np.asarray(array.oindex[rows] if isinstance(rows, np.ndarray) else array[rows])
        except (ValueError, RuntimeError) as error:
            raise FormatError(
                f"{quoted(self.folder / ARRAYS / name)} is damaged: {error} relprop run --verify names the files."
            ) from error

    def commit(self, unit: Unit, keys: Sequence[str], arrays: Mapping[str, np.ndarray], about: dict[str, Any]) -> int:
        """Writes a unit: each array's shard, whole and by rename, and then its record.

        Doing a unit twice writes the same shards, so that two processes with one unit do no harm.

        Args:
            unit: which one.
            keys: the keys of its samples.
            arrays: the rows of every array, by name.
            about: what else the record says.

        Returns:
            The bytes of its shards.
        """
        files = {}
        for spec in self.specs:
            content = shard(spec, arrays[spec.name], self.size)
            path = f"{ARRAYS}/{spec.name}/c/{unit.number}" + "/0" * len(spec.shape)
            atomic.write(self.folder / path, content)
            _flush(self.folder / path)
            files[path] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        rows = [unit.row, unit.row + len(unit.samples)]
        record = {
            "unit": unit.number,
            "rows": rows,
            "keys": list(keys),
            "files": files,
            **about,
            "host": socket.gethostname(),
        }
        path_of = self.record_path(unit.number)
        atomic.write(path_of, _text(record))
        _flush(path_of)
        return sum((self.folder / path).stat().st_size for path in files)

    def array(self, name: str) -> Any:
        """The zarr array of that name, read lazily.

        Raises:
            InputError: the run keeps no such array.
        """
        if name not in {spec.name for spec in self.specs}:
            raise InputError(f"the run keeps no {name!r}; it has {', '.join(spec.name for spec in self.specs)}.")
        if name not in self._open:
            self._open[name] = zarr_library().open_array(str(self.folder / ARRAYS / name), mode="r")
        return self._open[name]

    def vocabulary(self) -> list[str]:
        """The tokens by their ids, of a run over texts.

        Raises:
            FormatError: their file is missing or damaged.
        """
        if self._names is None:
            path = self.folder / TOKENS
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise FormatError(f"{quoted(path)} is missing or damaged: {error}.") from error
            if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
                raise FormatError(f"{quoted(path)} is not a list of tokens.")
            self._names = found
        return self._names

    def reopen(self) -> None:
        """Forgets the arrays that are open: they may have grown."""
        self._open.clear()

    def grow(self, length: int, digest: str) -> None:
        """Adds units for new samples of the source, whose keys have this digest now."""
        self.about["keys_sha256"] = digest
        self.about["lengths"].append(length - sum(self.about["lengths"]))
        make_arrays(self.folder, self.specs, self.size, len(self.units()))
        atomic.write(self.folder / RUN, _text(self.about))

    def extend(self, count: int) -> None:
        """Adds a unit for samples of a source that did not tell its length: they have come."""
        lengths = self.about["lengths"]
        if lengths and lengths[-1] % self.size == 0:
            lengths[-1] += count
        else:
            lengths.append(count)
        make_arrays(self.folder, self.specs, self.size, len(self.units()))
        self.reopen()
        atomic.write(self.folder / RUN, _text(self.about))

    def verify(self) -> list[str]:
        """What is wrong with the files that the records name: one line for each that is missing or differs."""
        wrong = []
        for record in self.records():
            for name, said in record["files"].items():
                path = self.folder / name
                if ".." in Path(name).parts or Path(name).is_absolute():
                    wrong.append(f"{name}: is not a path inside the run")
                elif not path.is_file():
                    wrong.append(f"{name}: is missing")
                elif hashlib.sha256(path.read_bytes()).hexdigest() != said["sha256"]:
                    wrong.append(f"{name}: differs from what was written")
        return wrong

    def tidy(self) -> None:
        """Deletes temporary files that writers which were killed have left."""
        for path in self.folder.rglob("*.part"):
            try:
                if path.name.startswith(".") and time.time() - path.stat().st_mtime > _LEFT_OVER:
                    path.unlink()
            except FileNotFoundError:  # its writer has just renamed it
                continue


def create(folder: Path, about: dict[str, Any], specs: Sequence[Spec], names: Sequence[str] | None = None) -> bool:
    """Makes the folder of a run, all at once. Of several that start together, one makes it.

    Args:
        folder: where.
        about: what run.json says besides format, version and arrays.
        specs: the arrays.
        names: the tokens by their ids, for a run over texts.

    Returns:
        Whether this process made it.

    Raises:
        InputError: something else is there.
    """
    version = VERSION if "targets" in about or names is not None else FIRST_VERSION
    about = {"format": "relprop run", "version": version, **about}
    about["arrays"] = [{"name": s.name, "shape": list(s.shape), "dtype": s.dtype, "axes": list(s.axes)} for s in specs]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name[:40]}.", suffix=".part", dir=folder.parent))
    except OSError as error:
        raise InputError(f"{quoted(folder)} cannot be written: {error.strerror}. Choose another folder.") from error
    try:
        (part / UNITS).mkdir()
        count = -(-sum(about["lengths"]) // about["unit"])
        make_arrays(part, specs, about["unit"], max(count, 1))
        atomic.write(part / RUN, _text(about))
        if names is not None:
            atomic.write(part / TOKENS, _text(list(names)))
        os.chmod(part, 0o777 & ~_umask())
        try:
            os.rename(part, folder)  # fails if the folder has content
        except OSError:
            if not (folder / RUN).is_file():
                raise InputError(
                    f"{quoted(folder)} exists and is not a run: choose another folder, or empty it first."
                ) from None
            return False
        _flush(folder)
        return True
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _about(folder: Path) -> dict[str, Any]:
    path = folder / RUN
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FormatError(f"{quoted(folder)} is not a run: it has no {RUN}.") from error
    except ValueError as error:
        raise FormatError(f"{quoted(path)} is damaged: {error}.") from error
    if not isinstance(found, dict) or found.get("format") != "relprop run":
        raise FormatError(f"{quoted(path)} does not describe a run.")
    if found.get("version") not in range(FIRST_VERSION, VERSION + 1):
        raise FormatError(
            f"{quoted(folder)} has version {found.get('version')!r} of the format, and this relprop reads versions up to "
            f"{VERSION}: install a newer one."
        )
    needed = {"fingerprint", "lengths", "unit", "arrays", "number_format", "keys_sha256"}
    if missing := sorted(needed - found.keys()):
        raise FormatError(f"{quoted(path)} is damaged: it has no {missing[0]}.")
    return found


def _text(content: Any) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=True) + "\n").encode()


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
