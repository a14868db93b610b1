"""Two rows of names, or two pictures, with lines between pairs, as thick as their relevance."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from relprop.rendering.colours import hexadecimal, ink_on
from relprop.rendering.drawing import Drawing
from relprop.rendering.fonts import width
from relprop.rendering.marks import LINE, SIZE, Line, Mark, Picture, Rect, Text

TALL, GAP, BETWEEN = 24.0, 8.0, 130.0
SIDE, APART = 280.0, 120.0
"""The width of a picture, and the room between two."""
MOST_NAMES = 60
"""Rows with more names show those of the strongest pairs only."""
Place = tuple[float, float]


def draw(joint: Sequence[Sequence[float]], above: Sequence[str], below: Sequence[str], most: int = 40) -> Drawing:
    """Draws the strongest pairs.

    Args:
        joint: a value for each pair.
        above: the names in the upper row.
        below: the names in the lower row.
        most: how many lines.

    Returns:
        A drawing; hovering over a name shows its sum.
    """
    pairs = _strongest(joint, most)
    sums = [sum(row) for row in joint], [sum(row[j] for row in joint) for j in range(len(below))]
    widest = max((abs(value) for some in sums for value in some), default=0.0) or 1.0
    marks: list[Mark] = []
    middles: list[dict[int, Place]] = []
    room = 0.0
    boxes: list[Mark] = []
    for side, (names, values, y) in enumerate(((above, sums[0], 0.0), (below, sums[1], TALL + BETWEEN))):
        x, centres = 0.0, {}
        paired = {pair[side + 1] for pair in pairs}
        for n, (name, value) in enumerate(zip(names, values, strict=True)):
            if len(names) > MOST_NAMES and n not in paired:
                continue
            wide = max(width(name, SIZE) + 12, 18.0)
            boxes.append(Rect(x, y, wide, TALL, hexadecimal(value / widest), LINE, f"{name}: {value:+.4g}"))
            boxes.append(Text(x + wide / 2, y + 5, name, SIZE, ink_on(value / widest), "middle"))
            centres[n] = x + wide / 2, y if side else y + TALL
            x += wide + GAP
        room = max(room, x - GAP)
        middles.append(centres)
    marks += _lines(pairs, middles[0], middles[1])
    left_out = sum(max(0, len(names) - len(shown)) for names, shown in zip((above, below), middles, strict=True))
    said = f" {left_out} that are in no strong pair are left out." if left_out else ""
    return Drawing(room, 2 * TALL + BETWEEN, (*marks, *boxes), f"{len(above)} parts above, {len(below)} below.{said}")


def on_pictures(
    joint: Sequence[Sequence[float]],
    pictures: tuple[Image.Image, Image.Image],
    grids: tuple[tuple[int, int], tuple[int, int]],
    most: int = 40,
) -> Drawing:
    """Draws the strongest pairs of patches between two pictures.

    Args:
        joint: a value for each pair of patches, row by row.
        pictures: both pictures.
        grids: the rows and columns of patches of each.
        most: how many lines.

    Returns:
        A drawing; hovering over a patch shows its sum.
    """
    pairs = _strongest(joint, most)
    sums = [sum(row) for row in joint], [sum(row[j] for row in joint) for j in range(len(joint[0]))]
    marks: list[Mark] = []
    centres: list[dict[int, Place]] = []
    high = 0.0
    for side, (picture, (rows, columns)) in enumerate(zip(pictures, grids, strict=True)):
        left, tall = side * (SIDE + APART), SIDE * picture.height / picture.width
        marks.append(Picture(left, 0, SIDE, tall, picture, True, ""))
        wide, deep = SIDE / columns, tall / rows
        found = {}
        for n in range(rows * columns):
            x, y = left + n % columns * wide, n // columns * deep
            edge = LINE if any(n == pair[side + 1] for pair in pairs) else None
            marks.append(Rect(x, y, wide, deep, None, edge, f"({n // columns}, {n % columns}): {sums[side][n]:+.4g}"))
            found[n] = x + wide / 2, y + deep / 2
        centres.append(found)
        high = max(high, tall)
    marks += _lines(pairs, centres[0], centres[1])
    return Drawing(
        2 * SIDE + APART, high, tuple(marks), f"{len(joint)} patches on the left, {len(joint[0])} on the right."
    )


def _strongest(joint: Sequence[Sequence[float]], most: int) -> list[tuple[float, int, int]]:
    pairs = [(value, i, j) for i, row in enumerate(joint) for j, value in enumerate(row)]
    return sorted(pairs, key=lambda one: -abs(one[0]))[:most]


def _lines(pairs: Sequence[tuple[float, int, int]], one: dict[int, Place], other: dict[int, Place]) -> list[Mark]:
    largest = max((abs(value) for value, _, _ in pairs), default=0.0) or 1.0
    marks: list[Mark] = []
    for value, i, j in reversed(pairs):
        part = abs(value) / largest
        if part > 0.01:
            colour = hexadecimal((0.2 + 0.8 * part) * (1 if value > 0 else -1))
            marks.append(Line((one[i], other[j]), colour, 0.5 + 5.5 * part))
    return marks
