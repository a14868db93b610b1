"""The fields that several parts of the page share: what is asked, what is kept, and the values that come from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from relprop.errors import InputError
from relprop.web import downloads, scripts
from relprop.web.answering import Desk, answered
from relprop.web.components import choices_of
from relprop.web.gradio_here import gradio
from relprop.web.page_subject import PageSubject
from relprop.web.rule_fields import RuleFields
from relprop.web.settings import PageSettings, settings_of

_ASKED = ("target", "against", "strength", "smooth", "percentile")


class Linked(Protocol):
    """Settings that become a link."""

    def link(self) -> str:
        """The part of a link that restores them."""


NOTHING = "nothing"
"""The choice of no class."""


class SettingsFields:
    """The fields of the settings."""

    def __init__(self, subject: PageSubject, desk: Desk) -> None:
        self.subject, self.desk = subject, desk
        self.pictures = subject.reads == "picture"
        self.rules = RuleFields(desk, self.pictures)

    def add(self) -> None:
        """Adds the fields."""
        gr = gradio()
        usual = PageSettings()
        labels = choices_of(self.subject.labels)
        self.query = gr.Textbox(visible=False)
        if labels:
            of = [("the likeliest", NOTHING), *labels]
            self.target = gr.Dropdown(of, value=NOTHING, label="Class", elem_id=self.desk.own("target"))
            self.against = gr.Dropdown(
                [("nothing", NOTHING), *labels], value=NOTHING, label="Against", elem_id=self.desk.own("against")
            )
        else:
            # An empty field of numbers sends 0, which is a class.
            self.target = gr.Textbox(
                label="Class (number; empty is the likeliest)",
                max_length=10,
                elem_id=self.desk.own("target"),
                submit_btn=False,
            )
            self.against = gr.Textbox(
                label="Against (number)", max_length=10, elem_id=self.desk.own("against"), submit_btn=False
            )
        self.rules.add()
        with gr.Accordion("Drawing", open=False, visible=self.pictures):
            self.strength = gr.Slider(0, 1, value=usual.strength, step=0.05, label="Strength of the map on the picture")
            self.smooth = gr.Slider(1, 16, value=usual.smooth, step=1, label="Smoothing: side of the box, in pixels")
            self.percentile = gr.Slider(
                90, 100, value=usual.percentile, step=0.1, label="Percentile at which the colours end"
            )

    @property
    def fields(self) -> list[Any]:
        """The fields, in the order in which their values come."""
        return [self.target, self.against, *self.rules.fields, self.strength, self.smooth, self.percentile]

    @property
    def classes(self) -> list[Any]:
        """The fields of classes, which an answer sets."""
        return [self.target, self.against]

    @property
    def events(self) -> list[Any]:
        """The events that ask again."""
        typed = (
            [self.target.input, self.against.input]
            if self.subject.labels
            else [self.target.submit, self.against.submit]
        )
        return [*typed, *self.rules.events]

    @property
    def drawing_events(self) -> list[Any]:
        """The events that draw again. Keys of a slider trigger no `release`."""
        return [self.strength.input, self.smooth.input, self.percentile.input]

    def settings(self, values: Sequence[Any], without: Sequence[str] = ()) -> PageSettings:
        """The settings that the fields hold.

        Raises:
            InputError: a value is none.
        """
        found = dict(zip(_ASKED, (*values[:2], *values[6:9]), strict=True))
        for name in ("target", "against"):
            if found[name] == NOTHING or name in without:
                found[name] = None
        return settings_of(found | self.rules.values(values[2:6]))

    def shown(self, settings: PageSettings) -> list[Any]:
        """The values of the fields of classes."""
        return [self._class(settings.target), self._class(settings.against)]

    def _class(self, number: int | None) -> Any:
        nothing = NOTHING if self.subject.labels else ""
        return nothing if number is None else str(number)

    def restored(self, settings: PageSettings) -> list[Any]:
        """The values of all fields."""
        return [
            *self.shown(settings), *self.rules.restored(settings), settings.strength, settings.smooth, settings.percentile,
        ]  # fmt: skip


class Downloads:
    """What a visitor takes along: files, the code, the link."""

    def __init__(
        self,
        formats: Sequence[str],
        desk: Desk,
        part: str,
        drawing: Callable[[Any, PageSettings], dict[str, Any]],
        make: Callable[[Any, str], dict[str, str]] | None = None,
        link: bool = True,
    ) -> None:
        self.formats, self.desk, self.part, self.drawing = formats, desk, part, drawing
        self.make, self.linked = make, link

    def add(self) -> None:
        """Adds the fields and their events."""
        gr = gradio()
        self.file = gr.JSON(visible=False)
        with gr.Row(elem_classes="relprop-downloads"):
            for kind in self.formats:
                button = gr.Button(kind, size="sm", min_width=60, elem_id=f"download-{kind.lower()}-{self.part}")
                button.click(
                    answered(self._maker(kind)), None, self.file, api_visibility="private", concurrency_id="drawing",
                    concurrency_limit=2, show_progress="hidden",
                ).success(None, self.file, None, js=scripts.SAVE, api_visibility="private")  # fmt: skip
        with gr.Accordion("The code that made this", open=False):
            # The colours of Gradio's own field of code are too faint, and the Tab key does not reach it.
            self.code = gr.HTML(scripts.code(""), apply_default_css=False, elem_id=f"code-{self.part}")
            copy = gr.Button("Copy", size="sm", elem_id=f"copy-{self.part}")
            copy.click(None, self.code, None, js=scripts.COPY, api_visibility="private")
        self.link = gr.Textbox(
            label="Link to these settings (what was uploaded is not in it)", interactive=False, buttons=["copy"],
            visible=self.linked, elem_id=f"link-{self.part}",
        )  # fmt: skip

    @property
    def outputs(self) -> list[Any]:
        """What an answer fills."""
        return [self.code, self.link]

    def shown(self, code: str, settings: Linked) -> list[Any]:
        """The values of the fields."""
        return [scripts.code(code), self.desk.linked(settings.link())]

    def empty(self) -> list[Any]:
        """The values where nothing is shown."""
        return [scripts.code(""), ""]

    def _maker(self, kind: str) -> Callable[..., Any]:
        def make(request: Any) -> Any:
            answer = self.desk.sessions.answer(str(request.session_hash), self.part)
            if self.make is not None:
                return self.make(answer, kind)
            return downloads.made(answer.result, kind, "relevance", self.drawing(answer, answer.settings))

        return make


class AnswerPlace:
    """Where a view shows its answer, or says in one line why there is none. Gradio would write "Error" on each field.

    Args:
        shown: the field of our HTML.
        kept: what a visitor takes along of an answer.
    """

    def __init__(self, shown: Any, kept: Downloads) -> None:
        self.shown, self.kept = shown, kept

    def on(self, event: Any, act: Callable[..., Any], inputs: Any, outputs: Sequence[Any], **given: Any) -> Any:
        """Lets an event ask. The outputs hold `shown` and those of `kept`; progress is shown in the one place."""
        return event(answered(act, self._failed), inputs, outputs, show_progress_on=self.shown, **given)

    def _failed(self, line: str, request: Any) -> dict[Any, Any]:
        """The values where there is no answer: the line that says why, and nothing that belonged to an earlier answer."""
        self.kept.desk.sessions.of(str(request.session_hash)).fail(self.kept.part)
        return {self.shown: scripts.failed(line), **dict(zip(self.kept.outputs, self.kept.empty(), strict=True))}


def told_at(place: Any) -> Callable[[str, Any], dict[Any, Any]]:
    """For `answered`: a field of our HTML says why there is no answer."""
    return lambda line, request: {place: scripts.failed(line)}


def kept_as_it_is(place: Any) -> Callable[[str, Any], dict[Any, Any]]:
    """For `answered`: only the message says why there is no answer, and the fields stay."""
    return lambda line, request: {place: gradio().skip()}


def opened(restored: Callable[..., Any], outputs: Sequence[Any], links: Sequence[Any]) -> Callable[..., Any]:
    """For the event of opening a page, which brings the page's whole address (`scripts.ADDRESS`).

    The links that it fills are whole, too. An event of their own after it could come after what a visitor has asked meanwhile.

    Args:
        restored: takes the settings of an address and the request, and returns the values of the outputs.
        outputs: the fields.
        links: those of them that hold links.
    """
    places = [n for n, field in enumerate(outputs) if any(field is link for link in links)]

    def act(address: Any, request: Any) -> list[Any]:
        page, mark, settings = str(address or "").partition("?")
        values = list(restored(mark + settings, request=request))
        for n in places:
            if isinstance(values[n], str) and values[n].startswith("?"):
                values[n] = page + values[n]
        return values

    return act


def linked(link: Any) -> dict[str, Any]:
    """The event that makes the whole link of a query."""
    return {
        "fn": None, "inputs": link, "outputs": link, "js": scripts.LINK, "api_visibility": "private",
    }  # fmt: skip


def class_button(name: str, chance: float | None) -> str:
    """What the button of a class says."""
    return name if chance is None else f"{name} · {chance:.1%}"


def changed(answer: Any, **values: Any) -> Any:
    """The same answer with other values."""
    return replace(answer, **values)


def whole(value: Any, what: str) -> int:
    """A whole number that a field holds.

    Raises:
        InputError: it holds none.
    """
    try:
        if isinstance(value, bool) or len(str(value)) > 20 or float(value) != int(float(value)) or float(value) < 0:
            raise ValueError
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{what} is {str(value)[:40]!r}; it must be a whole number, from 0.") from None


def number_of(event: Any, name: str, count: int) -> int:
    """A number below `count` that an event brings.

    Raises:
        InputError: it brings none.
    """
    data = getattr(event, "_data", None)
    number = data.get(name) if isinstance(data, dict) else None
    if type(number) is not int or not 0 <= number < count:
        raise InputError(f"there is no choice {str(number)[:40]!r}; they are numbered from 0 to {count - 1}.")
    return number


def box_of(event: Any, wide: int, high: int) -> tuple[int, int, int, int]:
    """A rectangle in pixels, from corners that an event brings as parts of the sides.

    Raises:
        InputError: it brings none.
    """
    data = getattr(event, "_data", None)
    parts = data.get("box") if isinstance(data, dict) else None
    if (
        not isinstance(parts, list)
        or len(parts) != 4
        or not all(type(each) in (int, float) and 0 <= each <= 1 for each in parts)  # NaN lies nowhere
    ):
        raise InputError("a rectangle has four corners, as parts of the picture from 0 to 1.")
    left, top = math.floor(parts[0] * wide), math.floor(parts[1] * high)
    return left, top, max(math.ceil(parts[2] * wide), left + 1), max(math.ceil(parts[3] * high), top + 1)
