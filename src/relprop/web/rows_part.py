"""The part of the page that explains tables, series and sounds."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from relprop.errors import InputError
from relprop.rendering.visible import visible
from relprop.web import controls, downloads, programs, rows_answers, rows_files, scripts
from relprop.web.answering import Desk, answered
from relprop.web.components import file_field
from relprop.web.gradio_here import gradio
from relprop.web.page_subject import PageSubject
from relprop.web.rows_files import FORMS, NumbersFile
from relprop.web.scripts import styled
from relprop.web.settings import PageSettings

PART, ALL = "rows", "all"
_HINT = '<p class="hint">Give a table (.csv), an array (.npy) or a sound (.wav), or choose an example.</p>'
_CHOOSE = '<p class="hint">Choose a row.</p>'


def add(subject: PageSubject, desk: Desk, examples: Sequence[Any] | None) -> None:
    """Adds the part to the page that is being made.

    Raises:
        InputError: an example is no file of numbers.
    """
    found = [rows_files.read(Path(each), subject, desk.limits) for each in examples or ()]
    RowsFields(subject, desk, found).add()


class RowsFields:
    """The fields of the part, and what they do."""

    def __init__(self, subject: PageSubject, desk: Desk, examples: list[NumbersFile]) -> None:
        self.subject, self.desk, self.examples = subject, desk, examples
        self.asked = controls.SettingsFields(subject, desk)
        self.part, self.part_all = desk.own(PART), desk.own(ALL)

    def add(self) -> None:
        """Adds the fields and their events."""
        gr = gradio()
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                self.file = file_field(
                    label="Table, array or sound",
                    file_types=list(rows_files.ENDINGS),
                    height=140,
                    elem_id=self.desk.own("file"),
                )
                self.chosen = gr.HTML(
                    styled(_buttons(self.examples)), js_on_load=scripts.CHOOSE, apply_default_css=False,
                    visible=bool(self.examples),
                )  # fmt: skip
                self.form = gr.Dropdown(
                    [("as the network takes it", "auto"), *((said, form) for form, said in FORMS.items())],
                    value="auto", label="How the file is read", elem_id=self.desk.own("form"),
                )  # fmt: skip
                self.without = gr.Dropdown(
                    [],
                    value=[],
                    multiselect=True,
                    label="Columns left out",
                    visible=False,
                    elem_id=self.desk.own("without"),
                )
                self.classes = gr.Radio(
                    label="The largest classes", choices=[], visible=False, elem_id=self.desk.own("classes")
                )
                self.asked.add()
            with gr.Column(scale=5, min_width=320):
                self.listed = gr.HTML(
                    styled(_HINT), js_on_load=scripts.CHOOSE, apply_default_css=False, elem_id=self.desk.own("rows")
                )
                with gr.Row():
                    self.start = gr.Number(
                        0,
                        label="Rows listed from",
                        precision=0,
                        minimum=0,
                        visible=False,
                        elem_id=self.desk.own("start"),
                    )
                    self.every = gr.Button(
                        "Which features matter in all rows", visible=False, elem_id=self.desk.own("every")
                    )
                self.maps = gr.HTML(styled(""), apply_default_css=False, elem_id=self.desk.own("maps"))
                self.kept = controls.Downloads(
                    downloads.OF_NUMBERS, self.desk, self.part, drawing=rows_answers.RowsAnswer.options, make=_file
                )
                self.kept.add()
                self.summed = gr.HTML(styled(""), apply_default_css=False, elem_id=self.desk.own("summed"))
                with gr.Column(visible=False) as self.more:
                    self.kept_all = controls.Downloads(
                        downloads.OF_NUMBERS, self.desk, self.part_all, drawing=lambda answer, settings: {}, make=_file_of_all, link=False
                    )  # fmt: skip
                    self.kept_all.add()
        programs.add(self.file, self._of_program, _values, row=True)
        self._listen()

    def _of_program(self, path: Path, settings: PageSettings) -> rows_answers.RowsAnswer:
        """The answer to a program. It is kept nowhere, and neither is the file."""
        try:
            file = rows_files.read(path, self.subject, self.desk.limits)
        finally:
            path.unlink(missing_ok=True)
        return self.desk.work.do("", lambda: self._ask(file, settings, "auto"))

    def _ask(self, file: NumbersFile, settings: PageSettings, form: str) -> rows_answers.RowsAnswer:
        return rows_answers.ask(self.subject, file, settings.row or 0, settings, self.desk.limits, form)

    @property
    def outputs(self) -> list[Any]:
        """What an answer fills."""
        return [self.maps, self.classes, *self.asked.classes, *self.kept.outputs]

    @property
    def lists(self) -> list[Any]:
        """What a new file fills beside that."""
        return [self.listed, self.start, self.every, self.without, self.summed, self.more]

    def _listen(self) -> None:
        one = {"concurrency_id": "explanation", "concurrency_limit": 1, "api_visibility": "private"}
        last = {**one, "trigger_mode": "always_last"}
        fields, asked = [self.form, *self.asked.fields], self.asked.fields
        link = controls.linked(self.kept.link)
        whole = [*self.lists, *self.outputs]
        self.file.upload(answered(self.new_file), [self.file, *fields], whole, **last).then(**link)
        self.file.clear(answered(self.cleared), None, whole, api_visibility="private")
        self.chosen.select(answered(self.new_example), fields, whole, **one).then(**link)
        self.form.input(answered(self.other_form), fields, whole, **last).then(**link)
        self.without.input(answered(self.other_columns), [self.without, *fields], whole, **last).then(**link)
        self.listed.select(answered(self.other_row), fields, self.outputs, **one).then(**link)
        self.classes.input(answered(self.other_class), [self.classes, *fields], self.outputs, **last).then(**link)
        for event in self.asked.events:
            event(answered(self.again), fields, self.outputs, **last, show_progress="minimal").then(**link)
        self.start.submit(answered(self.turned), [self.start, self.form], self.listed, **last)
        self.every.click(answered(self.all_rows), fields, [self.summed, self.more, *self.kept_all.outputs], **one)
        root = gradio().context.Context.root_block
        root.load(
            answered(self.restored), self.asked.query, [*asked, *whole], js=scripts.QUERY, **one
        ).then(**link)  # fmt: skip

    def new_file(self, path: Path | None, form: Any, *fields: Any, request: Any) -> Any:
        """Lists the rows of a file, and explains the first."""
        if path is None:
            return self.cleared()
        session = self.desk.sessions.of(str(request.session_hash))
        session.files.add(path)
        session.given[self.part] = (path, rows_files.read(path, self.subject, self.desk.limits), None)
        return self._whole(request, form, self._fresh(fields, None))

    def new_example(self, form: Any, *fields: Any, event: Any, request: Any) -> Any:
        """Lists the rows of an example, and explains the first."""
        number = controls.number_of(event, "n", len(self.examples))
        self.desk.sessions.of(str(request.session_hash)).given[self.part] = (None, self.examples[number], number)
        return self._whole(request, form, self._fresh(fields, number))

    def _fresh(self, fields: Sequence[Any], example: int | None) -> PageSettings:
        return self.asked.settings(fields).changed(target=None, against=None, example=example, row=None)

    def other_form(self, form: Any, *fields: Any, request: Any) -> Any:
        """Reads the same file in another form."""
        if self.part not in self.desk.sessions.of(str(request.session_hash)).given:
            return self.cleared()
        return self._whole(request, form, self._fresh(fields, self._given(request)[2]))

    def other_columns(self, without: Any, form: Any, *fields: Any, request: Any) -> Any:
        """Reads the same table without other columns."""
        path, file, number = self._given(request)
        if path is None or file.ending != ".csv":
            raise InputError("columns are left out of a table that was uploaded.")
        found = rows_files.read(path, self.subject, self.desk.limits, [str(each) for each in without or ()])
        self.desk.sessions.of(str(request.session_hash)).given[self.part] = (path, found, number)
        return self._whole(request, form, self._fresh(fields, number))

    def _given(self, request: Any) -> tuple[Path | None, NumbersFile, int | None]:
        """The file that a visitor asks about, where it lies, and which example it is.

        Raises:
            InputError: there is none.
        """
        found = self.desk.sessions.of(str(request.session_hash)).given.get(self.part)
        if found is None:
            raise InputError("there is no file yet: drop a table, an array or a sound, or choose an example.")
        path, file, number = found
        return path, file, number

    def _whole(self, request: Any, form: Any, settings: PageSettings) -> Any:
        gr = gradio()
        path, file, number = self._given(request)
        shown = self._answer(request, str(form), settings.changed(example=number))
        answer = self.desk.sessions.answer(str(request.session_hash), self.part)
        table = answer.form == "rows"
        columns = [*file.columns, *(visible(name, longest=80) for name in file.without)]
        return (
            styled(rows_answers.list_html(self.subject, file, answer.form, answer.row)),
            gr.update(visible=table and len(file.values) > rows_answers.LISTED, value=answer.row),
            gr.update(visible=table and len(file.values) > 1 and file.values.ndim == 2),
            gr.update(choices=columns, value=list(file.without), visible=path is not None and bool(file.columns)),
            styled(""), gr.update(visible=False), *shown,
        )  # fmt: skip

    def other_row(self, form: Any, *fields: Any, event: Any, request: Any) -> Any:
        """Explains another row for its own likeliest class."""
        _, file, number = self._given(request)
        row = controls.number_of(event, "n", len(file.values))
        settings = self.asked.settings(fields).changed(target=None, against=None, example=number, row=row)
        return self._answer(request, str(form), settings)

    def other_class(self, number: Any, form: Any, *fields: Any, request: Any) -> Any:
        """Explains another of the largest classes."""
        settings = self.asked.settings(fields, without=("target",)).changed(
            target=controls.whole(number, "the class"), **self._same(request)
        )
        return self._answer(request, str(form), settings)

    def again(self, form: Any, *fields: Any, request: Any) -> Any:
        """Explains the same row by other settings."""
        if self.part not in self.desk.sessions.of(str(request.session_hash)).given:
            return self.cleared()[len(self.lists) :]
        return self._answer(request, str(form), self.asked.settings(fields).changed(**self._same(request)))

    def _same(self, request: Any) -> dict[str, Any]:
        """The row and the example of the last answer."""
        before = self.desk.sessions.of(str(request.session_hash)).answers.get(self.part)
        return {} if before is None else {"row": before.row, "example": before.settings.example}

    def _answer(self, request: Any, form: str, settings: PageSettings) -> Any:
        name = str(request.session_hash)
        file = self._given(request)[1]
        answer = self.desk.work.do(name, lambda: self._ask(file, settings, form))
        self.desk.sessions.of(name).answers[self.part] = answer
        choices = [(controls.class_button(said, chance), number) for number, said, _, chance in answer.classes]
        chosen = answer.settings.target if any(n == answer.settings.target for _, n in choices) else None
        return (
            styled(rows_answers.answer_html(answer)),
            gradio().update(choices=choices, value=chosen, visible=bool(choices)),
            *self.asked.shown(answer.settings),
            *self.kept.shown(answer.code, answer.settings),
        )  # fmt: skip

    def turned(self, first: Any, form: Any, request: Any) -> Any:
        """Lists further rows."""
        _, file, _ = self._given(request)
        answer = self.desk.sessions.answer(str(request.session_hash), self.part)
        return styled(rows_answers.list_html(self.subject, file, answer.form, controls.whole(first, "the first row")))

    def all_rows(self, form: Any, *fields: Any, request: Any) -> Any:
        """Which features matter in all rows."""
        _, file, _ = self._given(request)
        settings = self.asked.settings(fields)
        name = str(request.session_hash)
        found = self.desk.work.do(
            name, lambda: rows_answers.ask_all(self.subject, file, settings, self.desk.limits, str(form))
        )  # fmt: skip
        self.desk.sessions.of(name).answers[self.part_all] = found
        shown = self.kept_all.shown(found.code, PageSettings())
        return (styled(rows_answers.all_rows_html(found)), gradio().update(visible=True), *shown)

    def restored(self, query: Any, request: Any) -> Any:
        """The settings of the page's address, and the answer if they name an example."""
        settings = PageSettings.of_link(self.desk.asked(query))
        fields = self.asked.restored(settings)
        if settings.example is None or settings.example >= len(self.examples):
            return (*fields, *[gradio().skip()] * (len(self.lists) + len(self.outputs)))
        number = settings.example
        self.desk.sessions.of(str(request.session_hash)).given[self.part] = (None, self.examples[number], number)
        return (*fields, *self._whole(request, "auto", settings))

    def cleared(self) -> Any:
        """Nothing is shown."""
        gr = gradio()
        hidden = gr.update(visible=False)
        return (
            styled(_HINT), hidden, hidden, hidden, styled(""), hidden, styled(""),
            gr.update(choices=[], value=None, visible=False), *self.asked.shown(PageSettings()), *self.kept.empty(),
        )  # fmt: skip


def _file(answer: rows_answers.RowsAnswer, kind: str) -> dict[str, str]:
    """A file of an answer: drawings have the channels of a series first, and data are as the network takes them."""
    data = kind in ("JSON", "CSV", "Folder")
    return downloads.made(
        answer.result if data else answer.drawn, kind, "relevance", {} if data else answer.options(answer.settings)
    )


def _file_of_all(found: rows_answers.AllRows, kind: str) -> dict[str, str]:
    """A file of what matters in all rows: numbers are their means, and drawings too."""
    return downloads.made(found.results[0], kind, "features", {})


def _values(answer: rows_answers.RowsAnswer) -> list[list[Any]]:
    """The relevance of each target and composite, in the shape of the input."""
    found = getattr(answer.result, "results", [[answer.result]])
    return [[each.values[0].tolist() for each in line] for line in found]


def _buttons(examples: Sequence[NumbersFile]) -> str:
    parts = [f'<button type="button" data-n="{n}">{escape(each.name)}</button>' for n, each in enumerate(examples)]
    return f'<div class="examples" role="group" aria-label="Examples">{"".join(parts)}</div>'
