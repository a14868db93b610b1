"""A path, or an address of an object store: where a run is kept, as users write it."""

from __future__ import annotations

import os
import re
from os import PathLike
from pathlib import Path

from relprop.data.object_stores import ObjectPlace
from relprop.data.run_places import LocalPlace, RunPlace
from relprop.errors import InputError
from relprop.rendering.visible import quoted

_OF_THIS_MACHINE = ("file://", "local://")
_STORES = "s3a?|gs|gcs|az|abfss?|adl|oss|oci|hf|hdfs|webhdfs|https?|s?ftp|memory|file|local"
"""What addresses begin with."""
_MISWRITTEN = re.compile(rf"({_STORES})(:/?|//+)(?!/)(.+)", re.IGNORECASE | re.DOTALL)
"""An address that lacks its colon or a slash: a folder would be made of it."""


def place_of(folder: str | PathLike[str] | RunPlace) -> RunPlace:
    """Where a run is, by a path or an address.

    Raises:
        InputError: the address is miswritten, or none that fsspec knows, or what it needs is not installed.
    """
    if isinstance(folder, RunPlace):
        return folder
    text = os.fspath(folder)
    if text.startswith(_OF_THIS_MACHINE):
        return LocalPlace(Path(text.partition("://")[2]))
    if "://" in text:
        return ObjectPlace(text)
    check_path(folder)
    try:
        os.stat(folder)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (OSError, ValueError) as error:  # a name that is too long, has a NUL, or links to itself
        raise InputError(f"{quoted(text)} cannot be a folder: {getattr(error, 'strerror', None) or error}.") from error
    return LocalPlace(Path(folder))


def check_path(path: str | PathLike[str]) -> None:
    """Refuses a path that was meant as an address, as far as can be told.

    Raises:
        InputError: it begins like an address.
    """
    text = os.fspath(path)
    head, _, rest = text.partition("/")
    if not isinstance(path, str) and head.endswith(":") and len(head) > 2 and rest:
        raise InputError(f"pathlib makes {text!r} of an address, which is no path: give the address as text.")
    if found := _MISWRITTEN.match(text):
        store, between, rest = found.groups()
        root = "/" if f"{store.lower()}://" in _OF_THIS_MACHINE and between.endswith("/") else ""
        raise InputError(
            f"{text!r} is neither an address nor a usual path: write '{store.lower()}://{root}{rest}' for an address, or "
            f"'./{store}/{rest}' for a folder."
        )
    if head.endswith(":") and len(head) > 2 and rest:
        raise InputError(f"{text!r} is neither an address nor a usual path: an address has '://', as s3://bucket/maps.")
