"""Comparison with what was looked at and found good: `RELPROP_UPDATE_GOLDEN=1 pytest` writes it anew, to be looked at."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from relprop.rendering.drawing import Drawing
from relprop.rendering.marks import Text

FOLDER = Path(__file__).parent / "golden"
UPDATE = bool(os.environ.get("RELPROP_UPDATE_GOLDEN"))


def same_picture(shown: Drawing | Image.Image, name: str) -> None:
    """Every pixel within two of 256 levels; without text, whose pixels differ with the version of the font's renderer."""
    if isinstance(shown, Drawing):
        shown = replace(shown, marks=tuple(m for m in shown.marks if not isinstance(m, Text))).to_image()
    path = FOLDER / f"{name}.png"
    if UPDATE:
        FOLDER.mkdir(exist_ok=True)
        shown.save(path, optimize=True)
    with Image.open(path) as kept:
        expected = np.asarray(kept.convert("RGB")).astype(int)
    found = np.asarray(shown.convert("RGB")).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 2


def same_text(shown: str, name: str) -> None:
    path = FOLDER / name
    if UPDATE:
        FOLDER.mkdir(exist_ok=True)
        path.write_text(shown, encoding="utf-8", newline="\n")
    assert shown == path.read_text(encoding="utf-8")
