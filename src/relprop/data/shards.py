"""The arrays of a run: their descriptions, and the bytes of one shard. zarr makes both, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
        zarr.create_array(**_described(spec, size, units * size, held))
        found[f"{ARRAYS}/{spec.name}/zarr.json"] = held["zarr.json"].to_bytes()
    return found


def shard(spec: Spec, rows: np.ndarray, size: int) -> memoryview:
    """The bytes of one shard of an array. zarr makes them, in memory: they do not depend on what is on disk.

    It does so in the thread that asks. In zarr's own threads, the allocator would keep for each of them what it freed,
    which together is more than the shard.
    """
    if len(rows) < size:
        full = np.full((size, *spec.shape), _fill(spec), dtype=spec.dtype)
        full[: len(rows)] = rows
        rows = full
    held: dict[str, Any] = {}
    zarr = zarr_library()

    async def write() -> None:
        array = await zarr.api.asynchronous.create_array(**_described(spec, size, size, held))
        await array.setitem(slice(None), rows.astype(spec.dtype, copy=False))

    _done(write)
    return memoryview(next(value.as_numpy_array() for name, value in held.items() if name.startswith("c/")))


def _done(act: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Does what zarr does asynchronously; in another thread only where this one has an event loop, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        _in_this_thread(act)
        return
    with ThreadPoolExecutor(1) as thread:
        thread.submit(_in_this_thread, act).result()


def _in_this_thread(act: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = asyncio.new_event_loop()
    try:
        loop.set_default_executor(_Here())
        loop.run_until_complete(act())
    finally:
        loop.close()


class _Here(ThreadPoolExecutor):
    """Calls functions where they are submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """What a function gives, at once."""
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:
            done.set_exception(error)
        return done


def _described(spec: Spec, size: int, rows: int, held: dict[str, Any]) -> dict[str, Any]:
    """The arguments with which zarr makes an array in memory."""
    zarr = zarr_library()
    scalar = spec.bytes <= 64  # one chunk of all rows for numbers; a chunk for each map
    kind = np.dtype(spec.dtype)
    codec = zarr.codecs.BloscCodec(typesize=kind.itemsize, cname="zstd", clevel=1, shuffle="bitshuffle")
    return {
        "store": zarr.storage.MemoryStore(held), "shape": (rows, *spec.shape), "shards": (size, *spec.shape),
        "chunks": (size if scalar else 1, *spec.shape), "dtype": spec.dtype, "compressors": codec,
        "fill_value": _fill(spec), "dimension_names": ("sample", *spec.axes), "config": {"write_empty_chunks": True},
    }  # fmt: skip


def _fill(spec: Spec) -> Any:
    return 0 if np.dtype(spec.dtype).kind in "iu" else np.nan if spec.name in ("score", "residual") else 0.0
