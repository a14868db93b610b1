"""Writes a run in another format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from relprop.data.exports import columnar, hdf5, hugging_face, virelay
from relprop.data.store import Store
from relprop.errors import InputError

FORMATS: dict[str, Callable[..., Path]] = {
    "parquet": columnar.parquet,
    "csv": columnar.csv,
    "npz": columnar.npz,
    "hdf5": hdf5.hdf5,
    "hf": hugging_face.hugging_face,
    "virelay": virelay.virelay,
}
"""Each writes a store to a path, and returns the path."""


def export(store: Store, to: str, out: Path, **settings: Any) -> Path:
    """Writes the units that are done; called again, those that are missing.

    Raises:
        InputError: there is no such format, nothing is done yet, or the path holds something else.
    """
    if to not in FORMATS:
        raise InputError(f"an export is to {', '.join(FORMATS)}; got {to!r}.")
    given = {name: value for name, value in settings.items() if value is not None}
    if given and to != "virelay":
        raise InputError(f"{next(iter(given))}= is for exports to virelay; {to} takes no samples.")
    if not store.done():
        raise InputError("the run has no unit that is done, so there is nothing to export.")
    return FORMATS[to](store, out, **given)
