"""A report: a page to attach to a paper or an audit. It says what was explained, how, and what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relprop.composites import acting
from relprop.errors import InputError
from relprop.rendering import html
from relprop.rendering.figures import grid_html
from relprop.rendering.html import text
from relprop.rendering.scale import number
from relprop.rendering.text import TokenMap
from relprop.rendering.view import Options, Row, View
from relprop.results.picture import left_out
from relprop.results.protocol import Result
from relprop.trees import leaves
from relprop.version import versions

Groups = Mapping[str, Sequence[Result]]

_ABOUT = (
    "Relevance takes the score of what was explained and hands it back, operation by operation, to the inputs. "
    "Each map has its own scale; a note counts what lies beyond it. The residual is the part of the score that did not arrive at the "
    "inputs: biases inside the network, stabilisers, softmax and others kept it."
)
# A report of more results or headings than this begins with its contents, and folds the numbers of tokens.
_FEW = 3
# The letters of a text in a heading.
_LONGEST = 80
_NUMBERS = ("Score", "Relevance", "Residual", "Scale")


def report_page(
    results: Sequence[Result] | Mapping[str, Result | Sequence[Result]],
    *,
    title: str = "Report",
    paragraphs: Sequence[str] = (),
    options: Options | None = None,
) -> str:
    """The report on some results, as an HTML page.

    Args:
        results: the results, or a mapping from headings to the result or results under each.
        title: the title of the page.
        paragraphs: more text under the title.
        options: how results are drawn.

    Raises:
        InputError: there is no result, or one of them is something else.
    """
    groups = _lists(results) if isinstance(results, Mapping) else _numbered(results)
    every = [result for group in groups.values() for result in group]
    if not every:
        raise InputError("a report needs at least one result.")
    if strangers := [result for result in every if not isinstance(result, Result)]:
        raise InputError(f"a report is about results, such as attribute returns; got {type(strangers[0]).__name__}.")
    chosen = options or Options()
    body = [f"<p>{text(paragraph)}</p>" for paragraph in (*paragraphs, _ABOUT)] + [html.key()]
    drawn = {heading: _drawn(group, chosen) for heading, group in groups.items()}
    many = len(every) > _FEW
    body += [_contents(drawn)] if len(drawn) > _FEW else []
    body += [_group(heading, place, pairs, chosen, many) for place, (heading, pairs) in enumerate(drawn.items())]
    body += [_composites(every), _environment(every)]
    return html.page(title, "\n".join(body), palette=chosen.palette)


def _lists(groups: Mapping[str, Result | Sequence[Result]]) -> Groups:
    """Results under headings, where one that stands alone needs no list."""
    return {heading: [one] if isinstance(one, Result) else one for heading, one in groups.items()}


def rule_counts(result: Result) -> list[tuple[str, str, str, int]]:
    """Operation, family, rule and number of calls, in the order in which they first occur."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for place, rule in result.rules:
        counts[place.name, place.family, acting(place, rule)] += 1
    return [(*key, count) for key, count in counts.items()]


def _numbered(results: Sequence[Result]) -> Groups:
    if len(results) < 2:
        return {"": list(results)}
    return {f"Result {n}{_quoted(result)}": [result] for n, result in enumerate(results, 1)}


def _quoted(result: Result) -> str:
    """The beginning of a text that was explained, for a heading; empty for anything else."""
    view = next(iter(result.views(Options(most=1))), None)
    if view is None or not isinstance(view.data, TokenMap):
        return ""
    words = " ".join("".join(token.text for token in view.data.tokens if not token.special).split())
    return f": {words if len(words) <= _LONGEST else words[:_LONGEST].rstrip() + '…'}"


def _contents(drawn: Mapping[str, list[tuple[Result, View]]]) -> str:
    """An overview of a long report: a line for each heading, with a link, what was explained, and what was strongest."""
    lines = []
    for number_, (heading, pairs) in enumerate(drawn.items()):
        titles = dict.fromkeys(row.title for _, view in pairs for row in view.rows)
        listed = next((view for _, view in pairs if view.kind in ("text", "table")), None)
        strongest = sorted(listed.entries if listed else [], key=lambda entry: -abs(np.nan_to_num(entry[1])))[:3]
        words = ", ".join(f"{name.strip()} {number(value)}" for name, value in strongest)
        link = f'<a href="#part{number_}">{text(heading)}</a>'
        lines.append((link, text("; ".join(titles)), text(words)))
    columns = ("Contents", "Explained", "Strongest")
    used = [n for n in range(3) if any(line[n] for line in lines)]  # of pictures alone, nothing is listed
    head = "".join(f'<th scope="col">{columns[n]}</th>' for n in used)
    rows = ["<tr>" + "".join(f"<td>{line[n]}</td>" for n in used) + "</tr>" for line in lines]
    return f'<div class="scroll"><table class=contents><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _drawn(group: Sequence[Result], options: Options) -> list[tuple[Result, View]]:
    """The views of a group. The text about an input, and its picture, are not repeated for each of its targets."""
    found = []
    for place, result in enumerate(group):
        again = any(_same_inputs(result, before) for before in group[:place])
        for view in result.views(replace(options, beside=options.beside and not again)):
            found.append((result, replace(view, said="") if again else view))
    return found


