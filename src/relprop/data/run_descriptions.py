"""run.json, the description of a run: what it is, and whether this version reads it."""

from __future__ import annotations

import json
from typing import Any

from relprop.data.run_places import RunPlace
from relprop.errors import FormatError
from relprop.rendering.visible import quoted

RUN = "run.json"
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
    except ValueError as error:
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
    return found


def as_text(content: Any) -> bytes:
    """JSON as it is written."""
    return (json.dumps(content, indent=1, ensure_ascii=True) + "\n").encode()
