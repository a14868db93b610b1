"""Pictures on pages: each with its colour bar and its caption, side by side, or as a grid with rows and columns.

Captions are text of the page, in the browser's font, so that none is cut. The columns become fewer on a narrow screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape

from relprop.rendering.image import Heatmap
from relprop.rendering.legend import colour_bar
from relprop.rendering.marks import Text
from relprop.rendering.panels import Panel, picture_of_panel
from relprop.rendering.scale import number
from relprop.rendering.view import View
from relprop.rendering.visible import visible

# The height in pixels at which pictures are written into a page, which shows them at the width of its columns.
_HIGH = 448
# The most figures beside each other.
MOST = 6


def figures(view: View) -> str:
    """The pictures of a view side by side; what became of the score is under the first."""
    first, *rest = view.panels
    return _row([figure(first, _account(view)), *map(figure, rest)])


def figure(shown: Panel, *more: str, noted: bool = True) -> str:
    """A picture with its colour bar, its caption and note, and more parts of the caption that are HTML already."""
    first, *rest = shown.caption.split("\n")
    bar = ""
    if shown.map is not None and shown.bar:
        bar = _bar(shown)
        rest += [shown.map.note] if noted and shown.map.note else []
    title = f"<strong>{escape(visible(first))}</strong>" if first else ""
    notes = "".join(f"<p class=note>{escape(visible(line))}</p>" for line in rest if line)
    drawn = picture_of_panel(shown, _HIGH).to_svg()
    return f"<figure>{drawn}{bar}<figcaption>{title}{''.join(more)}{notes}</figcaption></figure>"


def grid_html(cells: Mapping[tuple[str, str], View], *, heading: str = "h3") -> str:
    """A grid of maps of one input, which is shown once: rows are what was explained, columns the composites.

    Args:
        cells: the view of each pair of row and column.
        heading: the element of the rows' titles.
    """
    rows, columns = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    notes = {view.data.note for view in cells.values() if isinstance(view.data, Heatmap)}
    once = len(notes) == 1  # what is said of every map is said once
    lead = next((p for view in cells.values() for p in view.panels if p.map is None), None)
    parts = []
    for place, name in enumerate(rows):
        shown = []
        if lead is not None:
            shown.append(figure(lead) if place == 0 else _on_picture(cells, name, columns))
        shown += [_cell(column, cells.get((name, column)), noted=not once) for column in columns]
        score = next(number(view.rows[0].score) for (row, _), view in cells.items() if row == name)
        parts.append(
            f"<section class=view><{heading}>{escape(visible(name))}, score {score}</{heading}>\n{_row(shown)}\n</section>"
        )
    if once and (note := notes.pop()):
        parts.append(f"<p class=note>Each map: {escape(visible(note))}.</p>")
    return "\n".join(parts)


def _on_picture(cells: Mapping[tuple[str, str], View], row: str, columns: Sequence[str]) -> str:
    """The first map of a row on the picture, below the input, which is shown once."""
    for column in columns:
        if (row, column) in cells:
            panel = next(panel for panel in cells[row, column].panels if panel.map is not None)
            return figure(replace(panel, caption=f"{column}, on the input"))
    return "<div class=empty></div>"


def _cell(column: str, view: View | None, *, noted: bool) -> str:
    if view is None:
        return "<div class=empty></div>"
    alone = next(panel for panel in reversed(view.panels) if panel.map is not None)
    kept = f"<p>{escape(visible(view.kept))}</p>" if view.kept else ""
    return figure(replace(alone, caption=column), kept, _account(view), noted=noted)


def _account(view: View) -> str:
    return f"<div class=account>{view.account.to_svg()}</div>" if view.account is not None else ""


def _row(shown: Sequence[str]) -> str:
    count = min(len(shown), MOST)
    return f'<div class="figures c{count}">{"".join(shown)}</div>'


def _bar(shown: Panel) -> str:
    heatmap = shown.map
    assert heatmap is not None
    drawn = colour_bar(240, heatmap.scale, heatmap.palette)
    ramp = replace(drawn, height=10, marks=tuple(m for m in drawn.marks if not isinstance(m, Text))).to_svg(
        stretch=True
    )
    limit = number(heatmap.limit)
    ends = (f"-{limit}", "0", f"+{limit}") if heatmap.limit > 0 else ("", "0", "")
    return f"<div class=bar>{ramp}<p>{''.join(f'<span>{end}</span>' for end in ends)}</p></div>"
