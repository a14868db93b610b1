"""Reads the rows of a run again, some at a time, as float32: what exports and SpRAy go through."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from relprop.data.keep import decode
from relprop.data.run_descriptions import NUMBERS
from relprop.data.shards import Spec
from relprop.data.store import QUARANTINED, Store

_BYTES = 16 * 2**20
"""The most bytes of one array that a chunk holds, as they are stored."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Consecutive rows of one unit.

    Attributes:
        keys: the keys of its samples.
        row: the row of the first of them in the store.
        reasons: why a sample was quarantined, None for those that were explained.
        arrays: the rows of each array by name, decoded.
    """

    keys: list[str]
    row: int
    reasons: list[str | None]
    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def bad(self) -> np.ndarray:
        """Which of them were quarantined."""
        return np.asarray(self.arrays["status"] == QUARANTINED)


def content(store: Store) -> list[Spec]:
    """The arrays of a run that hold something by themselves: all but scales."""
    return [spec for spec in store.specs if not spec.name.endswith(".scale")]


def decoded(store: Store, name: str, rows: Any) -> np.ndarray:
    """Rows of an array as numbers: float32 where there is a scale, else as they are stored."""
    stored = store.read(name, rows)
    if f"{name}.scale" not in {spec.name for spec in store.specs}:
        return stored
    return decode(stored, store.read(f"{name}.scale", rows), store.about["number_format"])


def chunks(store: Store, record: dict[str, Any], names: Sequence[str] | None = None) -> Iterator[Chunk]:
    """The rows of a unit that is done, some at a time.

    Args:
        store: the run.
        record: the unit's record.
        names: the arrays that are wanted besides the numbers of every run; None takes all.

    Raises:
        FormatError: a file of the unit is missing or damaged.
    """
    store.whole(record)
    wanted = [spec for spec in content(store) if names is None or spec.name in names or spec.name in NUMBERS]
    first, end = record["rows"]
    step = max(_BYTES // max(spec.bytes for spec in wanted), 1)
    for start in range(first, end, step):
        rows = slice(start, min(start + step, end))
        keys = record["keys"][rows.start - first : rows.stop - first]
        arrays = {spec.name: decoded(store, spec.name, rows) for spec in wanted}
        yield Chunk(keys, start, [record["quarantined"].get(key) for key in keys], arrays)


def digest(store: Store, record: dict[str, Any]) -> str:
    """What tells one writing of a unit from another: the hashes of its files."""
    said = sorted((name, about["sha256"]) for name, about in record["files"].items())
    return hashlib.sha256(repr((record["rows"], said)).encode()).hexdigest()


def plain(keys: Sequence[str]) -> list[str]:
    """Keys as text that any program reads: bytes of a path that are not text become escapes."""
    return [key.encode("utf-8", "backslashreplace").decode() for key in keys]
