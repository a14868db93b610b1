"""How the parts of the page that ask a network lay out: what is asked on the left, what is answered on the right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from relprop.web import controls, scripts
from relprop.web.answering import Desk
from relprop.web.gradio_here import gradio
from relprop.web.page_subject import PageSubject
from relprop.web.scripts import styled

ONE = {"concurrency_id": "explanation", "concurrency_limit": 1, "api_visibility": "private"}
"""Of the events that explain: one at a time."""
LAST = {**ONE, "trigger_mode": "always_last"}
"""Of those that a visitor may repeat before the answer comes: the last one is answered."""


def laid_out(
    asked: Sequence[Callable[[], None]], shown: Sequence[Callable[[], None]]
) -> None:  # fmt: skip
    """Adds the fields of a part: what is asked on the left, what is answered on the right, or below on a narrow page."""
    gr = gradio()
    with gr.Row():
        for scale, adds in ((2, asked), (5, shown)):
            with gr.Column(scale=scale, min_width=320):
                for add in adds:
                    add()


def example_buttons(names: Sequence[str], pictures: Sequence[str] = ()) -> str:
    """The examples as buttons, with small pictures of those that are pictures."""
    parts = [
        f'<button type="button" data-n="{n}">{pictures[n] if pictures else ""}{escape(name)}</button>'
        for n, name in enumerate(names)
    ]
    return f'<div class="examples" role="group" aria-label="Examples">{"".join(parts)}</div>' if parts else ""


class NetworkPart:
    """A part that asks a network for classes, and shows why.

    Args:
        subject: the network.
        desk: what the parts of the page share.
        part: the name of the part.
        examples: the examples as buttons.
    """

    def __init__(self, subject: PageSubject, desk: Desk, part: str, examples: str) -> None:
        self.subject, self.desk = subject, desk
        self.part, self.buttons = desk.own(part), examples
        self.asked = controls.SettingsFields(subject, desk)
        self.kept: controls.Downloads

    def add_examples(self) -> None:
        """Adds the examples."""
        self.chosen = gradio().HTML(
            styled(self.buttons), js_on_load=scripts.CHOOSE, apply_default_css=False, visible=bool(self.buttons)
        )

    def add_classes(self) -> None:
        """Adds the buttons of the largest classes, and the fields of the settings."""
        self.classes = gradio().Radio(
            label="The largest classes", choices=[], visible=False, elem_id=self.desk.own("classes")
        )
        self.asked.add()

    def html(self, name: str, value: str = "", script: str = "", **given: Any) -> Any:
        """A field of our HTML; `script` runs where it is shown."""
        more = {"js_on_load": script} if script else {}
        return gradio().HTML(
            styled(value), apply_default_css=False, elem_id=self.desk.own(name), **more, **given
        )  # fmt: skip

    def listen(
        self, place: controls.AnswerPlace, inputs: Sequence[Any], outputs: Sequence[Any], other: Any, again: Any
    ) -> None:  # fmt: skip
        """Explains another class where its button is pressed, and asks again where a setting is changed.

        Args:
            place: where the answer is shown.
            inputs: the fields whose values the functions take.
            outputs: what an answer fills.
            other: explains another class; it takes the class first.
            again: explains the same by other settings.
        """
        link = controls.linked(self.kept.link)
        place.on(self.classes.input, other, [self.classes, *inputs], outputs, **LAST).then(**link)
        for event in self.asked.events:
            place.on(event, again, inputs, outputs, **LAST, show_progress="minimal").then(**link)

    def restore(self, place: controls.AnswerPlace, restored: Any, outputs: Sequence[Any]) -> None:
        """Restores the settings of the page's address when the page is opened."""
        root = gradio().context.Context.root_block
        act = controls.opened(restored, outputs, [self.kept.link])
        place.on(root.load, act, self.asked.query, outputs, js=scripts.ADDRESS, **ONE)

    def of_classes(self, answer: Any) -> Any:
        """The buttons of the largest classes of an answer."""
        choices = [(controls.class_button(name, chance), number) for number, name, _, chance in answer.classes]
        target = answer.settings.target
        chosen = target if any(number == target for _, number in choices) else None
        return gradio().update(choices=choices, value=chosen, visible=bool(choices))

    def no_classes(self) -> Any:
        """No buttons of classes."""
        return gradio().update(choices=[], value=None, visible=False)
