"""Exports to one HDF5 file. It grows under another name, and takes its own when it is whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from relprop.data.chunks import chunks, content, plain
from relprop.data.exports.export_folder import state
from relprop.data.store import Store
from relprop.errors import InputError
from relprop.optional import library
from relprop.rendering.visible import quoted

DONE = "units done"


def hdf5(store: Store, out: Path) -> Path:
    """One HDF5 file with `key`, `reason` and an array for each of the store's, decoded; rows are the samples that are done."""
    scaled = {spec.name for spec in store.specs}
    kinds = {
        spec.name: (spec.shape, "f4" if f"{spec.name}.scale" in scaled else spec.dtype, np.nan)
        for spec in content(store)
    }

    def write(file: Any, record: dict[str, Any], at: int) -> None:
        for chunk in chunks(store, record):
            start = at + chunk.row - record["rows"][0]
            for name, rows in chunk.arrays.items():
                file[name][start : start + len(chunk)] = rows

    with growing(store, out, kinds) as (file, missing):
        for number, (record, at) in missing:
            write(file, record, at)
            mark(file, number)
    return out


@contextmanager
def growing(
    store: Store, out: Path, kinds: Mapping[str, tuple[tuple[int, ...], str, Any]], names: bool = True
) -> Iterator[tuple[Any, list[tuple[int, tuple[dict[str, Any], int]]]]]:
    """A file to write units into.

    Its arrays are allocated before the first unit, so that writing rows changes no part of the file that describes it. A
    writer may then be killed at any moment: the next one opens the file and goes on.

    Args:
        store: the run.
        out: the file that there will be.
        kinds: for each array the shape of a row, its dtype, and what is not used.
        names: whether it has `key` and `reason`.

    Yields:
        The file, and each missing unit: its place, its record, and its first row in the file.
    """
    if out.is_dir():
        raise InputError(f"{quoted(out)} is a folder; the export is a file: choose another name.")
    h5py = library("h5py", "exports to HDF5 need h5py", "hdf5")
    records = list(store.records())
    starts = np.cumsum([0, *(record["rows"][1] - record["rows"][0] for record in records)]).tolist()
    part = out.with_name(f".{out.name}.part")
    now = state(store)
    if out.exists():
        if _fits(h5py, out, now):
            yield None, []
            return
        if not _fits(h5py, out, None):
            raise InputError(f"{quoted(out)} exists and is not an export: choose another name, or remove it first.")
    if not _fits(h5py, part, now):
        part.unlink(missing_ok=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(part, "w") as file:
            for name, (shape, dtype, _) in kinds.items():
                file.create_dataset(name, (starts[-1], *shape), dtype, dcpl=_early(h5py))
            file.create_dataset(DONE, (len(records),), "u1", dcpl=_early(h5py, filled=True))
            if names:
                _names(h5py, file, records)
            file.attrs["state"] = now  # last: without it, the file is begun again
    with h5py.File(part, "r+") as file:
        done = file[DONE][:]
        yield file, [(n, (record, starts[n])) for n, record in enumerate(records) if not done[n]]
        del file[DONE]
    os.replace(part, out)


def mark(file: Any, number: int) -> None:
    """Says that a unit is in the file: after its rows have reached the disk."""
    _flush(file)
    file[DONE][number] = 1
    _flush(file)


def _names(h5py: Any, file: Any, records: list[dict[str, Any]]) -> None:
    text = h5py.string_dtype()
    keys = [key for record in records for key in plain(record["keys"])]
    reasons = [record["quarantined"].get(key, "") for record in records for key in record["keys"]]
    file.create_dataset("key", data=np.array(keys, object), dtype=text)
    file.create_dataset("reason", data=np.array(reasons, object), dtype=text)


def _early(h5py: Any, filled: bool = False) -> Any:
    """Properties of an array that has its room at once."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_ALLOC if filled else h5py.h5d.FILL_TIME_NEVER)
    return properties


def _fits(h5py: Any, path: Path, now: str | None) -> bool:
    """Whether a file is an export, and of this content."""
    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("state")
            return bool(found is not None if now is None else found == now)
    except OSError:  # there is none, or it is damaged
        return False


def _flush(file: Any) -> None:
    file.flush()
    handle = file.id.get_vfd_handle()
    os.fsync(handle)
