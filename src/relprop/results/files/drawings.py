"""Writes a drawing that is no result of its own, such as that of an atlas; the suffix of the path chooses the format."""

from __future__ import annotations

import io
from os import PathLike
from pathlib import Path

from relprop.errors import InputError
from relprop.rendering.drawing import Drawing
from relprop.results.files import atomic


def save_drawing(drawing: Drawing, path: str | PathLike[str], what: str) -> None:
    """Writes a drawing as `.svg`, `.png` or `.pdf`, whole or not at all.

    Args:
        drawing: the drawing.
        path: the file.
        what: what it shows, for the error, as in "an atlas is".

    Raises:
        InputError: the suffix is none of these.
    """
    place = Path(path)
    suffix = place.suffix.lower()
    if suffix == ".svg":
        content = drawing.to_svg().encode()
    elif suffix == ".pdf":
        content = drawing.to_pdf()
    elif suffix == ".png":
        out = io.BytesIO()
        drawing.to_image(2.0).save(out, format="PNG")
        content = out.getvalue()
    else:
        raise InputError(f"{what} saved as .svg, .png or .pdf; got {str(path)!r}.")
    atomic.write(place, content)
