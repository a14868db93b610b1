"""Self-contained HTML pages: no script, nothing loaded from elsewhere, all text escaped.

The Content-Security-Policy of a page allows its own style, by hash, and pictures inside the page; nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from html import escape
from importlib import resources

import numpy as np

from relprop.rendering import colours
from relprop.rendering.account import percent
from relprop.rendering.colours import Floats, Palette
from relprop.rendering.figures import figures, grid_html
from relprop.rendering.matrix import TokenMatrix, label
from relprop.rendering.scale import Scale, number
from relprop.rendering.text import UNDERLINED, TokenMap, spaces
from relprop.rendering.view import View
from relprop.rendering.visible import visible

# The colours of tokens have this many steps per sign, as CSS classes. The policy would forbid a style attribute on each
# token, and the page would be larger.
LEVELS = 40
# The values of a text with more tokens than this are folded away on the screen.
_FOLDED = 60
# The most cells that a matrix may have to be a table; a larger one is a picture.
_CELLS = 5000
# The most features that are listed: a list of all pixels of a picture helps nobody.
_LONGEST = 1000


def page(title: str, body: str, *, palette: Palette | str = colours.RED_BLUE) -> str:
    """A whole page around a body, which is HTML already."""
    css = style(palette)
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{text(title)}</title>
<style>{css}</style>
</head>
<body class="relprop">
<main>
<h1>{text(title)}</h1>
{body}
</main>
</body>
</html>
"""


def fragment(body: str, *, palette: Palette | str = colours.RED_BLUE) -> str:
    """A body with its style, for a notebook."""
    return f'<div class="relprop"><style>{style(palette)}</style>\n{body}\n</div>'


@lru_cache(maxsize=8)
def style(palette: Palette | str) -> str:
    """The style of pages, with the colours of tokens."""
    base = resources.files("relprop.rendering").joinpath("page.css").read_text(encoding="utf-8")
    rules = []
    for name, sign, line in (("p", 1.0, "solid"), ("n", -1.0, "dotted")):
        for level in range(1, LEVELS + 1):
            value = sign * level / LEVELS
            ground, ink = colours.hexadecimal(value, palette), colours.ink_on(value)
            under = f"border-bottom:2px {line} #141414" if level / LEVELS >= UNDERLINED else ""
            rules.append(f".{name}{level}{{background:{ground};color:{ink};{under}}}")
    unknown = colours.hexadecimal(float("nan"), palette)
    return f"{base}\n{''.join(rules)}\n.nan{{background:{unknown}}}\n"


def text(value: object) -> str:
    """Any text as HTML that shows it."""
    return escape(visible(value))


def lines(value: object) -> str:
    """Any text as HTML that shows it, with its line breaks."""
    return escape(visible(value, longest=100_000, lines=True))


def view_html(view: View, *, heading: str = "h3", many: bool = False) -> str:
    """A view under its title and its numbers. If it is one of many, the numbers of its tokens are folded away."""
    notes = "".join(f"<p class=note>{text(line)}</p>" for line in view.lines)
    if isinstance(view.data, TokenMap):
        shown = tokens_html(view.data, many=many)
    elif isinstance(view.data, TokenMatrix):
        shown = matrix_html(view.data)
    elif view.cells and all(cell.panels for cell in view.cells.values()):
        shown = grid_html(view.cells, heading="h4" if heading == "h3" else heading)
    elif view.cells and view.kind == "table":
        shown = f'<div class="scroll">{view.draw().to_svg()}</div>\n{_numbers_side_by_side(view)}'
    elif view.cells and all(isinstance(cell.data, TokenMap) for cell in view.cells.values()):
        shown = texts_side_by_side(view)
    elif view.cells:
        shown = "\n".join(
            view_html(replace(cell, title=f"{row}: {name}"), heading="h4") for (row, name), cell in view.cells.items()
        )
    elif view.panels:
        shown = f"{figures(view)}{_listed(view)}"
    else:
        shown = f'<div class="scroll">{view.draw().to_svg()}</div>{_listed(view)}'
    above = None if view.panels else view.account
    # On paper, the sentence above says enough of each of many.
    kind = '"account screen"' if many else "account"
    account = f"<div class={kind}>{above.to_svg()}</div>\n" if above is not None else ""
    return f"<section class=view><{heading}>{text(view.title)}</{heading}>{notes}\n{account}{shown}\n</section>"


