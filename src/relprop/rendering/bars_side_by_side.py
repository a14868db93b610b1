"""A figure of tables side by side: a line for each feature, a column of bars for each composite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from relprop.rendering import colours
from relprop.rendering.account import percent
from relprop.rendering.colours import RED_BLUE, Floats, Palette
from relprop.rendering.drawing import Drawing, add_text
from relprop.rendering.fonts import fit, width
from relprop.rendering.marks import FAINT, INK, LINE, SIZE, SMALL, Line, Mark, Rect, Text
from relprop.rendering.scale import number
from relprop.rendering.view import View

_ROW, _BAR, _GAP = 20, 13, 14.0
# The room of a number at the end of its bar, and the least width of a column.
_NUMBER, _LEAST = 44.0, 96.0
# The features that are drawn; one more line is the sum of the others.
_MOST = 15


def bars_side_by_side(
    cells: Mapping[tuple[str, str], View],
    columns: Sequence[str],
    *,
    wide: float = 720,
    shared: bool = False,
    palette: Palette | str = RED_BLUE,
) -> Drawing:
    """Draws the relevance of the same features by several composites, in the same order in all columns.

    Args:
        cells: the view of each row and column; their entries are the features.
        columns: the names of the columns, in their order.
        wide: the width of the figure in pixels.
        shared: whether all columns have one scale.
        palette: the colours, or their name.
    """
    rows = list(dict.fromkeys(row for row, _ in cells))
    chosen = {row: _chosen([cells[row, name].entries for name in columns]) for row in rows}
    left = min(max(width(label, SIZE) for block in chosen.values() for label in block.labels), 200.0, wide / 3) + 10
    side = max((wide - left - (len(columns) - 1) * _GAP) / len(columns), _LEAST)
    starts = [left + place * (side + _GAP) for place in range(len(columns))]
    every = _hull(block.ends(column) for block in chosen.values() for column in block.values) if shared else None
    marks: list[Mark] = []
    top = max(add_text(marks, name, x, 0.0, side) for name, x in zip(columns, starts, strict=True)) + 4
    for row in rows:
        block = chosen[row]
        score = cells[row, columns[0]].rows[0].score
        top = add_text(marks, f"{row}, score {number(score)}", 0.0, top, wide) + 2
        for place, label in enumerate(block.labels):
            colour = INK if place < block.features else FAINT
            marks.append(Text(left - 8, top + place * _ROW + 2, fit(label, left - 8, SIZE), SIZE, colour, "end"))
        for name, x, column in zip(columns, starts, block.values, strict=True):
            _bars(marks, column, block, x, top, side, every or block.ends(column), palette)
            if cells[row, name].kept:
                line = cells[row, name].rows[0]
                said = f"{percent(line.relevance / line.score)} arrived"
                marks.append(Text(x, top + len(block.labels) * _ROW + 4, said, SMALL, FAINT))
        top += len(block.labels) * _ROW + 26
    said = "All bars have one scale." if shared else "Each column of bars has its own scale."
    top = add_text(marks, said, 0.0, top - 6, wide, size=SMALL, colour=FAINT)
    about = f"Bars of {len(rows)} targets ({', '.join(rows)}) by {len(columns)} composites ({', '.join(columns)})."
    return Drawing(starts[-1] + side, top, tuple(marks), about)


@dataclass(frozen=True, eq=False)
class _FeatureBlock:
    """The features of one target: their names, relevance (columns by lines), and how many lines are single features."""

    labels: list[str]
    values: Floats
    features: int

    def drawn(self, column: Floats) -> int:
        """How many lines get a bar. The sum of the others gets none if it would leave no room for the features."""
        sizes = np.abs(np.nan_to_num(column, posinf=0.0, neginf=0.0))
        fits = sizes[self.features :].max(initial=0.0) <= 2 * sizes[: self.features].max(initial=0.0)
        return len(column) if fits else self.features

    def ends(self, column: Floats) -> tuple[float, float]:
        """The smallest and the largest value that gets a bar, and 0."""
        some = column[: self.drawn(column)]
        finite = some[np.isfinite(some)]
        return float(finite.min(initial=0.0)), float(finite.max(initial=0.0))


def _chosen(columns: Sequence[Sequence[tuple[str, float]]]) -> _FeatureBlock:
    """The strongest features of any column, the strongest first."""
    values = np.array([[value for _, value in entries] for entries in columns], dtype=float)
    sizes = np.abs(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0))
    relative = sizes / np.maximum(sizes.max(1, keepdims=True), 1e-300)
    order = np.argsort(-relative.max(0), kind="stable")
    count = len(order) if len(order) <= _MOST + 1 else _MOST
    labels = [columns[0][i][0] for i in order[:count]]
    kept = values[:, order[:count]]
    if count < len(order):
        labels.append(f"(sum of {len(order) - count} others)")
        kept = np.concatenate([kept, np.nansum(values[:, order[count:]], 1, keepdims=True)], 1)
    return _FeatureBlock(labels, kept, count)


def _hull(ends: Iterable[tuple[float, float]]) -> tuple[float, float]:
    every = list(ends)
    return min(low for low, _ in every), max(high for _, high in every)


def _bars(
    marks: list[Mark], values: Floats, block: _FeatureBlock, x: float, top: float, side: float, ends: tuple[float, float],
    palette: Palette | str,
) -> None:  # fmt: skip
    """The bars of one column, with their numbers at their ends."""
    low, high = ends
    before, behind = (_NUMBER if low < 0 else 0.0), (_NUMBER if high > 0 else 0.0)
    room = max(side - before - behind, 8.0) / ((high - low) or 1.0)
    zero = x + before + room * -low
    for place, (label, value) in enumerate(zip(block.labels, values.tolist(), strict=True)):
        y = top + place * _ROW
        if not np.isfinite(value) or place >= block.drawn(values):
            said = f"{number(value)}, no bar" if np.isfinite(value) else "not finite"
            marks.append(Text(zero + 4, y + 3, said, SMALL, FAINT))
            continue
        long = room * abs(value)
        start = zero if value >= 0 else zero - long
        ink = colours.hexadecimal(0.75 * float(np.sign(value)), palette)
        single = place < block.features
        fill = ink if single else colours.hexadecimal(0.15 * float(np.sign(value)), palette)
        marks.append(
            Rect(start, y + 2, max(long, 0.5), _BAR, fill, None if single else ink, f"{label}: {number(value)}")
        )
        if value >= 0:
            marks.append(Text(zero + long + 4, y + 3, number(value), SMALL, FAINT))
        else:
            marks.append(Text(zero - long - 4, y + 3, number(value), SMALL, FAINT, "end"))
    marks.append(Line(((zero, top), (zero, top + len(block.labels) * _ROW)), LINE))
