"""A figure of maps side by side: a row for each target, a column for each composite, the input once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from relprop.rendering.account import percent
from relprop.rendering.drawing import Drawing, add_text
from relprop.rendering.image import Heatmap
from relprop.rendering.legend import colour_bar
from relprop.rendering.marks import FAINT, SMALL, Mark
from relprop.rendering.panels import Panel, picture_of_panel
from relprop.rendering.scale import number
from relprop.rendering.view import View

_GAP = 10.0
# The least width of a map.
_LEAST = 48.0


def side_by_side(
    cells: Mapping[tuple[str, str], View], columns: Sequence[str], *, wide: float = 720, shared: bool = False
) -> Drawing:
    """Draws maps of one input, all of one size, as wide as asked.

    Args:
        cells: the view of each row and column.
        columns: the names of the columns, in their order.
        wide: the width of the figure in pixels.
        shared: whether all maps have one scale, and the figure one colour bar.
    """
    rows = list(dict.fromkeys(row for row, _ in cells))
    lead = next((p for view in cells.values() for p in view.panels if p.map is None), None)
    count = len(columns) + (lead is not None)
    side = max((wide - (count - 1) * _GAP) / count, _LEAST)
    left = [place * (side + _GAP) for place in range(count)]
    marks: list[Mark] = []
    heads = ["input", *columns] if lead is not None else list(columns)
    top = max(add_text(marks, name, x, 0.0, side) for name, x in zip(heads, left, strict=True)) + 4
    notes = {view.data.note for view in cells.values() if isinstance(view.data, Heatmap)}
    for place, row in enumerate(rows):
        top = add_text(marks, _headline(cells, row), 0.0, top, wide) + 4
        ends = []
        if lead is not None and place == 0:
            ends.append(_put(marks, _sized(lead, side), 0.0, top))
        for name, x in zip(columns, left[-len(columns) :], strict=True):
            drawn = _cell(cells[row, name], side, bar=not shared, noted=len(notes) > 1)
            ends.append(_put(marks, drawn, x, top))
        top = max(ends) + 8
    first = next(view.data for view in cells.values())
    if shared and isinstance(first, Heatmap):
        top = _put(marks, colour_bar(min(320.0, wide), first.scale, first.palette), 0.0, top) + 4
    if len(notes) == 1 and (note := notes.pop()):
        top = add_text(marks, f"Each map: {note}.", 0.0, top, wide, size=SMALL, colour=FAINT)
    about = f"Heat maps of {len(rows)} targets ({', '.join(rows)}) by {len(columns)} composites ({', '.join(columns)})."
    return Drawing(left[-1] + side, top, tuple(marks), about)


def _headline(cells: Mapping[tuple[str, str], View], row: str) -> str:
    view = next(view for (name, _), view in cells.items() if name == row)
    return f"{row}, score {number(view.rows[0].score)}"


def _cell(view: View, side: float, *, bar: bool, noted: bool) -> Drawing:
    """A map, its colour bar, and how much of the score arrived."""
    alone = next(panel for panel in reversed(view.panels) if panel.map is not None)
    drawn = _sized(alone, side)
    marks = list(drawn.marks)
    top = drawn.height + 4
    heatmap = alone.map
    assert heatmap is not None
    if bar:
        top = _put(marks, colour_bar(side, heatmap.scale, heatmap.palette), 0.0, top) + 2
    (score,) = view.rows
    said = [f"{percent(score.relevance / score.score)} arrived"] if view.kept else []
    said += [heatmap.note] if noted and heatmap.note else []
    for line in said:
        top = add_text(marks, line, 0.0, top, side, size=SMALL, colour=FAINT)
    return Drawing(side, top, tuple(marks))


def _sized(shown: Panel, side: float) -> Drawing:
    """The picture of a panel, exactly as wide as asked."""
    image = shown.image if not isinstance(shown.image, Heatmap) else None
    wide, high = image.size if image is not None else shown.image.values.shape[::-1]  # type: ignore[union-attr]
    return picture_of_panel(shown, height=(side - 2) * high / wide, wide=side - 2)


def _put(marks: list[Mark], drawn: Drawing, x: float, y: float) -> float:
    """Adds a drawing, and returns where it ends."""
    marks += drawn.at(x, y)
    return y + drawn.height
