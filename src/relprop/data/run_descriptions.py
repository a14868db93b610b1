"""run.json, the description of a run: what it is, and whether this version reads it."""

from __future__ import annotations

import json
import re
from typing import Any

from relprop.data.run_places import RunPlace
from relprop.errors import FormatError
from relprop.rendering.visible import quoted

RUN = "run.json"
NUMBERS = ("target", "score", "residual", "status")
"""The arrays that every run has."""
_UNITS = 10**8
"""The most units: each is a file of its own."""
_NAME = re.compile(r"[A-Za-z0-9_.-]*[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_TYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
VERSION, FIRST_VERSION = 2, 1
"""The newest version of the format that is read, and that of a run with one target for each sample that is no text."""
GROWS = ("lengths", "keys_sha256")
"""What changes in the description of a run whose source grows."""


def description(place: RunPlace) -> dict[str, Any]:
    """The description of a run.

    Raises:
        FormatError: there is none, it is damaged, or a newer version wrote it.
    """
    folder, path = place.folder, place.full(RUN)
    try:
        found = json.loads(place.read(RUN))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FormatError(f"{quoted(folder)} is not a run: it has no {RUN}.") from error
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise FormatError(f"{quoted(path)} is damaged: {error}.") from error
    if not isinstance(found, dict) or found.get("format") != "relprop run":
        raise FormatError(f"{quoted(path)} does not describe a run.")
    if found.get("version") not in range(FIRST_VERSION, VERSION + 1):
        raise FormatError(
            f"{quoted(folder)} has version {found.get('version')!r} of the format, and this relprop reads versions up to "
            f"{VERSION}: install a newer one."
        )
    needed = {"fingerprint", "lengths", "unit", "arrays", "number_format", "keys_sha256"}
    if missing := sorted(needed - found.keys()):
        raise FormatError(f"{quoted(path)} is damaged: it has no {missing[0]}.")
    if wrong := _wrong(found):
        raise FormatError(f"{quoted(path)} is damaged: {wrong}.")
    return found


def _wrong(about: dict[str, Any]) -> str | None:
    """What of a description cannot be; None if all can."""
    unit, lengths = about["unit"], about["lengths"]
    if not _counts([unit]) or unit < 1:
        return f"its unit is {unit!r}"
    if not isinstance(lengths, list) or not _counts(lengths) or sum(lengths) // unit > _UNITS:
        return f"its lengths are {str(lengths)[:80]}"
    arrays = about["arrays"]
    if not isinstance(arrays, list):
        return "its arrays are no list"
    names = [one.get("name") if isinstance(one, dict) else None for one in arrays]
    for one, name in zip(arrays, names, strict=True):
        if not isinstance(name, str) or not _NAME.fullmatch(name) or names.count(name) > 1 or not _is_array(one):
            return f"one of its arrays is {str(one)[:80]}"
    if lost := [name for name in NUMBERS if name not in names]:
        return f"it has no array {lost[0]!r}"
    if not isinstance(about["fingerprint"], dict):
        return "its fingerprint is no object"
    return None


def _is_array(one: dict[str, Any]) -> bool:
    """Whether it describes an array of numbers, with a name for each axis."""
    shape, axes = one.get("shape"), one.get("axes")
    return (
        isinstance(shape, list) and _counts(shape) and isinstance(axes, list) and len(axes) == len(shape)
        and all(isinstance(axis, str) for axis in axes) and one.get("dtype") in _TYPES
    )  # fmt: skip


def _counts(values: list[Any]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values)


def wrong_record(record: Any, rows: list[int] | None) -> str | None:
    """What of a unit's record cannot be; None if all can.

    Args:
        record: what its file holds.
        rows: the rows of that unit; None if they are not known.
    """
    if not isinstance(record, dict) or not {"rows", "keys", "files", "quarantined"} <= record.keys():
        return "it is not a record of a unit"
    own, keys, files, put_aside = (record[name] for name in ("rows", "keys", "files", "quarantined"))
    if not isinstance(own, list) or len(own) != 2 or not _counts(own):
        return f"its rows are {str(own)[:80]}"
    if rows is not None and own != rows:
        return f"it has the rows {own}, and its unit {rows}: it is of another run"
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        return "its keys are no list of texts"
    if len(keys) != own[1] - own[0] or len(set(keys)) != len(keys):
        return f"it has {len(set(keys))} different keys for {own[1] - own[0]} rows"
    if not isinstance(put_aside, dict) or not all(isinstance(why, str) for why in put_aside.values()):
        return "its quarantined samples are no reasons by key"
    if not isinstance(files, dict) or not all(
        isinstance(said, dict) and _counts([said.get("bytes")]) for said in files.values()
    ):
        return "its files are no sizes by name"
    if outside := [name for name in files if ".." in name.split("/") or name.startswith("/")]:
        return f"{outside[0]!r} is not a path inside the run"
    return None


def as_text(content: Any) -> bytes:
    """JSON as it is written."""
    return (json.dumps(content, indent=1, ensure_ascii=True) + "\n").encode()
