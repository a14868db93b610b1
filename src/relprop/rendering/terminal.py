"""Relevance in a terminal: pictures as half blocks in 24-bit colour, text on a coloured background, bars.

Without colour (NO_COLOR, or a terminal without it), signs and sizes are written out instead.
"""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Sequence
from typing import TextIO

import numpy as np
from PIL import Image

from relprop.rendering import colours
from relprop.rendering.colours import Floats
from relprop.rendering.image import Heatmap
from relprop.rendering.matrix import TokenMatrix, label
from relprop.rendering.scale import number
from relprop.rendering.text import TokenMap
from relprop.rendering.visible import visible

_RESET = "\x1b[0m"
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def has_colour(stream: TextIO | None = None) -> bool:
    """Whether to write colours: to a terminal, unless NO_COLOR is set (see no-color.org), or if FORCE_COLOR is."""
    stream = stream or sys.stdout
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")


def picture(image: Image.Image, columns: int = 64) -> str:
    """A picture as half blocks: two pixels in each cell, one above the other."""
    rows = max(1, round(columns * image.height / image.width / 2)) * 2
    method = Image.Resampling.BOX if columns < image.width else Image.Resampling.NEAREST
    pixels = np.asarray(image.convert("RGB").resize((columns, rows), method))
    lines = []
    for top, bottom in zip(pixels[::2], pixels[1::2], strict=True):
        cells = [f"{_on(b)}{_ink(t)}▀" for t, b in zip(top, bottom, strict=True)]
        lines.append("".join(cells) + _RESET)
    return "\n".join(lines)


