"""The folder of a run: run.json, a zarr group, and the record of each unit, which is written last."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from relprop.data.run_addresses import place_of
from relprop.data.run_descriptions import FIRST_VERSION, GROWS, RUN, VERSION, as_text, description, wrong_record
from relprop.data.shards import ARRAYS, Spec, descriptions, shard, zarr_library
from relprop.errors import FormatError, InputError
from relprop.rendering.visible import quoted

UNITS, TOKENS = "units", "tokens.json"
NOT_YET, EXPLAINED, QUARANTINED, NO_SAMPLE = 0, 1, 2, 3
STATUS = {NOT_YET: "not yet", EXPLAINED: "explained", QUARANTINED: "quarantined", NO_SAMPLE: "no sample"}


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
        folder: an existing one, or the address of one in an object store.

    Raises:
        FormatError: it is not a run, it is damaged, or a newer version wrote it.
        InputError: its address cannot be reached.
    """

    def __init__(self, folder: Any) -> None:
        self.place = place_of(folder)
        self.folder = self.place.folder
        self._open: dict[str, Any] = {}
        self._names: list[str] | None = None
        self.about = description(self.place)
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

    def record_path(self, number: int) -> Any:
        """The file of a unit's record: a path, or an address."""
        return self.place.full(_record(number))

    def forget(self, number: int) -> None:
        """Deletes the record of a unit, which is then to be done again."""
        self.place.delete(_record(number))

    def record(self, number: int) -> dict[str, Any] | None:
        """The record of a unit; None as long as the unit is not done.

        Raises:
            FormatError: it is damaged.
        """
        path = self.record_path(number)
        try:
            found = json.loads(self.place.read(_record(number)))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError, IsADirectoryError) as error:
            raise FormatError(f"{quoted(path)} is damaged: {error}. Delete it, and the unit is done again.") from error
        if wrong := wrong_record(found, self._rows(number)):
            raise FormatError(f"{quoted(path)} is damaged: {wrong}. Delete it, and the unit is done again.")
        return dict(found)

    def _rows(self, number: int) -> list[int] | None:
        """The first row of a unit and the one after its last; None if the run did not have that unit when it was opened."""
        first = 0
        for length in self.about["lengths"]:
            count = -(-length // self.size)
            if number < first + count:
                samples = min(self.size, length - (number - first) * self.size)
                return [number * self.size, number * self.size + samples]
            first += count
        return None

    def records(self) -> Iterator[dict[str, Any]]:
        """The records of the units that are done, in their order."""
        for unit in self.units():
            if (found := self.record(unit.number)) is not None:
                yield found

    def done(self) -> set[int]:
        """The numbers of the units that are done."""
        names = [PurePosixPath(name) for name in self.place.names(UNITS)]
        return {int(name.stem) for name in names if name.suffix == ".json" and name.stem.isdigit()}

    def sizes(self) -> Mapping[str, int] | None:
        """The bytes of all shards, where one listing gives them; else None."""
        return self.place.sizes(ARRAYS)

    def whole(self, record: dict[str, Any], sizes: Mapping[str, int] | None = None) -> bool:
        """Whether a unit that is done can be read; False if it is being done again.

        zarr gives zeros for a shard that is not there, so that this must be looked at first.

        Args:
            record: that of the unit.
            sizes: what `sizes` has found after the record was there; None asks for each file.

        Raises:
            FormatError: a file of it is missing or cut.
        """
        for name, said in record["files"].items():
            size = self.place.size(name) if sizes is None else sizes.get(name)
            if size != said["bytes"]:
                if self.record(record["unit"]) != record:
                    return False
                wrong = "is missing" if size is None else f"has {size} bytes, and {said['bytes']} were written"
                raise FormatError(
                    f"{quoted(self.place.full(name))} {wrong}. Delete {quoted(self.record_path(record['unit']))}, and the same "
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
                f"{quoted(self.place.full(ARRAYS))} is damaged in {name}: {error} relprop run --verify names the files."
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
        files, total = {}, 0
        for spec in self.specs:
            content = shard(spec, arrays[spec.name], self.size)
            path = f"{ARRAYS}/{spec.name}/c/{unit.number}" + "/0" * len(spec.shape)
            self.place.write(path, content)
            total += len(content)
            files[path] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        rows = [unit.row, unit.row + len(unit.samples)]
        record = {"unit": unit.number, "rows": rows, "keys": list(keys), "files": files, **about}
        record["host"] = socket.gethostname()
        self._still()
        self.place.write(_record(unit.number), as_text(record))
        return total

    def _still(self) -> None:
        """Refuses to go on if the run was deleted or made anew meanwhile: its units are others now.

        Raises:
            InputError: it was.
        """
        try:
            now = description(self.place)
        except FormatError as error:
            raise InputError(f"the run was deleted or damaged while it was written: {error.message}") from error
        if any(now.get(name) != value for name, value in self.about.items() if name not in GROWS):
            raise InputError(
                f"{quoted(self.folder)} holds another run by now: another process made it meanwhile. Run it again."
            )

    def array(self, name: str) -> Any:
        """The zarr array of that name, read lazily.

        Raises:
            InputError: the run keeps no such array.
        """
        if name not in {spec.name for spec in self.specs}:
            raise InputError(f"the run keeps no {name!r}; it has {', '.join(spec.name for spec in self.specs)}.")
        if name not in self._open:
            self._open[name] = self._opened(next(spec for spec in self.specs if spec.name == name))
        return self._open[name]

    def _opened(self, spec: Spec) -> Any:
        """An array, as its description says that it is.

        Raises:
            FormatError: that is missing, damaged, or says something else than the run's.
        """
        path = f"{ARRAYS}/{spec.name}"
        try:
            found = zarr_library().open_array(self.place.zarr(path), mode="r")
            same = found.shape[1:] == spec.shape and str(found.dtype) == spec.dtype and found.shards[:1] == (self.size,)
        except (InputError, PermissionError, ModuleNotFoundError):
            raise
        except Exception as error:  # whatever zarr raises, the file is at fault
            found, same = f"{type(error).__name__}: {error}", False
        if not same:
            raise FormatError(
                f"{quoted(self.place.full(path + '/zarr.json'))} is missing or damaged ({found}). Delete it, and the same call "
                "writes it again."
            )
        return found

    def vocabulary(self) -> list[str]:
        """The tokens by their ids, of a run over texts.

        Raises:
            FormatError: their file is missing or damaged.
        """
        if self._names is None:
            path = self.place.full(TOKENS)
            try:
                found = json.loads(self.place.read(TOKENS))
            except (OSError, ValueError, RecursionError) as error:
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
        self._describe()

    def extend(self, count: int) -> None:
        """Adds a unit for samples of a source that did not tell its length: they have come."""
        lengths = self.about["lengths"]
        if lengths and lengths[-1] % self.size == 0:
            lengths[-1] += count
        else:
            lengths.append(count)
        self._describe()
        self.reopen()

    def _describe(self) -> None:
        """Writes the descriptions of the arrays, and then that of the run."""
        for name, content in descriptions(self.specs, self.size, len(self.units())).items():
            self.place.write(name, content)
        self.place.write(RUN, as_text(self.about))

    def complete(self, names: Sequence[str] | None) -> None:
        """Writes what the maker of the run has not written after its description, if anything: it may have been killed.

        Args:
            names: the tokens by their ids, for a run over texts.
        """
        found = descriptions(self.specs, self.size, max(len(self.units()), 1))
        for name, content in (found if names is None else {**found, TOKENS: as_text(list(names))}).items():
            if not self.place.exists(name):
                self.place.write(name, content)

    def verify(self) -> list[str]:
        """A line for each description, record or shard that is missing or damaged, or differs from what was written."""
        wrong = []
        self.reopen()
        for spec in self.specs:
            try:
                self.array(spec.name)
            except FormatError:
                wrong.append(f"{ARRAYS}/{spec.name}/zarr.json: is missing or damaged")
        for unit in self.units():
            try:
                record = self.record(unit.number)
            except FormatError:
                wrong.append(f"{_record(unit.number)}: is damaged")
                continue
            for name, said in ({} if record is None else record["files"]).items():
                if not self.place.exists(name):
                    wrong.append(f"{name}: is missing")
                elif hashlib.sha256(self.place.read(name)).hexdigest() != said.get("sha256"):
                    wrong.append(f"{name}: differs from what was written")
        return wrong


def create(folder: Any, about: dict[str, Any], specs: Sequence[Spec], names: Sequence[str] | None = None) -> bool:
    """Makes the folder of a run, all at once. Of several that start together, one makes it.

    Args:
        folder: where.
        about: what run.json says besides format, version and arrays.
        specs: the arrays.
        names: the tokens by their ids, for a run over texts.

    Returns:
        Whether this process made it.

    Raises:
        InputError: something else is there, or it cannot be written.
    """
    version = VERSION if "targets" in about or names is not None else FIRST_VERSION
    about = {"format": "relprop run", "version": version, **about}
    about["arrays"] = [{"name": s.name, "shape": list(s.shape), "dtype": s.dtype, "axes": list(s.axes)} for s in specs]
    return place_of(folder).make(_first_files(about, specs, names), RUN)


def _first_files(about: dict[str, Any], specs: Sequence[Spec], names: Sequence[str] | None) -> dict[str, bytes]:
    """The files of a run before its first unit."""
    count = -(-sum(about["lengths"]) // about["unit"])
    found = {RUN: as_text(about), **descriptions(specs, about["unit"], max(count, 1))}
    return found if names is None else {**found, TOKENS: as_text(list(names))}


def _record(number: int) -> str:
    return f"{UNITS}/{number:06d}.json"
