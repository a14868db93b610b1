"""The folder of an export: a description, and a mark for each unit that is in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relprop.data.chunks import digest
from relprop.data.store import Store
from relprop.errors import InputError
from relprop.rendering.visible import quoted
from relprop.results.files import atomic

_HIDDEN = ".relprop"
"""Programs that read a folder of files pass over what begins with a dot."""


class ExportedUnits:
    """The units that an export has, and those that it lacks.

    Args:
        store: the run.
        out: the folder of the export.
        to: its format.
        settings: what else decides on its content.

    Raises:
        InputError: the folder holds something else.
    """

    def __init__(self, store: Store, out: Path, to: str, settings: dict[str, Any] | None = None) -> None:
        self.store, self.out = store, out
        about = {"format": "relprop export", "to": to, "run": identity(store), **(settings or {})}
        path = out / _HIDDEN / "export.json"
        if out.exists() and not out.is_dir():
            raise InputError(f"{quoted(out)} is a file; an export to {to} is a folder: choose another name.")
        if path.is_file():
            if _read(path) != about:
                raise InputError(f"{quoted(out)} holds another export: choose another folder, or remove it first.")
        elif out.is_dir() and any(out.iterdir()):
            raise InputError(f"{quoted(out)} exists and is not an export: choose another folder, or empty it first.")
        else:
            atomic.write(path, json.dumps(about, indent=1).encode())

    def missing(self) -> Iterator[dict[str, Any]]:
        """The records of units that are not in the export, or that were done again since."""
        for record in self.store.records():
            if _text(self._mark(record["unit"])) != digest(self.store, record):
                yield record

    def done(self, record: dict[str, Any]) -> None:
        """Marks a unit as written."""
        atomic.write(self._mark(record["unit"]), digest(self.store, record).encode())

    def _mark(self, number: int) -> Path:
        return self.out / _HIDDEN / f"{number:06d}"


def identity(store: Store) -> str:
    """What tells one run from another."""
    about = {name: store.about[name] for name in ("fingerprint", "unit", "number_format", "arrays")}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def state(store: Store) -> str:
    """What tells the content of a run from that at another time."""
    found = hashlib.sha256(identity(store).encode())
    for record in store.records():
        found.update(digest(store, record).encode())
    return found.hexdigest()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
