"""Deletes the folder of a run, if nothing else is in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from relprop.data.leases import LEASES, Leases
from relprop.data.run_addresses import place_of
from relprop.data.run_descriptions import RUN
from relprop.data.shards import ARRAYS
from relprop.data.store import TOKENS, UNITS, Store
from relprop.errors import InputError
from relprop.rendering.visible import quoted

_OURS = re.compile(
    rf"({re.escape(RUN)}|{re.escape(TOKENS)}|spray\.html|{UNITS}/[0-9]+\.json|{LEASES}/[0-9a-z]+"
    rf"|{re.escape(ARRAYS)}/(zarr\.json|[^/]+/(zarr\.json|c/[0-9/]+)))"
)
"""What a run writes, relative to its folder."""


def remove_run(folder: Any) -> None:
    """Deletes a run. A folder that is not there, or empty, stays as it is.

    Raises:
        InputError: it is not a run, something in it was not written by one, or another process writes it.
        FormatError: its description is damaged.
    """
    place = place_of(folder)
    if not place.used():
        return
    if not place.exists(RUN):
        raise InputError(f"{quoted(place.folder)} is not a run, so nothing in it is deleted: choose another folder.")
    Store(place)
    for name in place.names():
        path = place.full(name)
        linked = isinstance(path, Path) and path.is_symlink()
        if linked or not (_OURS.fullmatch(name) or _temporary(name.rpartition("/")[2])):
            raise InputError(
                f"{quoted(path)} was not written by a run, so nothing is deleted: move it away, or choose another folder."
            )
    if (other := Leases(place).living()) is not None:
        raise InputError(
            f"another process writes {quoted(place.folder)} (it has {LEASES}/{other}), so nothing is deleted."
        )
    place.remove(RUN)


def _temporary(name: str) -> bool:
    """Whether it is what a writer that was killed has left."""
    return name.startswith(".") and name.endswith(".part")
