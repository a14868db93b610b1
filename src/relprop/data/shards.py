"""The arrays of a run: their descriptions, and the bytes of one shard. zarr makes both, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from relprop.optional import library

ARRAYS = "maps.zarr"


@dataclass(frozen=True)
class Spec:
    """An array of the store: the shape and type of one row, and the names of its axes after the first."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    axes: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Bytes per row, before compression."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def zarr_library() -> Any:
    """The library zarr.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    return library("zarr", "runs over data sets need zarr 3, on Python 3.11 or newer", "data")


def descriptions(specs: Sequence[Spec], size: int, units: int) -> dict[str, bytes]:
    """The files that describe the arrays, with room for that many units; none of their data."""
    held: dict[str, Any] = {}
    zarr = zarr_library()
    zarr.open_group(zarr.storage.MemoryStore(held), mode="w", attributes={"relprop": 1})
    found = {f"{ARRAYS}/zarr.json": held["zarr.json"].to_bytes()}
    for spec in specs:
        held = {}
        _array(spec, size, units * size, held)
        found[f"{ARRAYS}/{spec.name}/zarr.json"] = held["zarr.json"].to_bytes()
    return found


def shard(spec: Spec, rows: np.ndarray, size: int) -> memoryview:
    """The bytes of one shard of an array. zarr makes them, in memory: they do not depend on what is on disk."""
    held: dict[str, Any] = {}
    array = _array(spec, size, size, held)
    if len(rows) < size:
        full = np.full((size, *spec.shape), _fill(spec), dtype=spec.dtype)
        full[: len(rows)] = rows
        rows = full
    array[:] = rows.astype(spec.dtype, copy=False)
    return memoryview(next(value.as_numpy_array() for name, value in held.items() if name.startswith("c/")))


def _array(spec: Spec, size: int, rows: int, held: dict[str, Any]) -> Any:
    zarr = zarr_library()
    scalar = spec.bytes <= 64  # one chunk of all rows for numbers; a chunk for each map
    kind = np.dtype(spec.dtype)
    codec = zarr.codecs.BloscCodec(typesize=kind.itemsize, cname="zstd", clevel=1, shuffle="shuffle")
    return zarr.create_array(
        zarr.storage.MemoryStore(held), shape=(rows, *spec.shape), shards=(size, *spec.shape),
        chunks=(size if scalar else 1, *spec.shape), dtype=spec.dtype, compressors=codec, fill_value=_fill(spec),
        dimension_names=("sample", *spec.axes), config={"write_empty_chunks": True},
    )  # fmt: skip


def _fill(spec: Spec) -> Any:
    return 0 if np.dtype(spec.dtype).kind in "iu" else np.nan if spec.name in ("score", "residual") else 0.0
