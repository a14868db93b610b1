"""Loads a result from a folder, which may come from anyone: what does not fit is refused here, not when it is shown."""

from __future__ import annotations

import os
import re
from importlib.metadata import entry_points
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from relprop.composites import Place
from relprop.errors import FormatError, InputError
from relprop.results.files import atomic
from relprop.results.files.bounded import exactly, opened, strict_json
from relprop.results.files.checks import holds, real
from relprop.results.files.encoding import decode
from relprop.results.files.folder import FORMAT, MANIFEST, TENSORS, RecordedComposite, RecordedRule
from relprop.results.files.read_tensors import read
from relprop.results.identity import Identity
from relprop.results.ledger import Ledger, LedgerEntry
from relprop.results.protocol import KINDS, Result
from relprop.rules import Rule
from relprop.signatures import public

# The largest size of a manifest. That of a network of 10,000 operations has 2 MB.
_MANIFEST = 64 * 2**20
LIMIT = 4 * 2**30


@public("relprop.load")
def load(path: str | PathLike[str], *, limit: int = LIMIT) -> Any:
    """Reads a result that `save` wrote into a folder.

    Nothing in it is executed or imported: composite, rules and a callable target come back as records. A folder from
    others is safe to load. If it holds a kind of result that an installed package declares, that package is imported. Sizes are checked before anything is read; links, pipes and devices in place of its files
    are refused; and the result can be shown, sliced and saved.

    Args:
        path: the folder.
        limit: the largest size of its tensors, in bytes. The manifest may have 64 MiB and 4 million values.

    Returns:
        The `Relevance`, `TextRelevance`, `GenerationRelevance` or result of your own kind that was saved, on the CPU.

    Raises:
        FormatError: there is no saved result, it is damaged or too large, or a newer version wrote it.
        InputError: `path` is not a path.
    """
    if not isinstance(path, (str, PathLike)) or not isinstance(os.fspath(path), str):
        raise InputError(f"load takes the path of a folder that R.save('folder/') wrote; got {type(path).__name__}.")
    shown = repr(os.fspath(path)[:400])
    try:
        place = atomic.whole(Path(path), MANIFEST)
        if not os.path.lexists(place):
            raise FormatError(f"there is no folder {shown}. R.save('folder/') makes one.")
        if not os.path.lexists(place / MANIFEST):
            raise FormatError(f"{shown} is not a saved result: it holds no {MANIFEST}. R.save('folder/') makes one.")
        with opened(place / MANIFEST, _MANIFEST) as (file, size):
            manifest = strict_json(exactly(file, size))
        version = _version(manifest)
        if version > FORMAT:
            raise FormatError(
                f"{shown} was written in format {version}, this version reads up to {FORMAT}: update relprop."
            )
        if not os.path.lexists(place / TENSORS):
            raise ValueError(f"it holds no {TENSORS}")
        _check_size(place / TENSORS, shown, limit)
        tensors, digest = read(place / TENSORS, limit)
        if digest != manifest.get("tensors_sha256"):
            raise ValueError(f"{TENSORS} is not the one that was written with this manifest")
        return _result(manifest, tensors)
    except FormatError:
        raise
    except RecursionError as error:
        raise FormatError(f"{shown} cannot be loaded: {MANIFEST} is nested too deeply.") from error
    except MemoryError as error:
        raise FormatError(f"{shown} cannot be loaded: there is not enough memory for it.") from error
    except (ValueError, OSError) as error:
        raise FormatError(f"{shown} cannot be loaded: {error}.") from error


def _check_size(path: Path, shown: str, limit: int) -> None:
    size = path.lstat().st_size
    if size > limit:
        raise FormatError(
            f"{shown} cannot be loaded: its tensors have {size:,} bytes, and {limit:,} are read. If you trust it, "
            f"relprop.load({shown}, limit={size}) reads them."
        )


def _version(manifest: Any) -> int:
    if not isinstance(manifest, dict) or manifest.get("format") != "relprop":
        raise ValueError(f"{MANIFEST} is not relprop's")
    version = manifest.get("format_version")
    if type(version) is not int or version < 1:
        raise ValueError("its format has no version")
    return version


