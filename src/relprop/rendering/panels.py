"""Maps and pictures as drawings, with captions and colour bars, side by side or in a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from relprop.errors import InputError
from relprop.rendering.drawing import Drawing, row, wrapped
from relprop.rendering.fonts import fit, width
from relprop.rendering.image import PANEL, Heatmap, overlay
from relprop.rendering.legend import colour_bar
from relprop.rendering.marks import FAINT, INK, LINE, SIZE, SMALL, Mark, Picture, Rect, Text
from relprop.rendering.scale import Scale, note, number

# On hover, a map shows the sum of relevance of a part; each side has this many parts. Those of a small map are its pixels.
_PARTS, _SMALL = 12, 1024


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture or map in a drawing.

    Attributes:
        image: the picture or map to show.
        caption: its text. Lines after the first are fainter; all are wrapped.
        heatmap: the map whose colour bar and values belong to a picture; None draws neither.
        smooth: whether it is a photograph, which may be smoothed when it is enlarged.
        bar: whether a map gets a colour bar.
    """

    image: Image.Image | Heatmap
    caption: str = ""
    heatmap: Heatmap | None = None
    smooth: bool = False
    bar: bool = True

    @property
    def map(self) -> Heatmap | None:
        """The map whose values the panel shows."""
        return self.image if isinstance(self.image, Heatmap) else self.heatmap


def panel(shown: Panel, *, height: int = PANEL, bar: bool = True, noted: bool = True) -> Drawing:
    """One picture with its caption, and a colour bar and a note if it has a map."""
    bar = bar and shown.bar
    drawn = picture_of_panel(shown, height)
    marks = list(drawn.marks)
    wide, top = drawn.width - 2, float(height + 6)
    if shown.map is not None and bar:
        legend = colour_bar(wide + 2, shown.map.scale, shown.map.palette)
        marks += legend.at(0, top)
        top += legend.height + 2
    first, *rest = shown.caption.split("\n")
    if shown.map is not None and bar and noted and shown.map.note:
        rest.append(shown.map.note)  # clipping is always stated
    for line in wrapped(first, wide + 2, SIZE):
        marks.append(Text(0, top, line, SIZE, INK))
        top += SIZE + 4
    for line in (part for long in rest for part in wrapped(long, wide + 2, SMALL)):
        marks.append(Text(0, top, line, SMALL, FAINT))
        top += SMALL + 4
    return Drawing(wide + 2, top, tuple(marks), _described(shown))


def picture_of_panel(shown: Panel, height: float, wide: float | None = None) -> Drawing:
    """The picture of a panel in a frame, without bar and caption. A map tells the sums of its parts on hover."""
    image = shown.image.image() if isinstance(shown.image, Heatmap) else shown.image
    wide = max(1, round(image.width * height / image.height)) if wide is None else wide
    marks: list[Mark] = [
        # White maps on white paper need an edge.
        Rect(0, 0, wide + 2, height + 2, None, LINE),
        Picture(1, 1, wide, height, image, shown.smooth, ""),
    ]
    if shown.map is not None:
        marks += _hover(shown.map, wide, height)
    return Drawing(wide + 2, height + 2, tuple(marks), _described(shown))


def strip(panels: Sequence[Panel], *, height: int = PANEL) -> Drawing:
    """Draws panels side by side, at the same height. A note on all maps is written once."""
    if not panels:
        raise InputError("a strip needs at least one panel.")
    notes = [each.map.note for each in panels if each.map is not None and each.bar]
    if len(notes) < 2 or len(set(notes)) > 1 or not notes[0]:
        return row([panel(each, height=height) for each in panels])
    shown = row([panel(each, height=height, noted=False) for each in panels])
    lines = wrapped(f"Each map: {notes[0]}.", shown.width, SMALL)
    below = [Text(0, shown.height + 4 + n * (SMALL + 4), line, SMALL, FAINT) for n, line in enumerate(lines)]
    return replace(shown, height=shown.height + 4 + len(lines) * (SMALL + 4), marks=(*shown.marks, *below))


