"""Files of an answer, made when they are asked for. Nothing stays on the server's disk."""

from __future__ import annotations

import base64
import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relprop.errors import InputError
from relprop.results.protocol import Result

FORMATS = {
    "PNG": ("png", "image/png"),
    "SVG": ("svg", "image/svg+xml"),
    "PDF": ("pdf", "application/pdf"),
    "HTML": ("html", "text/html"),
    "JSON": ("json", "application/json"),
    "CSV": ("csv", "text/csv"),
    "Folder": ("zip", "application/zip"),
}
"""The suffix and the media type of each format."""
OF_PICTURES = ("PNG", "SVG", "PDF", "HTML", "JSON", "Folder")
OF_NUMBERS = ("PNG", "SVG", "PDF", "HTML", "JSON", "CSV", "Folder")


def made(result: Result, kind: str, stem: str, options: dict[str, Any]) -> dict[str, str]:
    """A file as the browser takes it: its name, its media type, and its content in base64.

    Args:
        result: what is written.
        kind: a key of `FORMATS`; a folder is a `.zip` of it.
        stem: the start of its name, which is ours.
        options: how it is drawn.

    Raises:
        InputError: there is no such format, or the result does not fit it.
    """
    if kind not in FORMATS:
        raise InputError(f"there is no format {kind!r}; there are: {', '.join(FORMATS)}.")
    suffix, media = FORMATS[kind]
    with tempfile.TemporaryDirectory(prefix="relprop-web-") as folder:
        path = Path(folder) / "result"
        if kind == "Folder":
            result.save(path)
            content = _zipped(path, stem)
        else:
            path = path.with_suffix(f".{suffix}")
            result.save(path, **({} if kind == "JSON" else {"scale": 2.0, **options} if kind == "PNG" else options))
            content = path.read_bytes()
    return {"name": f"{stem}.{suffix}", "type": media, "data": base64.b64encode(content).decode()}


def written(write: Callable[[Path], object], kind: str, stem: str) -> dict[str, str]:
    """A file that a function writes, as the browser takes it."""
    suffix, media = FORMATS[kind]
    with tempfile.TemporaryDirectory(prefix="relprop-web-") as folder:
        path = Path(folder) / f"result.{suffix}"
        write(path)
        content = path.read_bytes()
    return {"name": f"{stem}.{suffix}", "type": media, "data": base64.b64encode(content).decode()}


def _zipped(folder: Path, stem: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for each in sorted(folder.rglob("*")):
            if each.is_file():
                archive.write(each, f"{stem}/{each.relative_to(folder).as_posix()}")
    return buffer.getvalue()
