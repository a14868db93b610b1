"""The maps of the gallery as a page of the documentation: each picture, what is seen on it, and the code that made it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parent.parent
MARK = "<!-- gallery -->"
FOLDER = "gallery"
"""Where the pictures lie, beside the page."""


def page(folder: Path, names: Sequence[str] = ()) -> str:
    """Draws maps into a folder, and returns their sections. Maps whose packages are missing are named."""
    sys.path.insert(0, str(ROOT))
    from gallery.__main__ import drawn, named
    from gallery.code import code

    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for chapter, group in groupby(
        drawn(folder, named(names)), key=lambda pair: pair[0].chapter
    ):
        parts.append(f"## {chapter}")
        for shown, found in group:
            if isinstance(found, str):
                parts.append(f"Left out: {shown.title} ({found}).")
            else:
                parts += [
                    f"### {shown.title}",
                    shown.text,
                    _picture(shown.name, f"{shown.title}. {found.description}"),
                    _folded(code(shown)),
                ]
    return "\n\n".join(parts)


def _picture(name: str, about: str) -> str:
    """A picture that leads to itself, as wide as the page; on a phone it can be moved."""
    file = f"{FOLDER}/{name}.png"
    shown = f'<img src="{file}" alt="{escape(about)}" loading="lazy">'
    return _raw(f'<div class="map"><a href="{file}">{shown}</a></div>')


def _folded(text: str) -> str:
    opening, closing = (
        _raw("<details><summary>The code</summary>"),
        _raw("</details>"),
    )
    return f"{opening}\n\n````python\n{text}````\n\n{closing}"


def _raw(text: str) -> str:
    return f"```{{raw}} html\n{text}\n```"
