"""Deletes the folder of a run, if nothing else is in it."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from relprop.data.leases import LEASES, Leases
from relprop.data.shards import ARRAYS
from relprop.data.store import RUN, TOKENS, UNITS, Store
from relprop.errors import InputError
from relprop.rendering.visible import quoted

_OURS = re.compile(
    rf"({re.escape(RUN)}|{re.escape(TOKENS)}|spray\.html|{UNITS}/[0-9]+\.json|{LEASES}/[0-9a-z]+"
    rf"|{re.escape(ARRAYS)}/(zarr\.json|[^/]+/(zarr\.json|c/[0-9/]+)))"
)
"""What a run writes, relative to its folder."""


def remove_run(folder: Path) -> None:
    """Deletes a run. A folder that is not there, or empty, stays as it is.

    The folder is renamed first, so that a process that is killed here leaves no half of a run.

    Raises:
        InputError: it is not a run, something in it was not written by one, or another process writes it.
        FormatError: its description is damaged.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / RUN).is_file():
        raise InputError(f"{quoted(folder)} is not a run, so nothing in it is deleted: choose another folder.")
    Store(folder)
    for base, folders, files in os.walk(folder):
        inside = [Path(base) / name for name in files]
        inside += [Path(base) / name for name in folders if (Path(base) / name).is_symlink()]
        for path in inside:
            name = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (_OURS.fullmatch(name) or _temporary(path)):
                raise InputError(
                    f"{quoted(path)} was not written by a run, so nothing is deleted: move it away, or choose another folder."
                )
    if (other := Leases(folder).living()) is not None:
        raise InputError(f"another process writes {quoted(folder)} (it has {LEASES}/{other}), so nothing is deleted.")
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name[:40]}.", suffix=".part", dir=folder.absolute().parent))
    folder.rename(aside / "run")
    shutil.rmtree(aside)


def _temporary(path: Path) -> bool:
    """Whether it is what a writer that was killed has left."""
    return path.name.startswith(".") and path.suffix == ".part"
