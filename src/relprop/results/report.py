"""A report: a page to attach to a paper or an audit. It says what was explained, how, and what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from relprop.composites import acting
from relprop.errors import InputError
from relprop.rendering import html
from relprop.rendering.html import text
from relprop.rendering.scale import number
from relprop.rendering.view import Options, View
from relprop.results.picture import left_out
from relprop.results.protocol import Result
from relprop.trees import leaves
from relprop.version import versions

Groups = Mapping[str, Sequence[Result]]

_ABOUT = (
    "Relevance takes the score of what was explained and hands it back, operation by operation, to the inputs. "
    "Red, on a solid line, spoke for it; blue, on a dotted line, against it; white had no say. Each map has its own scale; "
    "a note counts what lies beyond it. The residual is the part of the score that did not arrive at the "
    "inputs: biases inside the network, stabilisers and other constants kept it."
)
_NUMBERS = ("Score", "Relevance", "Residual", "Scale")


def report_page(
    results: Sequence[Result] | Groups,
    *,
    title: str = "Report",
    paragraphs: Sequence[str] = (),
    options: Options | None = None,
) -> str:
    """The report on some results, as an HTML page.

    Args:
        results: the results, or a mapping from headings to the results under each.
        title: the title of the page.
        paragraphs: more text under the title.
        options: how results are drawn.

    Raises:
        InputError: there is no result, or one of them is something else.
    """
    groups = results if isinstance(results, Mapping) else _numbered(results)
    every = [result for group in groups.values() for result in group]
    if not every:
        raise InputError("a report needs at least one result.")
    if strangers := [result for result in every if not isinstance(result, Result)]:
        raise InputError(f"a report is about results, such as attribute returns; got {type(strangers[0]).__name__}.")
    chosen = options or Options()
    body = [f"<p>{text(paragraph)}</p>" for paragraph in (*paragraphs, _ABOUT)]
    body += [_group(heading, group, chosen) for heading, group in groups.items()]
    body += [_composites(every), _environment(every)]
    return html.page(title, "\n".join(body), palette=chosen.palette)


def rule_counts(result: Result) -> list[tuple[str, str, str, int]]:
    """Operation, family, rule and number of calls, in the order in which they first occur."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for place, rule in result.rules:
        counts[place.name, place.family, acting(place, rule)] += 1
    return [(*key, count) for key, count in counts.items()]


def _numbered(results: Sequence[Result]) -> Groups:
    return {f"Result {n}": [result] for n, result in enumerate(results, 1)} if len(results) > 1 else {"": list(results)}


def _group(heading: str, group: Sequence[Result], options: Options) -> str:
    parts = [f"<h2>{text(heading)}</h2>"] if heading else []
    rows: list[tuple[object, ...]] = []
    for number_, result in enumerate(group):
        # The text about an input, and its picture, are not repeated for each of its targets.
        again = any(_same_inputs(result, before) for before in group[:number_])
        for view in result.views(replace(options, beside=options.beside and not again)):
            parts.append("" if again or not view.said else f"<p>{text(view.said)}</p>")
            parts.append(html.view_html(view))
            rows += _rows(result, view)
        if more := left_out(result, options):
            parts.append(f'<p class="note">{more} more samples are not shown.</p>')
    columns = ("Explained", "Composite", "Score", "Relevance", "Residual", "Absorbed by", "Scale", "Note")
    parts.append(html.table(columns, rows, numbers=_NUMBERS))
    return "\n".join(filter(None, parts))


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
            row.title, result.composite.name, number(row.score), number(row.relevance), number(row.residual),
            "; ".join(f"{cause} {number(amount)}" for cause, amount in row.absorbed.items()), scale, noted,
        )
        for row in view.rows
    ]  # fmt: skip


def _composites(results: Sequence[Result]) -> str:
    parts = ["<h2>Rules</h2>"]
    seen: set[str] = set()
    for result in results:
        described = str(result.composite)
        rows = rule_counts(result)
        key = f"{described}{rows}"
        if key in seen:
            continue
        seen.add(key)
        parts.append(f"<h3>{text(result.composite.name)}</h3><pre>{html.lines(described)}</pre>")
        if rows:
            parts.append(html.table(("Operation", "Family", "Rule", "Calls"), rows, numbers=("Calls",)))
        if result.unknown:
            names = ", ".join(f"{name} ({count})" for name, count in result.unknown.items())
            parts.append(f"<p><strong>Unknown operations, their own gradient used: {text(names)}.</strong></p>")
    return "\n".join(parts)


def _environment(results: Sequence[Result]) -> str:
    rows = list(versions().items())
    models = dict.fromkeys(str(result.model) for result in results if result.model is not None)
    rows += [("model", name) for name in models]
    return f"<h2>Made with</h2>\n{html.table(('What', 'Version'), rows)}"
