"""Answers as HTML: our own drawings in a page of Gradio. All text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from relprop.rendering import html
from relprop.rendering.figures import figure
from relprop.rendering.image import Heatmap, overlay
from relprop.rendering.panels import Panel
from relprop.rendering.scale import number
from relprop.rendering.view import Options, View
from relprop.web.pictures import PictureAnswer, RectangleShare
from relprop.web.settings import PageSettings


def on_picture(heatmap: Heatmap, picture: Image.Image, strength: float) -> Image.Image:
    """The map printed on the picture; below a strength of 1, the picture's own colours come through."""
    printed = overlay(heatmap, picture)
    if strength >= 1.0:
        return printed
    return Image.blend(picture.convert("RGB").resize(printed.size, Image.Resampling.BICUBIC), printed, strength)


def maps_html(answer: PictureAnswer, settings: PageSettings) -> str:
    """The maps of each picture: rows are what was explained, columns the composites. Several have their names above them."""
    views = answer.result.views(Options(**answer.options(settings), most=len(answer.names)))
    parts = []
    for name, picture, view in zip(answer.names, answer.pictures, views, strict=True):
        if len(views) > 1:
            parts.append(f"<h2>{html.text(name)}</h2>")
        parts += _rows(view, picture, settings)
    notes = "".join(f"<p class=note>{html.text(notice)}</p>" for notice in answer.result.notices)
    return "".join(parts) + notes + html.key()


def _rows(view: View, picture: Image.Image, settings: PageSettings) -> list[str]:
    """The maps of a picture, a section for each row."""
    parts = []
    for place, row in enumerate(dict.fromkeys(row for row, _ in view.cells)):
        # The rows below have a gap in its place, so that all maps are of one size.
        shown = [figure(Panel(picture, "input", smooth=True)) if place == 0 else "<div class=empty></div>"]
        cells = [(column, cell) for (name, column), cell in view.cells.items() if name == row]
        for column, cell in cells:
            drawn = _cell(column, cell, picture, settings)
            shown += drawn if len(cells) == 1 else [f"<div>{''.join(drawn)}</div>"]
        score = number(cells[0][1].rows[0].score)
        wide = min(len(shown), 5)
        parts.append(
            f"<section class=view><h3>{html.text(row)}, score {score}</h3>"
            f'<div class="figures c{wide}">{"".join(shown)}</div></section>'
        )
    return parts


def _cell(column: str, cell: View, picture: Image.Image, settings: PageSettings) -> list[str]:
    """A map on its picture, and alone, with what became of the score."""
    if not isinstance(cell.data, Heatmap):
        return [html.view_html(replace(cell, title=column))]
    heatmap = cell.data
    kept = f"<p>{html.text(cell.kept)}</p>" if cell.kept else ""
    account = f"<div class=account>{cell.account.to_svg()}</div>" if cell.account is not None else ""
    printed = Panel(on_picture(heatmap, picture, settings.strength), column, heatmap, smooth=True)
    return [
        f'<div class="stage">{figure(printed, kept, account)}</div>',
        figure(Panel(heatmap, f"{column}, alone", bar=False), noted=False),
    ]


def parts_html(parts: Sequence[RectangleShare], box: tuple[int, int, int, int]) -> str:
    """How much relevance lies in a rectangle, as a table."""
    left, top, right, bottom = box
    several = len(parts) > len({p.column for p in parts})
    rows = [
        (
            *([p.picture] if several else []), p.column, number(p.inside), _percent(p.inside, p.whole), number(p.positive),
            number(p.negative),
        )
        for p in parts
    ]  # fmt: skip
    names = ("Map", "Relevance inside", "Of the map", "For", "Against")
    said = f"Columns {left} to {right - 1}, rows {top} to {bottom - 1}: {parts[0].area:.1%} of the picture."
    columns = ("Picture", *names) if several else names
    return f"<p>{html.text(said)}</p>{html.table(columns, rows, numbers=names[1:])}"


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"
