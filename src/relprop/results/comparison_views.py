"""The drawing of a comparison: a table of maps under their targets and composites, or drawings one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from relprop.rendering.drawing import Drawing, column, titled
from relprop.rendering.image import Heatmap
from relprop.rendering.scale import Scale
from relprop.rendering.side_by_side import side_by_side
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
    first = next(iter(cells.values()))
    rows = [replace(row, explained=f"{row.explained} by {key[1]}") for key, view in cells.items() for row in view.rows]
    draw = partial(_pictures if first.panels else _below, cells, result.columns, options)
    several = f"sample {sample}: " if len(result) > 1 else ""
    title = f"{several}{len(result.columns)} composites compared"
    return View(first.kind, sample, title, (), draw, first.entries, said=first.said, rows=rows, cells=cells)


def _cells(result: _Compared, sample: int, options: Options) -> Cells:
    """The view of each target and composite. Of several inputs, the first is drawn."""
    found: Cells = {}
    for line in result.results:
        alone = [each[sample] for each in line]
        name = alone[0].subject(0)
        # The same target twice is two rows.
        while (name, result.columns[0]) in found:
            name += "'"
        for place, each in zip(result.columns, alone, strict=True):
            found[name, place] = each.views(replace(options, shared=False))[0]
    return found


def _pictures(cells: Cells, columns: Sequence[str], options: Options) -> Drawing:
    return side_by_side(cells, columns, wide=options.room, shared=options.shared)


def _below(cells: Cells, columns: Sequence[str], options: Options) -> Drawing:
    shown = [titled(view.draw(), f"{row}: {name}", lines=view.lines) for (row, name), view in cells.items()]
    return column(shown, 16)
