"""The part of the page that explains pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from relprop.loading.photographs import PHOTOGRAPHS
from relprop.web import controls, drawn, limits, pictures, programs, scripts, source
from relprop.web.answering import Desk, answered
from relprop.web.components import picture_field
from relprop.web.downloads import OF_PICTURES
from relprop.web.gradio_here import gradio
from relprop.web.page_subject import PageSubject
from relprop.web.scripts import styled
from relprop.web.settings import PageSettings

PART = "picture"
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


class PictureFields:
    """The fields of the part, and what they do."""

    def __init__(self, subject: PageSubject, desk: Desk, examples: list[tuple[str, Image.Image]]) -> None:
        self.subject, self.desk, self.examples = subject, desk, examples
        self.asked = controls.SettingsFields(subject, desk)
        self.part = desk.own(PART)

    def add(self) -> None:
        """Adds the fields and their events."""
        gr = gradio()
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                self.picture = picture_field(
                    label="Picture", sources=["upload", "clipboard", "webcam"], height=280,
                    buttons=[], elem_classes="relprop-picture",
                )  # fmt: skip
                self.chosen = gr.HTML(
                    styled(thumbnails(self.examples)),
                    js_on_load=scripts.CHOOSE,
                    apply_default_css=False,
                    visible=bool(self.examples),
                )
                self.classes = gr.Radio(
                    label="The largest classes", choices=[], visible=False, elem_id=self.desk.own("classes")
                )
                self.asked.add()
            with gr.Column(scale=5, min_width=320):
                self.stage = gr.HTML(
                    styled(_HINT), js_on_load=scripts.RECTANGLE, apply_default_css=False, elem_id=self.desk.own("maps")
                )
                with gr.Accordion("How much relevance lies in a rectangle", open=True):
                    self.read = gr.HTML(
                        styled('<p class="hint">Draw a rectangle on a map, or give its corners.</p>'),
                        elem_id=self.desk.own("inside"),
                        apply_default_css=False,
                    )
                    with gr.Row():
                        self.corners = [
                            gr.Number(
                                label=name,
                                precision=0,
                                minimum=0,
                                min_width=70,
                                elem_id=self.desk.own(f"corner-{name.lower()}"),
                            )
                            for name in ("Left", "Top", "Right", "Bottom")
                        ]
                self.kept = controls.Downloads(
                    OF_PICTURES, self.desk, self.part, drawing=pictures.PictureAnswer.options
                )
                self.kept.add()
        programs.add(self.picture, self._of_program, _values)
        self._listen(gr)

    def _of_program(self, path: Path, settings: PageSettings) -> pictures.PictureAnswer:
        """The answer to a program. It is kept nowhere, and neither is the picture."""
        try:
            given = [limits.picture(path, self.desk.limits)]
        finally:
            path.unlink(missing_ok=True)
        return self.desk.work.do("", lambda: pictures.ask(self.subject, given, settings))

    @property
    def outputs(self) -> list[Any]:
        """What an answer fills."""
        return [self.stage, self.classes, *self.asked.classes, self.read, *self.kept.outputs]

    def _listen(self, gr: Any) -> None:
        one = {"concurrency_id": "explanation", "concurrency_limit": 1, "api_visibility": "private"}
        fields = self.asked.fields
        for event in (self.picture.upload, self.picture.input):
            event(
                answered(self.new_picture), [self.picture, *fields], self.outputs, **one, trigger_mode="always_last"
            ).then(**controls.linked(self.kept.link))
        self.picture.clear(answered(self.cleared), None, self.outputs, api_visibility="private")
        self.chosen.select(answered(self.new_example), fields, [self.picture, *self.outputs], **one).then(
            **controls.linked(self.kept.link)
        )
        self.classes.input(
            answered(self.other_class), [self.classes, *fields], self.outputs, **one, trigger_mode="always_last"
        ).then(**controls.linked(self.kept.link))
        for event in self.asked.events:
            event(
                answered(self.again), fields, self.outputs, **one, trigger_mode="always_last", show_progress="minimal"
            ).then(**controls.linked(self.kept.link))
        drawing = {"concurrency_id": "drawing", "concurrency_limit": 2, "api_visibility": "private"}
        for event in self.asked.drawing_events:
            event(
                answered(self.redrawn), fields, [self.stage, *self.kept.outputs], **drawing, trigger_mode="always_last",
                show_progress="hidden",
            ).then(**controls.linked(self.kept.link))  # fmt: skip
        self.stage.select(answered(self.rectangle), None, [self.read, *self.corners], **drawing, show_progress="hidden")
        # One listener of all corners: of several, an older answer could come last.
        gr.on(
            [corner.input for corner in self.corners], answered(self.corners_read), self.corners, self.read, **drawing,
            show_progress="hidden", trigger_mode="always_last",
        )  # fmt: skip
        root = gr.context.Context.root_block
        root.load(
            answered(self.restored),
            self.asked.query,
            [self.picture, *self.asked.fields, *self.outputs],
            js=scripts.QUERY,
            **one,
        ).then(**controls.linked(self.kept.link))

    def new_picture(self, path: Path | None, *fields: Any, request: Any) -> Any:
        """Explains a picture that was dropped, pasted or taken."""
        if path is None:
            return self.cleared()
        session = self.desk.sessions.of(str(request.session_hash))
        session.files.add(path)
        session.given[self.part] = [limits.picture(path, self.desk.limits)]
        settings = self.asked.settings(fields).changed(target=None, against=None, example=None)
        return self._answer(request, settings)

    def new_example(self, *fields: Any, event: Any, request: Any) -> Any:
        """Explains an example."""
        number = controls.number_of(event, "n", len(self.examples))
        settings = self.asked.settings(fields).changed(target=None, against=None, example=number)
        shown = self._example(request, number)
        return (shown, *self._answer(request, settings))

    def _example(self, request: Any, number: int) -> Image.Image:
        self.desk.sessions.of(str(request.session_hash)).given[self.part] = [self.examples[number]]
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
        answer = self.desk.work.do(name, lambda: pictures.ask(self.subject, given, settings))
        session.answers[self.part] = answer
        return self._shown(answer)

    def _shown(self, answer: pictures.PictureAnswer) -> Any:
        gr = gradio()
        settings = answer.settings
        choices = [(controls.class_button(name, chance), number) for number, name, _, chance in answer.classes]
        chosen = settings.target if any(number == settings.target for _, number in choices) else None
        return (
            styled(drawn.maps_html(answer, settings)),
            gr.update(choices=choices, value=chosen, visible=bool(choices)),
            *self.asked.shown(settings),
            styled('<p class="hint">Draw a rectangle on a map, or give its corners.</p>'),
            *self.kept.shown(self._source(answer, settings), settings),
        )

    def _source(self, answer: pictures.PictureAnswer, settings: PageSettings) -> str:
        return source.of_pictures(self.subject, answer.names, settings, answer.columns, answer.settings)

    def redrawn(self, *fields: Any, request: Any) -> Any:
        """Draws the same maps in another way."""
        session = self.desk.sessions.of(str(request.session_hash))
        answer = session.answers.get(self.part)
        if answer is None:
            return (styled(_HINT), *self.kept.empty())
        asked = self.asked.settings(fields)
        settings = answer.settings.changed(strength=asked.strength, smooth=asked.smooth, percentile=asked.percentile)
        answer = session.answers[self.part] = controls.changed(answer, settings=settings)
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
        fields = self.asked.restored(settings)
        nothing = [gr.skip()] * len(self.outputs)
        if settings.example is None or settings.example >= len(self.examples):
            return (gr.skip(), *fields, *nothing)
        shown = self._example(request, settings.example)
        return (shown, *fields, *self._answer(request, settings))

    def cleared(self) -> Any:
        """Nothing is shown."""
        gr = gradio()
        hidden = gr.update(choices=[], value=None, visible=False)
        return (styled(_HINT), hidden, *self.asked.shown(PageSettings()), styled(""), *self.kept.empty())


def _values(answer: pictures.PictureAnswer) -> list[list[Any]]:
    """The map of each target and composite, rows of pixels, summed over colours."""
    return [[found.values[0].sum(0).tolist() for found in line] for line in answer.result.results]


def thumbnails(examples: Sequence[tuple[str, Image.Image]]) -> str:
    """The examples as buttons."""
    parts = []
    for n, (name, picture) in enumerate(examples):
        small = picture.copy()
        small.thumbnail((176, 176))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=85)
        data = base64.b64encode(buffer.getvalue()).decode()
        parts.append(
            f'<button type="button" data-n="{n}"><img src="data:image/jpeg;base64,{data}" alt="">{escape(name)}</button>'
        )
    return f'<div class="examples" role="group" aria-label="Examples">{"".join(parts)}</div>'