def _group(heading: str, place: int, pairs: Sequence[tuple[Result, View]], options: Options, many: bool) -> str:
    parts = [f'<h2 id="part{place}">{text(heading)}</h2>'] if heading else []
    parts += [f"<p>{text(view.said)}</p>" for _, view in pairs if view.said]
    cells = _cells(pairs)
    if cells is not None:
        parts.append(grid_html(cells))
    else:
        parts += [html.view_html(view, many=many) for _, view in pairs]
    for result in {id(result): result for result, _ in pairs}.values():
        if more := left_out(result, options):
            parts.append(f'<p class="note">{more} more samples are not shown.</p>')
    columns: tuple[str, ...] = (
        "Explained",
        "Composite",
        "Score",
        "Relevance",
        "Residual",
        "Absorbed by",
        "Scale",
        "Note",
    )
    rows = [row for result, view in pairs for row in _rows(result, view)]
    # A grid has the scale and the note of each map under it. Columns without an entry are left out.
    last = len(columns) if cells is None else columns.index("Scale")
    used = [n for n in range(last) if any(row[n] != "" for row in rows)]
    # Of many results with one score each, the line above it says the same.
    if not (many and len(rows) == 1):
        named = [columns[n] for n in used]
        parts.append(
            html.table(
                named, [[row[n] for n in used] for row in rows], numbers=[name for name in _NUMBERS if name in named]
            )
        )
    return "\n".join(filter(None, parts))


def _cells(pairs: Sequence[tuple[Result, View]]) -> dict[tuple[str, str], View] | None:
    """The maps of one input by what was explained and by composite; None if they are not a grid."""
    first = pairs[0][0]
    if len(pairs) < 2 or any(not view.panels or result.samples != 1 for result, view in pairs):
        return None
    if not all(result is first or _same_inputs(result, first) for result, _ in pairs):
        return None
    cells = {(view.title, result.composite.name): view for result, view in pairs}
    return cells if len(cells) == len(pairs) else None


def _same_inputs(one: Result, other: Result) -> bool:
    given = one.given(), other.given()
    if one.kind != other.kind or any(each is None for each in given):
        return False
    pairs = [[leaf for _, leaf in leaves(each)] for each in given]
    return len(pairs[0]) == len(pairs[1]) and all(map(_same, *pairs))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.device == other.device and torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)


def _rows(result: Result, view: View) -> list[tuple[object, ...]]:
    scale = f"±{number(view.data.scale.limit)}" if view.data is not None else ""
    noted = view.data.note if view.data is not None else ""
    return [
        (
            row.title, "" if view.cells else result.composite.name, number(row.score), number(row.relevance), number(row.residual),
            _absorbed(row), scale, noted,
        )
        for row in view.rows
    ]  # fmt: skip


def _absorbed(row: Row) -> str:
    """What kept how much. Amounts that vanish beside the largest are rounding, and are left out."""
    least = 1e-4 * max(map(abs, row.absorbed.values()), default=0.0)
    return "; ".join(f"{cause} {number(kept)}" for cause, kept in row.absorbed.items() if not abs(kept) < least)


def _composites(results: Sequence[Result]) -> str:
    parts = ["<h2>Rules</h2>", "<div class=rules>"]
    seen: set[str] = set()
    for result in results:
        described = str(result.composite)
        rows = rule_counts(result)
        key = f"{described}{rows}"
        if key in seen:
            continue
        seen.add(key)
        parts.append(f"<div><h3>{text(result.composite.name)}</h3><pre>{html.lines(described)}</pre>")
        if rows:
            parts.append(html.table(("Operation", "Family", "Rule", "Calls"), rows, numbers=("Calls",)))
        if result.unknown:
            names = ", ".join(f"{name} ({count})" for name, count in result.unknown.items())
            parts.append(f"<p><strong>Unknown operations, their own gradient used: {text(names)}.</strong></p>")
        parts.append("</div>")
    return "\n".join([*parts, "</div>"])


def _environment(results: Sequence[Result]) -> str:
    rows = list(versions().items())
    models = dict.fromkeys(str(result.model) for result in results if result.model is not None)
    rows += [("model", name) for name in models]
    return f"<h2>Made with</h2>\n{html.table(('What', 'Version'), rows)}"