def tokens_html(shown: TokenMap, *, many: bool = False) -> str:
    """A text on its colours. The relevance of each token is shown on hover, and listed below."""
    listed = [(token.text, token.value) for token in shown.tokens]
    return f"{_tinted(shown)}\n{legend(shown.scale, 'dotted line', 'solid line')}\n" + values_table(
        listed, f"Relevance of {len(listed)} tokens", folded=many or len(listed) > _FOLDED, on_paper=not many
    )


def _tinted(shown: TokenMap) -> str:
    """The tokens on their colours, with their numbers on hover."""
    parts = []
    for token, level in zip(shown.tokens, _levels(shown.scaled), strict=True):
        tag = "i" if token.special else "b"
        before, word, after = spaces(token.text)  # the colour ends with the word
        parts.append(f"{before}<{tag}{level} title={number(token.value)}>{_token(word)}</{tag}>{after}")
    return f'<p class="tokens" dir="auto">{"".join(parts)}</p>'


def texts_side_by_side(view: View) -> str:
    """The same text by each composite, one below the other, under what was explained; the numbers in a table."""
    parts = []
    for row in dict.fromkeys(row for row, _ in view.cells):
        cells = {name: cell for (other, name), cell in view.cells.items() if other == row}
        first = next(iter(cells.values()))
        parts.append(f"<h4>{text(row)}, score {number(first.rows[0].score)}</h4>")
        for name, cell in cells.items():
            assert isinstance(cell.data, TokenMap)
            line = cell.rows[0]
            arrived = f", {percent(line.relevance / line.score)} arrived" if cell.account is not None else ""
            parts.append(f"<p class=composite><strong>{text(name)}</strong>{text(arrived)}</p>")
            parts.append(f"{_tinted(cell.data)}\n{legend(cell.data.scale, 'dotted line', 'solid line')}")
    return "\n".join([*parts, _numbers_side_by_side(view)])


def _numbers_side_by_side(view: View) -> str:
    """All numbers of a comparison in tables: a line for each feature or token, a column for each composite."""
    parts = []
    for row in dict.fromkeys(row for row, _ in view.cells):
        cells = {name: cell.entries for (other, name), cell in view.cells.items() if other == row}
        lines = [
            (entries[0][0].strip() or entries[0][0], *(number(value) for _, value in entries))
            for entries in zip(*cells.values(), strict=True)
        ]
        shown = table((row, *cells), lines[:_LONGEST], numbers=list(cells))
        parts.append(f"<details class=screen><summary>The numbers of {text(row)}</summary>{shown}</details>")
    return "\n".join(parts)


def matrix_html(shown: TokenMatrix, rows: str = "Generated") -> str:
    """A matrix as a table of colours. Below it are the strongest tokens of each row, and all numbers.

    Args:
        shown: the matrix.
        rows: what its rows are.
    """
    if shown.values.size > _CELLS:
        drawn = f'<div class="scroll">{shown.drawing().to_svg()}</div>'
        return f"{drawn}\n{_drew_on(shown, rows)}"
    signs = shown.signs
    heads = [f'<th scope="col"><span>{escape(label(name))}</span></th>' for name in shown.columns]
    between = shown.prompt if shown.prompt is not None and 0 < shown.prompt < len(heads) else None
    coloured, plain = [], []
    for r, name in enumerate(shown.rows):
        cells = [
            f'<td{level} title="{escape(shown.said(r, c))}">{signs[r][c]}</td>'
            if shown.read[r, c]
            else "<td class=unread></td>"
            for c, level in enumerate(_levels(shown.scaled[r]))
        ]
        start = f'<tr><th scope="row">{escape(label(name))}</th>'
        coloured.append(start + _parted(cells, between) + "</tr>")
        numbers = (number(value) if seen else "" for value, seen in zip(shown.values[r], shown.read[r], strict=True))
        plain.append(f"{start}{''.join(f'<td>{value}' for value in numbers)}</tr>")
    return "\n".join(
        (
            f'<div class="scroll"><table class=matrix><tr><td></td>{_parted(heads, between)}</tr>', *coloured, "</table></div>",
            legend(shown.scale, "with -", "with +", "" if shown.read.all() else " Grey: not read yet."),
            _drew_on(shown, rows),
            f"<details><summary>All {int(shown.read.sum())} numbers</summary><div class=scroll><table class=numbers>"
            f"<tr><td></td>{''.join(heads)}</tr>", *plain, "</table></div></details>",
        )
    )  # fmt: skip


