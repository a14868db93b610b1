"""A path, or an address of an object store: where a run is kept, as users write it."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from relprop.data.object_stores import ObjectPlace
from relprop.data.run_places import LocalPlace, RunPlace
from relprop.errors import InputError

_OF_THIS_MACHINE = ("file://", "local://")


def place_of(folder: str | PathLike[str] | RunPlace) -> RunPlace:
    """Where a run is, by a path or an address.

    Raises:
        InputError: the address is none that fsspec knows, or what it needs is not installed.
    """
    if isinstance(folder, RunPlace):
        return folder
    text = os.fspath(folder)
    if text.startswith(_OF_THIS_MACHINE):
        return LocalPlace(Path(text.partition("://")[2]))
    if "://" in text:
        return ObjectPlace(text)
    head = text.partition("/")
    if head[0].endswith(":") and len(head[0]) > 2 and head[2]:
        raise InputError(f"pathlib makes {text!r} of an address, which is no path: give the address as text.")
    return LocalPlace(Path(folder))
