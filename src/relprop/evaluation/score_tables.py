"""An evaluation as a table: text, rich, LaTeX, CSV, or a data frame."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from relprop.errors import InputError
from relprop.evaluation.paired_statistics import best_of, mean, standard_error
from relprop.evaluation.score_columns import Measured
from relprop.results.data_frames import pandas_library

FORMS = ("text", "rich", "latex", "csv", "pandas")


def table(found: Measured, form: str = "text") -> Any:
    """The table in one of the forms.

    Raises:
        InputError: there is no such form.
    """
    makers = {"text": _text, "rich": _rich, "latex": _latex, "csv": _csv, "pandas": _pandas}
    if form not in makers:
        raise InputError(f"there is no form {form!r} of a table; there are: {', '.join(FORMS)}.")
    return makers[form](found)


def rows(found: Measured) -> tuple[list[str], list[list[str]]]:
    """The heads of the columns, and a row of text for each method. `*` marks what is best within error."""
    heads = ["method", *(column.name + _arrow(column.better) for column in found.columns), "passes"]
    best = [best_of(column.values, found.methods, column.better) for column in found.columns]
    lines = []
    for n, name in enumerate(found.methods):
        cells = []
        for column, winners in zip(found.columns, best, strict=True):
            values = column.values[n]
            values = values[~values.isnan()]
            mark = "*" if name in winners else ""
            cells.append(f"{_number(mean(values))} ± {_number(standard_error(values))}{mark}" if len(values) else "")
        cost = found.cost[name]
        lines.append([f"({name})" if name in found.free else name, *cells, f"{cost.forwards:g} + {cost.backwards:g}"])
    return heads, lines


def _arrow(better: int) -> str:
    return {1: " ↑", -1: " ↓"}.get(better, "")


def _number(value: float) -> str:
    return "?" if math.isnan(value) else f"{value:.3g}"


def _notes(found: Measured) -> list[str]:
    return [
        f"{len(found)} samples; mean ± standard error; * best within two standard errors of the paired difference; (in "
        "brackets) knows nothing of the model; passes: forward + backward per sample.",
        f"Units: {found.units}. Scores: {found.of}.",
        *found.warnings(),
    ]


def _text(found: Measured) -> str:
    """A block for each replacement, because lines would be long."""
    heads, lines = rows(found)
    blocks: dict[str, list[int]] = {}
    for n, column in enumerate(found.columns, 1):
        blocks.setdefault(column.replacement, []).append(n)
    laid: list[str] = []
    for replaced, places in blocks.items():
        chosen = [0, *places, len(heads) - 1]
        names = [heads[n].replace(f" [{replaced}]", "") for n in chosen]
        block = [names, *([line[n] for n in chosen] for line in lines)]
        widths = [max(len(line[n]) for line in block) for n in range(len(chosen))]
        laid += [f"Removed units become {replaced}:"] if replaced else []
        laid += ["  ".join(map(str.ljust, line, widths)).rstrip() for line in block] + [""]
    return "\n".join([*laid, *_notes(found)])


def _rich(found: Measured) -> Any:
    from rich.table import Table

    heads, lines = rows(found)
    made = Table(caption="\n".join(_notes(found)), caption_justify="left")
    for n, head in enumerate(heads):
        made.add_column(head, justify="left" if n == 0 else "right")
    for line in lines:
        made.add_row(*line)
    return made


def _latex(found: Measured) -> str:
    """For the package booktabs."""
    heads, lines = rows(found)
    laid = [" & ".join(map(_escaped, line)) + r" \\" for line in [heads, *lines]]
    return "\n".join(
        [
            r"\begin{tabular}{l" + "r" * (len(heads) - 1) + "}", r"\toprule", laid[0], r"\midrule", *laid[1:],
            r"\bottomrule", r"\end{tabular}",
        ]
    )  # fmt: skip


def _escaped(cell: str) -> str:
    signs = {"\\": r"\textbackslash{}", "±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}  # fmt: skip
    return "".join(signs.get(letter, f"\\{letter}" if letter in "_%&#${}" else letter) for letter in cell)


def _csv(found: Measured) -> str:
    """A row for each method and score."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["method", "metric", "score", "replacement", "better", "mean", "error", "samples", "forwards", "backwards"]
    )
    for column in found.columns:
        for name, values in zip(found.methods, column.values, strict=True):
            values = values[~values.isnan()]
            cost = found.cost[name]
            writer.writerow(
                [name, column.metric, column.score, column.replacement, column.better, repr(mean(values)),
                 repr(standard_error(values)), len(values), cost.forwards, cost.backwards]
            )  # fmt: skip
    return text.getvalue()


def _pandas(found: Measured) -> Any:
    """A row for each method, score and sample."""
    return pandas_library().DataFrame(
        [
            {"method": name, "metric": c.metric, "score": c.score, "replacement": c.replacement, "better": c.better,
             "sample": sample, "value": value}
            for c in found.columns
            for name, row in zip(found.methods, c.values.tolist(), strict=True)
            for sample, value in enumerate(row)
        ]
    )  # fmt: skip