def heatmap(shown: Heatmap, columns: int = 64, *, colour: bool = True) -> str:
    """A map. Without colour, a coarse table of signs and tenths of the largest mean, blank where these round to 0."""
    legend = f"{-shown.limit:.3g} blue, 0 white, +{shown.limit:.3g} red"
    if colour:
        text = picture(shown.image(), columns)
    else:
        means, largest = _coarse(shown, min(24, columns // 3))
        text = "\n".join(map(_digits, means))
        legend = f"means of blocks in tenths of {number(largest * shown.limit)}: + for, - against, ? not finite"
    return "\n".join(filter(None, [text, legend, shown.note]))


def tokens(shown: TokenMap, *, colour: bool = True) -> str:
    """A text. Without colour, the relevance follows each token that has some."""
    parts = []
    for token, scaled in zip(shown.tokens, shown.scaled, strict=True):
        text = visible(token.text, lines=True)
        # Colour and numbers go before a line break: some terminals would colour the rest of the line.
        body = text.rstrip("\n")
        after = text[len(body) :]
        if not colour:
            said = "" if abs(scaled) < 0.05 else f"({token.value:+.2g})"
            parts.append(f"{body}{said}{after}")
            continue
        ground = colours.diverging(np.array([scaled]))[0]
        ink = (255, 255, 255) if colours.ink_on(float(scaled)) == "#ffffff" else (20, 20, 20)
        parts.append(f"{_on(ground)}{_ink(ink)}{body}{_RESET}{after}")
    legend = f"scale ±{number(shown.scale.limit)}"
    return "\n".join(filter(None, ["".join(parts), legend, shown.note]))


def matrix(shown: TokenMatrix, columns: int = 78, *, colour: bool = True) -> str:
    """A matrix. The names of its columns run downwards. Columns that do not fit the terminal go below."""
    names = [_narrow(label(name), 14) for name in shown.rows]
    left, step = max(map(_cells, names)), 2 if colour else 3
    room = max(4, (columns - left - 1) // step)
    across = -(-len(shown.columns) // -(-len(shown.columns) // room))  # blocks of equal width
    blocks = []
    for start in range(0, len(shown.columns), across):
        part = slice(start, start + across)
        lines = [_downwards(shown.columns[part], left, step)]
        for name, scaled, read in zip(names, shown.scaled[:, part], shown.read[:, part], strict=True):
            cells = [
                ("·" if not seen else _ground(value, shown) if colour else _sign(value)).ljust(step)
                for value, seen in zip(scaled, read, strict=True)
            ]
            lines.append(f"{' ' * (left - _cells(name))}{name} {''.join(cells)}".rstrip())
        blocks.append("\n".join(lines))
    limit = number(shown.scale.limit)
    legend = f"scale ±{limit}" if colour else f"tenths of {limit}: + for, - against, blank near 0, ? not finite"
    later = "" if shown.read.all() else "; · not read yet"
    return "\n".join(filter(None, ["\n\n".join(blocks), legend + later, shown.note]))


def bars(entries: Sequence[tuple[str, float]], columns: int = 30, *, colour: bool = True) -> str:
    """A line for each name, with a bar and a number. Negative bars are left of the axis."""
    names = [visible(name, longest=36) for name, _ in entries]
    room = max((len(name) for name in names), default=0)
    largest = max((abs(v) for _, v in entries if np.isfinite(v)), default=0.0) or 1.0
    lines = []
    for name, (_, value) in zip(names, entries, strict=True):
        if not np.isfinite(value):
            lines.append(f"{name:>{room}} {'':{columns}}│ not finite")
            continue
        size = columns * abs(value) / largest
        whole, part = int(size), round(8 * (size - int(size)))
        bar = "█" * whole + (_EIGHTHS[part] if part else "")
        if value < 0:
            bar = "█" * round(size)
        painted = f"{_ink(colours.diverging(np.array([np.sign(value) * 0.75]))[0])}{bar}{_RESET}" if colour else bar
        blank = " " * (columns - len(bar))
        drawn = f"{blank}{painted}│" if value < 0 else f"{' ' * columns}│{painted}"
        lines.append(f"{name:>{room}} {drawn} {number(value)}")
    return "\n".join(lines)


def _ground(value: float, shown: TokenMatrix) -> str:
    return f"{_on(colours.diverging(np.array([value]), shown.palette)[0])}  {_RESET}"


def _sign(value: float) -> str:
    return "?" if value != value else "" if round(10 * abs(value)) == 0 else _digit(value)


def _downwards(names: Sequence[str], left: int, step: int, longest: int = 10) -> str:
    """Names from top to bottom, with their last letters in one line. A letter may take two columns of the terminal."""
    letters = [[letter for letter in _narrow(label(name), longest) if _cells(letter)] for name in names]
    high = max(map(len, letters))
    stood = [[" "] * (high - len(word)) + word for word in letters]
    lines = [
        " " * (left + 1) + "".join(word[line] + " " * (step - _cells(word[line])) for word in stood)
        for line in range(high)
    ]
    return "\n".join(line.rstrip() for line in lines)


def _cells(text: str) -> int:
    """The number of terminal columns that a text takes."""
    return sum(
        0 if unicodedata.combining(c) or unicodedata.category(c) in ("Mn", "Me", "Cf")
        else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )  # fmt: skip


def _narrow(text: str, most: int) -> str:
    """The text, cut to at most `most` columns of a terminal."""
    if _cells(text) <= most:
        return text
    kept = ""
    for letter in text:
        if _cells(kept + letter) >= most:
            break
        kept += letter
    return kept + "…"


def _coarse(shown: Heatmap, columns: int) -> tuple[Floats, float]:
    """Means of blocks as fractions of the largest mean, and that mean."""
    height, wide = shown.values.shape
    columns = max(1, min(columns, wide))
    rows = max(1, min(height, round(columns * height / wide)))
    cells = [
        [float(block.mean()) for block in np.array_split(line, columns, axis=1)]
        for line in np.array_split(shown.scaled, rows, axis=0)
    ]
    means = np.array(cells)
    largest = float(np.nanmax(np.abs(means), initial=0.0)) if np.isfinite(means).any() else 0.0
    return (means / largest if largest > 0 else means), largest


def _digits(line: Floats) -> str:
    return " ".join(f"{_sign(v):2}" for v in line).rstrip()


def _digit(value: float) -> str:
    tenth = min(round(10 * abs(value)), 9)
    return f"{'+' if value > 0 else '-'}{tenth}"


def _on(rgb: Sequence[int] | np.ndarray) -> str:
    return f"\x1b[48;2;{rgb[0]};{rgb[1]};{rgb[2]}m"


def _ink(rgb: Sequence[int] | np.ndarray) -> str:
    return f"\x1b[38;2;{rgb[0]};{rgb[1]};{rgb[2]}m"
