"""The part of the page that explains tables, series and sounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from relprop.errors import InputError
from relprop.rendering.visible import visible
from relprop.web import controls, downloads, programs, rows_answers, rows_files, scripts, uploads
from relprop.web.answering import Desk, answered
from relprop.web.components import file_field
from relprop.web.gradio_here import gradio
from relprop.web.network_part import LAST, ONE, NetworkPart, example_buttons, laid_out
from relprop.web.page_subject import PageSubject
from relprop.web.rows_files import NumbersFile
from relprop.web.scripts import styled
from relprop.web.settings import FORMS, PageSettings

PART, ALL = "rows", "all"
_HINT = '<p class="hint">Give a table (.csv), an array (.npy) or a sound (.wav), or choose an example.</p>'


@dataclass(frozen=True, eq=False)
class AskedFile:
    """The file that a visitor asks about.

    Attributes:
        path: where it lies.
        file: its numbers.
        example: which example it is; None if it was uploaded.
        without: the columns that were chosen to be left out; None where the usual ones are.
    """

    path: Path
    file: NumbersFile
    example: int | None = None
    without: tuple[str, ...] | None = None


def add(subject: PageSubject, desk: Desk, examples: Sequence[Any] | None) -> None:
    """Adds the part to the page that is being made.

    Raises:
        InputError: an example is no file of numbers.
    """
    paths = [Path(each) for each in examples or ()]
    RowsFields(subject, desk, [AskedFile(path, rows_files.read(path, subject, desk.limits)) for path in paths]).add()


class RowsFields(NetworkPart):
    """The fields of the part, and what they do."""

    def __init__(self, subject: PageSubject, desk: Desk, examples: list[AskedFile]) -> None:
        super().__init__(subject, desk, PART, example_buttons([each.file.name for each in examples]))
        self.examples, self.part_all = examples, desk.own(ALL)

    def add(self) -> None:
        """Adds the fields and their events."""
        laid_out(
            [self._file, self.add_examples, self._reading, self.add_classes],
            [self._list, self._maps, self._summary],
        )
        programs.add_of_files(self.file, self._of_program, _values, rows=True)
        self._listen()

    def _file(self) -> None:
        self.file = file_field(
            label="Table, array or sound", file_types=list(rows_files.ENDINGS), height=140, elem_id=self.desk.own("file")
        )  # fmt: skip

    def _reading(self) -> None:
        gr = gradio()
        self.form = gr.Dropdown(
            [("as the network takes it", "auto"), *((said, form) for form, said in FORMS.items())],
            value="auto", label="How the file is read", elem_id=self.desk.own("form"),
        )  # fmt: skip
        self.without = gr.Dropdown(
            [], value=[], multiselect=True, label="Columns left out", visible=False, elem_id=self.desk.own("without")
        )  # fmt: skip

    def _list(self) -> None:
        gr = gradio()
        self.listed = self.html("rows", _HINT, scripts.CHOOSE)
        with gr.Row():
            self.start = gr.Number(
                0, label="Rows listed from", precision=0, minimum=0, visible=False, elem_id=self.desk.own("start")
            )  # fmt: skip
            self.every = gr.Button("Which features matter in all rows", visible=False, elem_id=self.desk.own("every"))

    def _maps(self) -> None:
        self.maps = self.html("maps")
        self.kept = controls.Downloads(
            downloads.OF_NUMBERS, self.desk, self.part, drawing=rows_answers.RowsAnswer.options, make=_file_of_row
        )
        self.kept.add()

    def _summary(self) -> None:
        self.summed = self.html("summed")
        with gradio().Column(visible=False) as self.more:
            self.kept_all = controls.Downloads(
                downloads.OF_NUMBERS, self.desk, self.part_all, drawing=lambda answer, settings: {}, make=_file_of_all, link=False
            )  # fmt: skip
            self.kept_all.add()

    def _of_program(self, path: Path, settings: PageSettings) -> rows_answers.RowsAnswer:
        """The answer to a program. It is kept nowhere, and neither is the file."""
        try:
            file = rows_files.read(path, self.subject, self.desk.limits, settings.without)
        finally:
            uploads.delete(path)
        return self.desk.work.do("", lambda: self._ask(file, settings))

    def _ask(self, file: NumbersFile, settings: PageSettings) -> rows_answers.RowsAnswer:
        return rows_answers.ask(self.subject, file, settings, self.desk.limits)

    @property
    def outputs(self) -> list[Any]:
        """What an answer fills."""
        return [self.maps, self.classes, *self.asked.classes, *self.kept.outputs]

    @property
    def lists(self) -> list[Any]:
        """What a new file fills beside that."""
        return [self.listed, self.start, self.every, self.without, self.summed, self.more]

    def _listen(self) -> None:
        fields = [self.form, *self.asked.fields]
        link, whole = controls.linked(self.kept.link), [*self.lists, *self.outputs]
        place = controls.AnswerPlace(self.maps, self.kept)
        place.on(self.file.upload, self.new_file, [self.file, *fields], whole, **LAST).then(**link)
        self.file.clear(answered(self.cleared), None, whole, api_visibility="private")
        place.on(self.chosen.select, self.new_example, fields, whole, **ONE).then(**link)
        place.on(self.form.input, self.other_form, fields, whole, **LAST).then(**link)
        place.on(self.without.input, self.other_columns, [self.without, *fields], whole, **LAST).then(**link)
        place.on(self.listed.select, self.other_row, fields, self.outputs, **ONE).then(**link)
        self.listen(place, fields, self.outputs, self.other_class, self.again)
        self.start.submit(answered(self.turned, controls.kept_as_it_is(self.listed)), self.start, self.listed, **LAST)
        controls.AnswerPlace(self.summed, self.kept_all).on(
            self.every.click, self.all_rows, fields, [self.summed, self.more, *self.kept_all.outputs], **ONE
        )
        self.restore(place, self.restored, [*fields, *whole])

    def _settings(self, form: Any, fields: Sequence[Any], **changed: Any) -> PageSettings:
        """The settings that the fields hold, of another class or row."""
        settings = self.asked.settings(fields, without=("target",) if "target" in changed else ())
        return settings.changed(form=str(form or "auto"), **changed)

    def new_file(self, path: Path | None, form: Any, *fields: Any, request: Any) -> Any:
        """Lists the rows of a file, and explains the first."""
        if path is None:
            return self.cleared()
        session = self.desk.sessions.of(str(request.session_hash))
        session.files.add(path)
        # A link may have named columns of the first file that is given.
        without = session.given.pop(f"{self.part} without", None)
        try:
            given = self._read(path, None, without)
        except InputError:
            if without is None:
                raise
            given = self._read(path, None, None)
        session.ask(self.part, given)
        return self._whole(request, self._settings(form, fields, target=None, against=None, row=None))

    def _read(self, path: Path, example: int | None, without: tuple[str, ...] | None) -> AskedFile:
        return AskedFile(
            path, rows_files.read(path, self.subject, self.desk.limits, without), example, without
        )  # fmt: skip

    def new_example(self, form: Any, *fields: Any, event: Any, request: Any) -> Any:
        """Lists the rows of an example, and explains the first."""
        number = controls.number_of(event, "n", len(self.examples))
        self._choose(request, number, None)
        return self._whole(request, self._settings(form, fields, target=None, against=None, row=None))

    def _choose(self, request: Any, number: int, without: tuple[str, ...] | None) -> None:
        example = replace(self.examples[number], example=number)
        given = example if without is None else self._read(example.path, number, without)
        self.desk.sessions.of(str(request.session_hash)).ask(self.part, given)

    def other_form(self, form: Any, *fields: Any, request: Any) -> Any:
        """Reads the same file in another form."""
        if self.part not in self.desk.sessions.of(str(request.session_hash)).given:
            return self.cleared()
        return self._whole(request, self._settings(form, fields, target=None, against=None, row=None))

    def other_columns(self, without: Any, form: Any, *fields: Any, request: Any) -> Any:
        """Reads the same table without other columns."""
        given = self._given(request)
        if given.file.ending != ".csv":
            raise InputError("columns are left out of a table (.csv).")
        found = self._read(given.path, given.example, tuple(str(each) for each in without or ()))
        self.desk.sessions.of(str(request.session_hash)).ask(self.part, found)
        return self._whole(request, self._settings(form, fields, target=None, against=None, row=None))

    def _given(self, request: Any) -> AskedFile:
        """The file that a visitor asks about.

        Raises:
            InputError: there is none.
        """
        found = self.desk.sessions.of(str(request.session_hash)).given.get(self.part)
        if found is None:
            raise InputError("there is no file yet: drop a table, an array or a sound, or choose an example.")
        return cast(AskedFile, found)

    def _whole(self, request: Any, settings: PageSettings) -> Any:
        gr = gradio()
        file = self._given(request).file
        shown = self._answer(request, settings)
        answer = self.desk.sessions.answer(str(request.session_hash), self.part)
        table = answer.form == "rows"
        left = [visible(name, longest=80) for name in file.without]
        return (
            styled(rows_answers.list_html(self.subject, file, answer.form, answer.row)),
            gr.update(visible=table and len(file.values) > rows_answers.LISTED, value=answer.row),
            gr.update(visible=table and len(file.values) > 1 and file.values.ndim == 2),
            gr.update(choices=[*file.columns, *left], value=left, visible=bool(file.columns)),
            styled(""), gr.update(visible=False), *shown,
        )  # fmt: skip

    def other_row(self, form: Any, *fields: Any, event: Any, request: Any) -> Any:
        """Explains another row for its own likeliest class."""
        row = controls.number_of(event, "n", len(self._given(request).file.values))
        return self._answer(request, self._settings(form, fields, target=None, against=None, row=row))

    def other_class(self, number: Any, form: Any, *fields: Any, request: Any) -> Any:
        """Explains another of the largest classes."""
        target = controls.whole(number, "the class")
        return self._answer(request, self._settings(form, fields, target=target, row=self._row(request)))

    def again(self, form: Any, *fields: Any, request: Any) -> Any:
        """Explains the same row by other settings."""
        if self.part not in self.desk.sessions.of(str(request.session_hash)).given:
            return self.cleared()[len(self.lists) :]
        return self._answer(request, self._settings(form, fields, row=self._row(request)))

    def _row(self, request: Any) -> int | None:
        """The row of the last answer."""
        before = self.desk.sessions.of(str(request.session_hash)).answers.get(self.part)
        return None if before is None else cast(int, before.row)

    def _answer(self, request: Any, settings: PageSettings) -> Any:
        name, given = str(request.session_hash), self._given(request)
        settings = settings.changed(example=given.example, without=given.without)
        answer = self.desk.work.do(name, lambda: self._ask(given.file, settings))
        self.desk.sessions.of(name).keep(self.part, answer)
        return (
            styled(rows_answers.answer_html(answer)), self.of_classes(answer), *self.asked.shown(answer.settings),
            *self.kept.shown(answer.code, answer.settings),
        )  # fmt: skip

    def turned(self, first: Any, request: Any) -> Any:
        """Lists further rows."""
        file = self._given(request).file
        answer = self.desk.sessions.answer(str(request.session_hash), self.part)
        return styled(rows_answers.list_html(self.subject, file, answer.form, controls.whole(first, "the first row")))

    def all_rows(self, form: Any, *fields: Any, request: Any) -> Any:
        """Which features matter in all rows."""
        file, settings = self._given(request).file, self._settings(form, fields)
        name = str(request.session_hash)
        found = self.desk.work.do(
            name, lambda: rows_answers.ask_all(self.subject, file, settings, self.desk.limits)
        )  # fmt: skip
        self.desk.sessions.of(name).keep(self.part_all, found)
        shown = self.kept_all.shown(found.code, PageSettings())
        return (styled(rows_answers.all_rows_html(found)), gradio().update(visible=True), *shown)

    def restored(self, query: Any, request: Any) -> Any:
        """The settings of the page's address, and the answer if they name an example."""
        settings = PageSettings.of_link(self.desk.asked(query))
        fields = (settings.form, *self.asked.restored(settings))
        if settings == PageSettings():  # a visitor may have begun to ask
            return [gradio().skip()] * (len(fields) + len(self.lists) + len(self.outputs))
        if settings.example is None or settings.example >= len(self.examples):
            self.desk.sessions.of(str(request.session_hash)).ask(f"{self.part} without", settings.without)
            return (*fields, *[gradio().skip()] * (len(self.lists) + len(self.outputs)))
        self._choose(request, settings.example, settings.without)
        return (*fields, *self._whole(request, settings))

    def cleared(self) -> Any:
        """Nothing is shown."""
        gr = gradio()
        hidden = gr.update(visible=False)
        return (
            styled(_HINT), hidden, hidden, hidden, styled(""), hidden, styled(""), self.no_classes(),
            *self.asked.shown(PageSettings()), *self.kept.empty(),
        )  # fmt: skip


def _file_of_row(answer: rows_answers.RowsAnswer, kind: str) -> dict[str, str]:
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
