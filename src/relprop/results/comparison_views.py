"""The drawing of a comparison: a table of maps under their targets and composites, or drawings one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from relprop.rendering.account import percent
from relprop.rendering.bars_side_by_side import bars_side_by_side
from relprop.rendering.drawing import Drawing, column, titled
from relprop.rendering.image import Heatmap
from relprop.rendering.legend import colour_bar
from relprop.rendering.marks import SIZE
from relprop.rendering.scale import Scale, number
from relprop.rendering.side_by_side import side_by_side
from relprop.rendering.text import TokenMap
from relprop.rendering.view import Options, View
from relprop.results.relevance import Relevance

Cells = dict[tuple[str, str], View]


class _Compared(Protocol):
    results: list[list[Relevance]]
    columns: list[str]

    def __len__(self) -> int: ...


def views(result: _Compared, options: Options) -> list[View]:
    """One view for each sample, of at most `options.most`."""
    return [_view(result, sample, options) for sample in range(min(len(result), options.most))]


def _view(result: _Compared, sample: int, options: Options) -> View:
    cells = _cells(result, sample, options)
    maps = [view.data for view in cells.values() if isinstance(view.data, Heatmap)]
    if options.shared and options.limit is None and len(maps) == len(cells):
        # A second round, on the scale of all maps of the first.
        values = [each.values for each in maps]
        percentile = options.percentile
        scale = Scale.usual(*values) if percentile is None else Scale.of(*values, percentile=percentile)
        cells = _cells(result, sample, replace(options, limit=scale, percentile=None))
    several = f"sample {sample}: " if len(result) > 1 else ""
    return view_of(cells, result.columns, options, sample, several)


def view_of(cells: Cells, columns: Sequence[str], options: Options, sample: int = 0, several: str = "") -> View:
    """The views of each row and column as one view.

    Args:
        cells: the views.
        columns: the names of the columns, in their order.
        options: how they are drawn.
        sample: the number of the sample.
        several: the same in words, if there are several samples.
    """
    first = next(iter(cells.values()))
    rows = [replace(row, explained=f"{row.explained} by {key[1]}") for key, view in cells.items() for row in view.rows]
    draw = partial(_HOW.get(first.kind, _below) if not first.panels else _pictures, cells, columns, options)
    title = f"{several}{len(columns)} composites compared"
    return View(first.kind, sample, title, (), draw, first.entries, said=first.said, rows=rows, cells=cells)


def _cells(result: _Compared, sample: int, options: Options) -> Cells:
    """The view of each target and composite. Of several inputs, the first is drawn."""
    found: Cells = {}
    for line in result.results:
        alone = [each[sample] for each in line]
        name = free_name(alone[0].subject(0), found)
        for place, each in zip(result.columns, alone, strict=True):
            found[name, place] = each.views(replace(options, shared=False))[0]
    return found


def free_name(name: str, cells: Cells) -> str:
    """The name of a row. The same target twice is two rows."""
    while any(name == row for row, _ in cells):
        name += "'"
    return name


def _pictures(cells: Cells, columns: Sequence[str], options: Options) -> Drawing:
    return side_by_side(cells, columns, wide=options.room, shared=options.shared)


def _tables(cells: Cells, columns: Sequence[str], options: Options) -> Drawing:
    return bars_side_by_side(cells, columns, wide=options.room, shared=options.shared, palette=options.palette)


def _texts(cells: Cells, columns: Sequence[str], options: Options) -> Drawing:
    """The same text for each composite, one below the other, so that its words stand at the same place."""
    parts = []
    for row in dict.fromkeys(row for row, _ in cells):
        shown = []
        for name in columns:
            view = cells[row, name]
            assert isinstance(view.data, TokenMap)
            arrived = f", {percent(view.rows[0].relevance / view.rows[0].score)} arrived" if view.account else ""
            drawn = view.data.drawing(options.room, bar=not options.shared)
            shown.append(titled(drawn, f"{name}{arrived}", size=SIZE))
        headed = f"{row}, score {number(cells[row, columns[0]].rows[0].score)}"
        parts.append(titled(column(shown, 12), headed))
    if options.shared:
        first = next(view.data for view in cells.values())
        assert isinstance(first, TokenMap)
        parts.append(colour_bar(min(280, options.room), first.scale, first.palette))
    return column(parts, 22)


def _below(cells: Cells, columns: Sequence[str], options: Options) -> Drawing:
    shown = [titled(view.draw(), f"{row}: {name}", lines=view.lines) for (row, name), view in cells.items()]
    return column(shown, 16)


_HOW = {"table": _tables, "text": _texts}
"""How what is not a picture is drawn side by side, by the kind of the views."""