def _parted(cells: list[str], at: int | None) -> str:
    """Cells with a gap between the prompt and the generated tokens."""
    return "".join(cells) if at is None else "".join((*cells[:at], "<td class=gap></td>", *cells[at:]))


def _drew_on(shown: TokenMatrix, what: str) -> str:
    rows = [
        (label(name), ", ".join(f"“{label(shown.columns[c])}” {number(value)}" for c, value in shown.strongest(r)))
        for r, name in enumerate(shown.rows)
    ]
    return table((what, "Drew most on"), rows)


def legend(scale: Scale, against: str, towards: str, more: str = "") -> str:
    """The legend of colours and signs."""
    limit = number(scale.limit)
    return (
        f'<p class="note">Scale: <b class="n{LEVELS}">&nbsp;-{limit}&nbsp;</b> against, {against}; <b>0</b> white; '
        f'<b class="p{LEVELS}">&nbsp;+{limit}&nbsp;</b> for, {towards}.{more}</p>'
    )


def key() -> str:
    """What the colours of a page mean, shown in these colours."""
    return (
        f'<p class="note">Colours: <b class="p{LEVELS}">&nbsp;for&nbsp;</b> what is explained, '
        f'<b class="n{LEVELS}">&nbsp;against&nbsp;</b> it; <b>white</b>: neither. Point at a map to see its numbers.</p>'
    )


def values_table(
    entries: Sequence[tuple[str, float]], title: str, *, folded: bool = True, on_paper: bool = True
) -> str:
    """Names and values as a table. On the screen it may be folded; in print it is shown, or left out."""
    rows = "\n".join(f"<tr><td>{_token(name)}<td>{number(value)}" for name, value in entries)
    opened = f"{'' if folded else ' open'}{'' if on_paper else ' class=screen'}"
    return f"<details{opened}><summary>{text(title)}</summary><table class=values>\n{rows}\n</table></details>"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()) -> str:
    """A table. The columns in `numbers` are aligned on the right."""
    right = [' class="number"' if column in numbers else "" for column in columns]
    head = "".join(f'<th scope="col"{c}>{text(column)}</th>' for column, c in zip(columns, right, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{c}>{text(cell)}</td>" for cell, c in zip(row, right, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _levels(scaled: Floats) -> list[str]:
    """The CSS class of each colour, as an attribute."""
    levels = np.round(np.abs(np.nan_to_num(scaled)) * LEVELS).astype(int)
    return [
        " class=nan" if value != value else f" class={'p' if value > 0 else 'n'}{level}" if level else ""
        for value, level in zip(scaled, levels, strict=True)
    ]


def _token(value: str) -> str:
    return escape(visible(value.replace("\n", "↵\n"), lines=True), quote=False)


def _listed(view: View) -> str:
    if not view.entries:
        return ""
    if view.kind == "table" and len(view.entries) <= _LONGEST:
        return values_table(view.entries, f"Relevance of {len(view.entries)} {view.unit}")
    if view.kind == "table":
        strongest = sorted(view.entries, key=lambda entry: -abs(entry[1]))[:_LONGEST]
        return values_table(strongest, f"The {_LONGEST} strongest of {len(view.entries)} {view.unit}")
    where = {"image": "row, column", "series": "channel, step", "volume": "slice, row, column"}.get(view.kind, "index")
    # Places of pixels help nobody on paper, where they could not be folded.
    return values_table(view.entries, f"The {len(view.entries)} strongest ({where})", on_paper=False)
