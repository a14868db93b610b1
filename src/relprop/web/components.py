"""Gradio's fields where they do not decode what a visitor sent: they hand us the file, and our limits judge it."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from relprop.web.gradio_here import gradio


def picture_field(**given: Any) -> Any:
    """A field for a picture, whose value is the path of the file as it was uploaded. Gradio would decode it before our limits."""
    return _undecoded("Image", path_of)(type="filepath", **given)


def file_field(**given: Any) -> Any:
    """A field for one file, whose value is its path."""
    return _undecoded("File", path_of)(type="filepath", file_count="single", **given)


def files_field(**given: Any) -> Any:
    """A field for files, whose value is the list of their paths."""
    return _undecoded("File", paths_of)(type="filepath", **given)


@cache
def _undecoded(name: str, value: Callable[[Any], Any]) -> Any:
    """A class of fields that the browser shows as Gradio's, and whose value is made here."""
    base = getattr(gradio(), name)
    content = {"preprocess": lambda self, payload: value(payload), "is_template": True, "__module__": __name__}
    # As a class statement would, but Gradio's own metaclass also writes a file beside this module.
    return ABCMeta.__new__(type(base), f"Uploaded{name}", (base,), content)


def path_of(payload: Any) -> Path | None:
    """The path of an uploaded file."""
    path = getattr(payload, "path", None)
    return Path(path) if isinstance(path, str) else None


def paths_of(payload: Any) -> list[Path]:
    """The paths of uploaded files."""
    listed = getattr(payload, "root", payload)
    listed = listed if isinstance(listed, list) else [listed]
    return [path for path in map(path_of, listed) if path is not None]


def choices_of(labels: Any) -> list[tuple[str, str]]:
    """The classes as choices, by name and number. A field of choices takes the number 0 for none: they are texts."""
    return [(f"{label} ({n})", str(n)) for n, label in enumerate(labels or ())]