def _result(manifest: dict[str, Any], tensors: dict[str, Tensor]) -> Result:
    encoded = manifest.get("content")
    if not isinstance(encoded, dict):
        raise ValueError("it has no content")
    content = {name: decode(data, tensors) for name, data in encoded.items()}
    if tensors:
        raise ValueError(f"{len(tensors)} of its tensors are not used")
    made: dict[str, Any] = {
        "composite": _composite(manifest.get("composite")),
        "rules": _rules(manifest.get("rules")),
        "model": _identity(manifest.get("model")),
        "unknown": _counts(content.get("unknown")),
    }
    made["notices"] = _notices(content.get("notices", []))  # folders of the first version have none
    kind = _kind(manifest.get("kind"))
    return kind.restored(content, made, lambda samples: _ledger(content.get("ledger"), samples))


def _kind(name: Any) -> type[Result]:
    """The class of a kind of result. Installed packages declare theirs as entry points."""
    if isinstance(name, str) and name not in KINDS:
        for declared in entry_points(group="relprop.results", name=name):
            declared.load()
    if not isinstance(name, str) or name not in KINDS:
        raise ValueError(
            f"its kind is {str(name)[:40]!r}, and no class of that kind is known. If it is one of your own, import the "
            "module that defines it first"
        )
    return KINDS[name]


def _notices(found: Any) -> list[str]:
    if not isinstance(found, list) or not all(type(notice) is str for notice in found):
        raise ValueError("notices are not texts")
    return found


def _composite(data: Any) -> RecordedComposite:
    if not isinstance(data, dict) or not holds(data, {"name": str, "table": str, "multiply_by_inputs": bool}):
        raise ValueError("its composite is not described")
    return RecordedComposite(data["name"], data["table"], data["multiply_by_inputs"])


def _identity(data: Any) -> Identity | None:
    if data is None:
        return None
    if not isinstance(data, dict) or not holds(data, {"name": str, "parameters": int}) or data["parameters"] < 0:
        raise ValueError("its model is not described")
    digest = data.get("weights_sha256")
    if not (digest is None or (isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest))):
        raise ValueError("the hash of its model's weights is not a hash")
    return Identity(data["name"], data["parameters"], digest)


def _rules(data: Any) -> list[tuple[Place, Rule | None]]:
    if not isinstance(data, list):
        raise ValueError("its rules are not a list")
    return [_recorded(entry) for entry in data]


def _recorded(entry: Any) -> tuple[Place, Rule | None]:
    if not isinstance(entry, dict) or not holds(entry, {"operation": str, "family": str, "module": str}):
        raise ValueError("one of its rules is not described")
    index, last, rule = entry.get("index"), entry.get("last"), entry.get("rule")
    merged = entry.get("merged", False)
    if (
        not (index is None or type(index) is int)
        or not (last is None or type(last) is bool)
        or type(merged) is not bool
        or not (rule is None or isinstance(rule, str))
    ):
        raise ValueError("one of its rules is not described")
    # A place holds the operation's function; a folder has only its name.
    operation: Any = entry["operation"]
    place = Place(entry["family"], operation, None, (entry["module"],), index, last, merged=merged)
    return place, None if rule is None else RecordedRule(rule)


def _counts(data: Any) -> dict[str, int]:
    if not isinstance(data, dict) or not all(isinstance(k, str) and type(v) is int for k, v in data.items()):
        raise ValueError("unknown operations are not counts under names")
    return data


def _ledger(data: Any, samples: int) -> Ledger:
    if not isinstance(data, list):
        raise ValueError("its ledger is not a list")
    for entry in data:
        if not isinstance(entry, dict) or not holds(entry, {"family": str, "name": str, "where": str}):
            raise ValueError("an entry of its ledger is not described")
        if not real(entry.get("absorbed")) or entry["absorbed"].shape != (samples,):
            raise ValueError("an entry of its ledger does not fit its samples")
    return Ledger([LedgerEntry(e["family"], e["name"], e["where"], e["absorbed"]) for e in data])
