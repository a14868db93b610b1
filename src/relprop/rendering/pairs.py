"""Two rows of names with lines between pairs, as thick as their relevance."""

from __future__ import annotations

from collections.abc import Sequence

from relprop.rendering.colours import hexadecimal, ink_on
from relprop.rendering.drawing import Drawing
from relprop.rendering.fonts import width
from relprop.rendering.marks import LINE, SIZE, Line, Mark, Rect, Text

TALL, GAP, BETWEEN = 24.0, 8.0, 130.0


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
    pairs = [(value, i, j) for i, row in enumerate(joint) for j, value in enumerate(row)]
    pairs = sorted(pairs, key=lambda one: -abs(one[0]))[:most]
    largest = max((abs(value) for value, _, _ in pairs), default=0.0) or 1.0
    sums = [sum(row) for row in joint], [sum(row[j] for row in joint) for j in range(len(below))]
    widest = max((abs(value) for some in sums for value in some), default=0.0) or 1.0
    marks: list[Mark] = []
    middles: list[list[float]] = []
    room = 0.0
    boxes: list[Mark] = []
    for names, values, y in ((above, sums[0], 0.0), (below, sums[1], TALL + BETWEEN)):
        x, centres = 0.0, []
        for name, value in zip(names, values, strict=True):
            wide = max(width(name, SIZE) + 12, 18.0)
            boxes.append(Rect(x, y, wide, TALL, hexadecimal(value / widest), LINE, f"{name}: {value:+.4g}"))
            boxes.append(Text(x + wide / 2, y + 5, name, SIZE, ink_on(value / widest), "middle"))
            centres.append(x + wide / 2)
            x += wide + GAP
        room = max(room, x - GAP)
        middles.append(centres)
    for value, i, j in reversed(pairs):
        part = abs(value) / largest
        if part > 0.01:
            colour = hexadecimal((0.2 + 0.8 * part) * (1 if value > 0 else -1))
            marks.append(Line(((middles[0][i], TALL), (middles[1][j], TALL + BETWEEN)), colour, 0.5 + 5.5 * part))
    return Drawing(room, 2 * TALL + BETWEEN, (*marks, *boxes), f"{len(above)} parts above, {len(below)} below.")
