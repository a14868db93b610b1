"""Tables, series and sounds: what a network says of one, why, and which features matter in all. Nothing here knows Gradio."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.attribute import attribute
from relprop.errors import InputError
from relprop.loading.network import taking
from relprop.rendering import html
from relprop.rendering.scale import number
from relprop.rendering.view import Options
from relprop.rendering.visible import visible
from relprop.results.comparison import Comparison
from relprop.results.protocol import Result
from relprop.web import source
from relprop.web.asking import check_classes, class_number, classes_of, compared
from relprop.web.limits import Limits
from relprop.web.page_subject import MapColumn, PageSubject, columns
from relprop.web.rows_files import NumbersFile, form_of, in_form
from relprop.web.settings import FORMS, PageSettings

LISTED = 25
"""How many rows are listed at once."""
_CELLS = 5
_FIX = "It must take what the file holds."


@dataclass(frozen=True, eq=False)
class RowsAnswer:
    """What a network said of a row, a series or a sound, and why.

    Attributes:
        file: the file that it is in.
        form: how the file was read.
        row: which sample of it.
        settings: what was asked; the target is a number here.
        columns: the rules of each column.
        result: why.
        drawn: the same with the channels of a series first, as drawings have them.
        classes: the largest outputs: number, name, output, and probability if they are logits.
        notes: what its reader should know.
        code: the code that made it.
    """

    file: NumbersFile
    form: str
    row: int
    settings: PageSettings
    columns: tuple[MapColumn, ...]
    result: Result
    drawn: Result
    classes: tuple[tuple[int, str, float, float | None], ...]
    notes: tuple[str, ...]
    code: str = ""

    def options(self, settings: PageSettings) -> dict[str, Any]:
        """How the result is drawn."""
        return drawing(self.file, self.form)


def drawing(file: NumbersFile, form: str) -> dict[str, Any]:
    """How results of a file are drawn."""
    found: dict[str, Any] = {}
    if form == "rows":
        return {"names": file.columns} if file.columns else found
    if file.rate is not None:
        found["rate"] = file.rate
    if file.rate is None or file.values.shape[1] > 1:
        found["kind"] = "series"
    if form != "flat" and file.columns:
        found["names"] = file.columns
    return found


def ask(subject: PageSubject, file: NumbersFile, settings: PageSettings, bounds: Limits) -> RowsAnswer:
    """Explains a sample of a file, the row that the settings name.

    Raises:
        InputError: there is no such row, or the network cannot take it.
        TargetError: there is no such class.
        RelpropError: as in `relprop.attribute`.
    """
    form, notes = _form(subject, file, bounds, settings.form)
    row, every = settings.row or 0, file.inputs(form)
    if not 0 <= row < len(every):
        raise InputError(f"{file.name!r} has no row {row}: they are numbered from 0 to {len(every) - 1}.")
    inputs = every[row : row + 1]
    check_classes(settings, subject)
    with taking(subject.loaded, inputs, _FIX):
        chosen = columns(settings, subject, inputs)
        found = compared(subject, inputs, settings, chosen)
    first = found[0, 0]
    if form == "rows" and file.columns and len(file.columns) == first.values[0].numel():
        for line in found.results:
            line[:] = [replace(each, names=list(file.columns)) for each in line]
        first = found[0, 0]
    one = len(found.columns) == len(found.results) == 1
    answer = RowsAnswer(
        file, form, row, settings.changed(target=class_number(first.target), row=row), tuple(chosen),
        first if one else found, _drawn(found, form, one), classes_of(first), notes,
    )  # fmt: skip
    return replace(answer, code=code_of(subject, answer))


def _form(subject: PageSubject, file: NumbersFile, bounds: Limits, form: str) -> tuple[str, tuple[str, ...]]:
    if form != "auto":
        if form != "rows" and len(file.values) > bounds.steps:
            raise InputError(
                f"a series has at most {bounds.steps:,} steps here; {file.name!r} has {len(file.values):,}."
            )
        return form, ()
    found, more = form_of(subject, file, bounds)
    notes = [] if found == "rows" and not more else [f"The file was read as: {FORMS[found]}."]
    if more:
        notes.append(f"The network would also take it as: {'; '.join(FORMS[each] for each in more)}.")
    return found, tuple(notes)


def _drawn(found: Comparison, form: str, one: bool) -> Result:
    """The result as it is drawn: the channels of a series come first."""
    if form != "steps":
        return found[0, 0] if one else found
    turned = [[replace(each, values=each.values.mT, inputs=each.inputs.mT) for each in line] for line in found.results]
    return turned[0][0] if one else replace(found, results=turned)


def answer_html(answer: RowsAnswer) -> str:
    """The bars, bands or lines of an answer."""
    (view,) = answer.drawn.views(Options(**answer.options(answer.settings), most=1))
    notes = [*answer.notes, *answer.result.notices]
    if answer.file.without and answer.form == "rows":
        notes.append(f"Columns left out: {', '.join(visible(name, longest=40) for name in answer.file.without)}.")
    title = f"{answer.file.name}, row {answer.row}: {view.title}" if answer.form == "rows" else view.title
    shown = html.view_html(replace(view, title=title))
    return shown + "".join(f"<p class=note>{html.text(note)}</p>" for note in notes)


def list_html(subject: PageSubject, file: NumbersFile, form: str, first: int) -> str:
    """Rows of a file as buttons, with what the network says of each."""
    every = file.inputs(form)
    first = max(0, min(first, len(every) - 1))
    shown = every[first : first + LISTED]
    if len(every) == 1 and form != "rows":
        rate = f", {file.rate:,} each second" if file.rate is not None else ""
        return f'<p class="hint">{html.text(file.name)}: {len(file.values):,} steps{rate}.</p>'
    said = _said(subject, shown)
    names = [html.text(name) for name in file.columns[:_CELLS]] if shown.ndim == 2 and form == "rows" else []
    heads = "".join(f'<th scope="col">{name}</th>' for name in ["Row", *(["Answer"] if said else []), *names])
    lines = []
    for place, values in enumerate(shown):
        n = first + place
        cells = [f'<button type="button" data-n="{n}">{n}</button>', *([html.text(said[place])] if said else [])]
        cells += [number(float(value)) for value in values[:_CELLS]] if names else []
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    counted = f"{html.text(file.name)}: {len(every):,} {'row' if len(every) == 1 else 'rows'}; choose one."
    return (
        f'<p class="hint">{counted}</p><div class="scroll rows" role="group" aria-label="Rows" tabindex="0"><table><thead>'
        f"<tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _said(subject: PageSubject, inputs: Tensor) -> list[str]:
    """What the network says of each row: the likeliest class, or the number; empty if it does not say so of each."""
    try:
        with torch.no_grad():
            output = subject.loaded.model(inputs)
        output = getattr(output, "logits", output)
        found = output.flatten(1) if output.ndim > 1 else output[:, None]
        if len(found) != len(inputs) or found.ndim != 2:
            return []
    except Exception:  # it takes one row at a time, or gives something else; an explanation says what is wrong
        return []
    if found.shape[1] == 1:
        return [number(float(value)) for value in found[:, 0]]
    labels = subject.labels
    best = found.argmax(1).tolist()
    return [labels[n] if labels is not None and n < len(labels) else f"class {n}" for n in best]


@dataclass(frozen=True, eq=False)
class AllRows:
    """Which features matter in all rows of a table.

    Attributes:
        name: the name of the table.
        results: their mean relevance, and a dot for each row.
        code: the code that made them.
    """

    name: str
    results: tuple[Result, ...]
    code: str


def ask_all(subject: PageSubject, file: NumbersFile, settings: PageSettings, bounds: Limits) -> AllRows:
    """Which features matter in all rows of a table.

    Raises:
        InputError: the file is not a table of at least two rows.
        RelpropError: as in `relprop.attribute`.
    """
    form, _ = _form(subject, file, bounds, settings.form)
    every = file.inputs(form)
    if form != "rows" or len(every) < 2 or every.ndim != 2:
        raise InputError("all rows are summed up of a table of at least two rows, each of which is a sample.")
    check_classes(settings, subject)
    with taking(subject.loaded, every[:1], _FIX):
        (chosen, *_) = columns(settings, subject, every[:1])
        R = attribute(
            subject.loaded.model, every, settings.target, composite=chosen.composite, labels=subject.labels, batch_size=64
        )  # fmt: skip
    names = list(file.columns) or [f"feature {n}" for n in range(every.shape[1])]
    S = replace(R, names=names).summary()
    lines = [*_start(subject, file), "", "R = relprop.attribute("]
    lines += [
        f"    loaded.model, inputs, {settings.target}, composite={chosen.source}, labels=loaded.labels, batch_size=64"
    ]
    lines += [
        ")",
        f"R.names = {names!a}",
        "S = R.summary()",
        'relprop.report([S, S.beeswarm()], "features.html")',
        "print(S)",
    ]
    return AllRows(file.name, (S, S.beeswarm()), "\n".join(lines) + "\n")


def all_rows_html(found: AllRows) -> str:
    """The charts of all rows."""
    parts = [html.view_html(view) for each in found.results for view in each.views(Options(most=1))]
    return f"<h2>All rows of {html.text(found.name)}</h2>{''.join(parts)}"


def _start(subject: PageSubject, file: NumbersFile) -> list[str]:
    """The lines that load the network and read the file as `inputs`."""
    name, sound = source.file_name(file.name, file.ending.strip(".")), file.ending == ".wav"
    lines = ["from pathlib import Path", "", *(["import torch", ""] if file.ending == ".csv" else []), "import relprop"]
    lines += [f"from relprop.loading import models{'' if sound else ', samples'}"]
    lines += ["from relprop.loading.sounds import read_sound"] if sound else []
    return [*lines, "", *source.model_lines(subject), *file.source(name)]


def code_of(subject: PageSubject, answer: RowsAnswer) -> str:
    """The code that made an answer. It runs as it stands, beside the file."""
    form = answer.form
    lines = _start(subject, answer.file)
    picked = f"inputs[{answer.row} : {answer.row + 1}]" if form == "rows" else in_form(form)
    lines += [f"inputs = {picked}", "", *source.compared_lines(answer.settings, answer.columns)]
    options = ", ".join(f"{name}={value!a}" for name, value in drawing(answer.file, form).items() if name != "names")
    if answer.file.columns and form != "flat":
        options += f"{', ' if options else ''}names={list(answer.file.columns)!a}"
    if form == "steps":
        lines += [
            "from dataclasses import replace  # drawings have channels first", "",
            "turned = [[replace(each, values=each.values.mT, inputs=each.inputs.mT) for each in line] for line in maps.results]",
            "maps = replace(maps, results=turned)",
        ]  # fmt: skip
    shown = "maps[0, 0]" if len(answer.columns) == 1 and answer.settings.against is None else "maps"
    lines += [f'{shown}.save("relevance.html"{", " + options if options else ""})', f"print({shown})"]
    return "\n".join(lines) + "\n"
