"""The part of the page that explains pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from relprop.loading.photographs import PHOTOGRAPHS
from relprop.loading.samples import PICTURES
from relprop.web import controls, drawn, limits, pictures, programs, scripts, source, uploads
from relprop.web.answering import Desk, answered
from relprop.web.components import files_field, picture_field
from relprop.web.downloads import OF_PICTURES
from relprop.web.gradio_here import gradio
from relprop.web.network_part import LAST, ONE, NetworkPart, example_buttons, laid_out
from relprop.web.page_subject import PageSubject
from relprop.web.scripts import styled
from relprop.web.settings import PageSettings

PART = "picture"
_DRAW = '<p class="hint">Draw a rectangle on a map, or give its corners.</p>'
_HINT = '<p class="hint">Drop a picture, paste one, take one with the camera, or choose an example.</p>'


def add(subject: PageSubject, desk: Desk, examples: Sequence[Any] | None) -> None:
    """Adds the part to the page that is being made."""
    PictureFields(subject, desk, examples_of(examples)).add()


def examples_of(given: Sequence[Any] | None) -> list[tuple[str, Image.Image]]:
    """The names and pictures of examples: paths or pictures, or the photographs of the demonstration if they are installed.

    Raises:
        InputError: an example is no picture.
    """
    if given is None:
        try:
            return [(each.title, each.open()) for each in PHOTOGRAPHS]
        except ModuleNotFoundError:
            return []
    found = []
    for n, each in enumerate(given, 1):
        if isinstance(each, Image.Image):
            found.append((f"Example {n}", each.convert("RGB")))
        else:
            found.append(limits.picture(Path(each), limits.Limits()))
    return found


class PictureFields(NetworkPart):
    """The fields of the part, and what they do."""

    def __init__(self, subject: PageSubject, desk: Desk, examples: list[tuple[str, Image.Image]]) -> None:
        buttons = example_buttons([name for name, _ in examples], [thumbnail(picture) for _, picture in examples])
        super().__init__(subject, desk, PART, buttons)
        self.examples = examples

    def add(self) -> None:
        """Adds the fields and their events."""
        laid_out(
            [self._pictures, self.add_examples, self._several, self.add_classes],
            [self._maps, self._rectangle, self._kept],
        )
        programs.add_of_files(self.picture, self._of_program, _values)
        self._listen()

    def _pictures(self) -> None:
        self.picture = picture_field(
            label="Picture", sources=["upload", "clipboard", "webcam"], height=280, buttons=[],
            elem_classes="relprop-picture",
        )  # fmt: skip

    def _several(self) -> None:
        most = self.desk.limits.pictures
        with gradio().Accordion("Several pictures at once", open=False, elem_id=self.desk.own("several")):
            self.several = files_field(
                label=f"Pictures, {most} at most", file_count="multiple", file_types=list(PICTURES), height=140,
                elem_id=self.desk.own("pictures"),
            )  # fmt: skip

    def _maps(self) -> None:
        self.stage = self.html("maps", _HINT, scripts.RECTANGLE)

    def _rectangle(self) -> None:
        gr = gradio()
        with gr.Accordion("How much relevance lies in a rectangle", open=True):
            self.read = self.html("inside", _DRAW)
            with gr.Row():
                self.corners = [
                    gr.Number(
                        label=name, precision=0, minimum=0, min_width=70, elem_id=self.desk.own(f"corner-{name.lower()}")
                    )
                    for name in ("Left", "Top", "Right", "Bottom")
                ]  # fmt: skip

    def _kept(self) -> None:
        self.kept = controls.Downloads(OF_PICTURES, self.desk, self.part, drawing=pictures.PictureAnswer.options)
        self.kept.add()

    def _of_program(self, path: Path, settings: PageSettings) -> pictures.PictureAnswer:
        """The answer to a program. It is kept nowhere, and neither is the picture."""
        try:
            given = [limits.picture(path, self.desk.limits)]
        finally:
            uploads.delete(path)
        return self.desk.work.do("", lambda: pictures.ask(self.subject, given, settings))

    @property
    def outputs(self) -> list[Any]:
        """What an answer fills."""
        return [self.stage, self.classes, *self.asked.classes, self.read, *self.kept.outputs]

    def _listen(self) -> None:
        fields, link = self.asked.fields, controls.linked(self.kept.link)
        place = controls.AnswerPlace(self.stage, self.kept)
        for event in (self.picture.upload, self.picture.input):
            one = [self.several, *self.outputs]
            place.on(event, self.new_picture, [self.picture, *fields], one, **LAST).then(**link)
        place.on(
            self.several.upload, self.new_pictures, [self.several, *fields], [self.picture, *self.outputs], **LAST
        ).then(**link)
        for given in (self.picture, self.several):
            given.clear(answered(self.cleared), None, self.outputs, api_visibility="private")
        place.on(self.chosen.select, self.new_example, fields, [self.picture, self.several, *self.outputs], **ONE).then(
            **link
        )
        self.listen(place, fields, self.outputs, self.other_class, self.again)
        drawing = {"concurrency_id": "drawing", "concurrency_limit": 2, "api_visibility": "private"}
        drawing["show_progress"] = "hidden"
        for event in self.asked.drawing_events:
            place.on(
                event, self.redrawn, fields, [self.stage, *self.kept.outputs], **drawing, trigger_mode="always_last"
            ).then(**link)
        said = controls.told_at(self.read)
        self.stage.select(answered(self.rectangle, said), None, [self.read, *self.corners], **drawing)
        # One listener of all corners: of several, an older answer could come last.
        gradio().on(
            [corner.input for corner in self.corners], answered(self.corners_read, said), self.corners, self.read, **drawing,
            trigger_mode="always_last",
        )  # fmt: skip
        self.restore(place, self.restored, [self.picture, *fields, *self.outputs])

    def new_picture(self, path: Path | None, *fields: Any, request: Any) -> Any:
        """Explains a picture that was dropped, pasted or taken."""
        if path is None:
            return (None, *self.cleared())
        return (None, *self._new(request, [path], fields))

    def new_pictures(self, paths: list[Path], *fields: Any, request: Any) -> Any:
        """Explains several pictures at once."""
        if not paths:
            return (None, *self.cleared())
        return (None, *self._new(request, paths, fields))

    def _new(self, request: Any, paths: Sequence[Path], fields: Sequence[Any]) -> Any:
        session = self.desk.sessions.of(str(request.session_hash))
        session.files.update(paths)
        session.ask(self.part, limits.several(paths, self.desk.limits))
        return self._answer(request, self.asked.settings(fields).changed(target=None, against=None, example=None))

    def new_example(self, *fields: Any, event: Any, request: Any) -> Any:
        """Explains an example."""
        number = controls.number_of(event, "n", len(self.examples))
        settings = self.asked.settings(fields).changed(target=None, against=None, example=number)
        shown = self._example(request, number)
        return (shown, None, *self._answer(request, settings))

    def _example(self, request: Any, number: int) -> Image.Image:
        self.desk.sessions.of(str(request.session_hash)).ask(self.part, [self.examples[number]])
        return self.examples[number][1]

    def other_class(self, number: Any, *fields: Any, request: Any) -> Any:
        """Explains another of the largest classes."""
        settings = self.asked.settings(fields, without=("target",)).changed(target=controls.whole(number, "the class"))
        return self._answer(request, settings, self._same(request))

    def again(self, *fields: Any, request: Any) -> Any:
        """Explains the same picture by other settings."""
        if not self.desk.sessions.of(str(request.session_hash)).given.get(self.part):
            return self.cleared()
        return self._answer(request, self.asked.settings(fields), self._same(request))

    def _same(self, request: Any) -> int | None:
        before = self.desk.sessions.of(str(request.session_hash)).answers.get(self.part)
        return None if before is None else before.settings.example

    def _answer(self, request: Any, settings: PageSettings, example: int | None = None) -> Any:
        name = str(request.session_hash)
        session = self.desk.sessions.of(name)
        if example is not None:
            settings = settings.changed(example=example)
        given = session.given.get(self.part, [])

        def asked() -> tuple[pictures.PictureAnswer, str]:
            found = pictures.ask(self.subject, given, settings)
            return found, styled(drawn.maps_html(found, found.settings))

        answer, maps = self.desk.work.do(name, asked)
        shown = answer.settings
        session.keep(self.part, answer)
        return (
            maps, self.of_classes(answer), *self.asked.shown(shown), styled(_DRAW),
            *self.kept.shown(self._source(answer, shown), shown),
        )  # fmt: skip

    def _source(self, answer: pictures.PictureAnswer, settings: PageSettings) -> str:
        return source.of_pictures(self.subject, answer.names, settings, answer.columns, answer.settings)

    def redrawn(self, *fields: Any, request: Any) -> Any:
        """Draws the same maps in another way."""
        session = self.desk.sessions.of(str(request.session_hash))
        answer = session.answers.get(self.part)
        if self.part in session.failed:
            return [gradio().skip()] * (1 + len(self.kept.outputs))
        if answer is None:
            return (styled(_HINT), *self.kept.empty())
        asked = self.asked.settings(fields)
        settings = answer.settings.changed(strength=asked.strength, smooth=asked.smooth, percentile=asked.percentile)
        answer = controls.changed(answer, settings=settings)
        session.keep(self.part, answer)
        return (styled(drawn.maps_html(answer, settings)), *self.kept.shown(self._source(answer, settings), settings))

    def rectangle(self, event: Any, request: Any) -> Any:
        """How much relevance lies in a rectangle that was drawn."""
        answer = self.desk.sessions.answer(str(request.session_hash), self.part)
        high, wide = answer.inputs.shape[-2:]
        box = controls.box_of(event, wide, high)
        return (self._inside(answer, box), *box)

    def corners_read(self, *corners: Any, request: Any) -> Any:
        """How much relevance lies between corners that were typed."""
        if any(not isinstance(each, (int, float)) for each in corners):
            return styled('<p class="hint">Give all four corners, in pixels.</p>')
        left, top, right, bottom = map(int, corners)
        if right <= left or bottom <= top:
            return styled('<p class="hint">Right and bottom lie beyond left and top, in pixels.</p>')
        return self._inside(self.desk.sessions.answer(str(request.session_hash), self.part), (left, top, right, bottom))

    def _inside(self, answer: pictures.PictureAnswer, box: tuple[int, int, int, int]) -> str:
        return styled(drawn.parts_html(pictures.measure(answer, box), box))

    def restored(self, query: Any, request: Any) -> Any:
        """The settings of the page's address, and the answer if they name an example."""
        gr = gradio()
        settings = PageSettings.of_link(self.desk.asked(query))
        fields, nothing = self.asked.restored(settings), [gr.skip()] * len(self.outputs)
        if settings == PageSettings():  # a visitor may have begun to ask
            return (gr.skip(), *[gr.skip()] * len(fields), *nothing)
        if settings.example is None or settings.example >= len(self.examples):
            return (gr.skip(), *fields, *nothing)
        shown = self._example(request, settings.example)
        return (shown, *fields, *self._answer(request, settings))

    def cleared(self) -> Any:
        """Nothing is shown."""
        return (
            styled(_HINT), self.no_classes(), *self.asked.shown(PageSettings()), styled(""), *self.kept.empty(),
        )  # fmt: skip


def _values(answer: pictures.PictureAnswer) -> list[list[Any]]:
    """The map of each target and composite, rows of pixels, summed over colours."""
    return [[found.values[0].sum(0).tolist() for found in line] for line in answer.result.results]


def thumbnail(picture: Image.Image) -> str:
    """A small picture for the button of an example."""
    small = picture.copy()
    small.thumbnail((176, 176))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}" alt="">'