def grid(
    maps: Sequence[Sequence[Heatmap]],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    shared: bool = False,
    picture: Image.Image | None = None,
    size: int = 160,
) -> Drawing:
    """Draws maps as a table, for example of targets (rows) by composites (columns).

    Args:
        maps: the rows of maps.
        rows: a label for each row.
        columns: a label for each column.
        shared: draw all maps on one scale, instead of each on its own scale with its own colour
            bar. Maps of different rules may differ in size by orders of magnitude; the text under a small one then
            says that it looks white.
        picture: a picture to tint with each map, instead of drawing the maps alone.
        size: the height of a map in pixels.

    Raises:
        InputError: a row is empty, or the number of labels does not fit.
    """
    if not maps or not all(maps):
        raise InputError("a grid needs at least one map in each row.")
    longest = max(map(len, maps))
    if (rows and len(rows) != len(maps)) or (columns and len(columns) != longest):
        raise InputError(f"{len(rows)} and {len(columns)} labels for {len(maps)} rows and {longest} columns of maps.")
    if shared:
        scale = Scale.usual(*(heatmap.values for line in maps for heatmap in line))
        maps = [[replace(heatmap, scale=scale) for heatmap in line] for line in maps]
    side = max((width(label, SIZE) for label in rows), default=0.0)
    left = min(side, 150.0) + 10 if rows else 0.0
    top = SIZE + 8.0 if columns else 0.0
    marks: list[Mark] = []
    right = 0.0
    for number_, line in enumerate(maps):
        cells = [
            panel(Panel(overlay(h, picture) if picture else h, heatmap=h), height=size, bar=not shared) for h in line
        ]
        if number_ < len(rows):
            marks.append(Text(0, top + size / 2 - 7, fit(rows[number_], 150, SIZE)))
        x = left
        for place, cell in enumerate(cells):
            if number_ == 0 and place < len(columns):
                marks.append(Text(x, 0, fit(columns[place], cell.width, SIZE)))
            marks += cell.at(x, top)
            if shared and (said := note(line[place].values, Scale(line[place].limit), "pixel")):
                marks.append(Text(x, top + size + 4, fit(said, cell.width, SMALL), SMALL, FAINT))
            x += cell.width + 8
        right = max(right, x - 8)
        top += max(cell.height for cell in cells) + (16 if shared else 4)
    if shared:
        first = maps[0][0]
        legend = colour_bar(min(max(right - left, 120), 320), first.scale, first.palette)
        marks += legend.at(left, top + 4)
        top += legend.height + 8
        marks.append(Text(left, top, fit(f"scale {first.scale.how}", right - left, SMALL), SMALL, FAINT))
        top += SMALL + 4
        right = max(right, left + legend.width)
    return Drawing(right, top, tuple(marks), f"A table of {len(maps)} by {len(maps[0])} heat maps.")


def _hover(heatmap: Heatmap, wide: float, height: float) -> list[Mark]:
    """Invisible rectangles that show the sum of each part of a map on hover."""
    marks: list[Mark] = []
    high, across_ = heatmap.values.shape
    most = max(high, across_) if high * across_ <= _SMALL else _PARTS
    rows = np.array_split(np.arange(high), min(most, high))
    columns = np.array_split(np.arange(across_), min(most, across_))
    down, across = height / heatmap.values.shape[0], wide / heatmap.values.shape[1]
    for y in rows:
        for x in columns:
            with np.errstate(invalid="ignore", over="ignore"):
                total = float(heatmap.values[y[0] : y[-1] + 1, x[0] : x[-1] + 1].sum())
            where = f"{_range('row', y)}, {_range('column', x)}: {number(total)}"
            place = 1 + x[0] * across, 1 + y[0] * down, len(x) * across, len(y) * down
            marks.append(Rect(*place, title=where))
    return marks


def _range(what: str, places: np.ndarray) -> str:
    return f"{what} {places[0]}" if len(places) == 1 else f"{what}s {places[0]}-{places[-1]}"


def _described(shown: Panel) -> str:
    name = " ".join(shown.caption.split())
    if shown.map is None:
        return f"Picture: {name}." if name else ""
    values = shown.map.values
    finite = np.where(np.isfinite(values), values, 0.0)
    y, x = np.unravel_index(int(np.abs(finite).argmax()), values.shape)
    return (
        f"Heat map{': ' + name if name else ''}: positive relevance {number(float(finite[finite > 0].sum()))}, negative "
        f"{number(float(finite[finite < 0].sum()))}, strongest at row {y}, column {x}: {number(float(finite[y, x]))}."
    )
