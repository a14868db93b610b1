"""The part of the page that explains texts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from relprop.composites import NAMES
from relprop.rendering import html
from relprop.web import controls, scripts, texts
from relprop.web.answering import Desk, answered
from relprop.web.components import choices_of
from relprop.web.downloads import OF_NUMBERS, made
from relprop.web.gradio_here import gradio
from relprop.web.page_subject import PageSubject
from relprop.web.scripts import styled
from relprop.web.settings import MOST_COMPOSITES, PageSettings

PART = "text"
_EXAMPLES = ("The capital of France is", "The film was not bad at all, the actors were very good")


def add(subject: PageSubject, desk: Desk, examples: Sequence[Any] | None) -> None:
    """Adds the part to the page that is being made."""
    TextFields(subject, desk, tuple(map(str, _EXAMPLES if examples is None else examples))).add()


class TextFields:
    """The fields of the part, and what they do."""

    def __init__(self, subject: PageSubject, desk: Desk, examples: tuple[str, ...]) -> None:
        self.subject, self.desk, self.examples = subject, desk, examples
        self.classes = subject.loaded.classes
        self.part = desk.own(PART)

    def add(self) -> None:
        """Adds the fields and their events."""
        gr = gradio()
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                self.text = gr.Textbox(
                    label="Text",
                    lines=4,
                    max_length=self.desk.limits.letters,
                    elem_id=self.desk.own("text"),
                    submit_btn=False,
                )
                self.chosen = gr.HTML(
                    styled(_buttons(self.examples)), js_on_load=scripts.CHOOSE, apply_default_css=False
                )
                self.ask = gr.Button("Ask why", variant="primary", elem_id=self.desk.own("ask"))
                if self.classes and self.subject.labels:
                    labels = choices_of(self.subject.labels)
                    nothing = controls.NOTHING
                    self.target = gr.Dropdown(
                        [("the likeliest", nothing), *labels],
                        value=nothing,
                        label="Class",
                        elem_id=self.desk.own("target"),
                    )
                    self.against = gr.Dropdown(
                        [("nothing", nothing), *labels],
                        value=nothing,
                        label="Against",
                        elem_id=self.desk.own("against"),
                    )
                else:
                    what = "class (number)" if self.classes else "token, as it is written"
                    self.target = gr.Textbox(
                        label=f"Which {what}; empty is the likeliest", max_length=100, elem_id=self.desk.own("target")
                    )
                    self.against = gr.Textbox(
                        label=f"Against which {what}", max_length=100, elem_id=self.desk.own("against")
                    )
                self.composites = gr.Dropdown(
                    ["auto", *NAMES], value=["auto"], multiselect=True, max_choices=MOST_COMPOSITES,
                    label="Composites", elem_id=self.desk.own("composites"),
                )  # fmt: skip
                self.words = gr.Checkbox(False, label="Join the tokens of words", elem_id=self.desk.own("words"))
                self.count = gr.Slider(
                    1, self.desk.limits.generated, value=8, step=1, label="Tokens to write", visible=not self.classes
                )
                self.write = gr.Button(
                    "Let it go on, and explain each token", visible=not self.classes, elem_id=self.desk.own("write")
                )
            with gr.Column(scale=5, min_width=320):
                self.likely = gr.HTML(styled(""), apply_default_css=False, elem_id=self.desk.own("likely"))
                self.maps = gr.HTML(
                    styled('<p class="hint">Write a text, or choose an example.</p>'),
                    apply_default_css=False,
                    elem_id=self.desk.own("maps"),
                )
                self.tokens = gr.HTML(
                    styled(""),
                    js_on_load=scripts.CHOOSE,
                    apply_default_css=False,
                    elem_id=self.desk.own("tokens"),
                    visible=not self.classes,
                )
                self.kept = controls.Downloads(
                    OF_NUMBERS, self.desk, self.part, drawing=lambda answer, settings: {}, make=_file, link=False
                )
                self.kept.add()
        self._listen()

    @property
    def outputs(self) -> list[Any]:
        """What an answer fills."""
        return [self.likely, self.maps, self.tokens, *self.kept.outputs]

    def _listen(self) -> None:
        one = {"concurrency_id": "explanation", "concurrency_limit": 1, "api_visibility": "private"}
        fields = [self.text, self.target, self.against, self.composites, self.words]
        for event in (self.ask.click, self.text.submit, self.composites.input, self.words.input):
            event(answered(self.asked), fields, self.outputs, **one, trigger_mode="always_last")
        if self.classes and self.subject.labels:
            for event in (self.target.input, self.against.input):
                event(answered(self.asked), fields, self.outputs, **one, trigger_mode="always_last")
        else:
            for event in (self.target.submit, self.against.submit):
                event(answered(self.asked), fields, self.outputs, **one)
        self.write.click(
            answered(self.written), [self.text, self.count, self.composites, self.words], self.outputs, **one
        )
        self.chosen.select(answered(self.example), fields[1:], [self.text, *self.outputs], **one)
        self.tokens.select(
            answered(self.expected), [self.composites, self.words], [self.text, self.target, *self.outputs], **one
        )

    def asked(self, text: Any, target: Any, against: Any, composites: Any, words: Any, request: Any) -> Any:
        """Explains a text."""
        wish = texts.TextRequest(self._target(target), self._target(against), _names(composites), bool(words))
        return self._answer(request, str(text or ""), wish)

    def _target(self, given: Any) -> int | str | None:
        if given in (None, "", controls.NOTHING):
            return None
        return controls.whole(given, "the class") if self.classes else texts.target_of(given)

    def written(self, text: Any, count: Any, composites: Any, words: Any, request: Any) -> Any:
        """Lets a language model go on, and explains each token."""
        wish = texts.TextRequest(
            composites=_names(composites), words=bool(words), generate=controls.whole(count, "the number of tokens")
        )
        return self._answer(request, str(text or ""), wish)

    def example(self, target: Any, against: Any, composites: Any, words: Any, event: Any, request: Any) -> Any:
        """Explains an example."""
        text = self.examples[controls.number_of(event, "n", len(self.examples))]
        return (text, *self.asked(text, None, None, composites, words, request))

    def expected(self, composites: Any, words: Any, event: Any, request: Any) -> Any:
        """Explains why a language model expected a token of the text, from what comes before it."""
        before = self.desk.sessions.answer(str(request.session_hash), self.part)
        place = controls.number_of(event, "n", len(before.pieces))
        start, token = texts.before(self.subject, before.text, place)
        shown = self._answer(
            request, start, texts.TextRequest(token, composites=_names(composites), words=bool(words)), before
        )
        return (before.text, token, *shown)

    def _answer(self, request: Any, text: str, wish: texts.TextRequest, whole: texts.TextAnswer | None = None) -> Any:
        name = str(request.session_hash)
        answer = self.desk.work.do(name, lambda: texts.ask(self.subject, text, wish, self.desk.limits))
        session = self.desk.sessions.of(name)
        if whole is not None:  # the tokens of the whole text stay to be chosen
            answer = controls.changed(answer, text=whole.text, pieces=whole.pieces)
        session.answers[self.part] = answer
        tokens = "" if self.classes or wish.generate else texts.tokens_html(answer.pieces)
        return (
            styled(_likely(answer)), styled(texts.maps_html(answer, wish.words)), styled(tokens),
            *self.kept.shown(answer.code, PageSettings()),
        )  # fmt: skip


def _names(composites: Any) -> tuple[str, ...]:
    """The names of composites that a field holds, judged as those of a link."""
    names = tuple(map(str, composites or ()))
    return PageSettings(composites=names).composites


def _file(answer: texts.TextAnswer, kind: str) -> dict[str, str]:
    """A file of what was explained: of several results, the last, which is the contrast where there is one."""
    return made(answer.results[-1], kind, "relevance", {})


def _likely(answer: texts.TextAnswer) -> str:
    if not answer.likely:
        return ""
    listed = ", ".join(
        f"{html.text(name)} {chance:.1%}" if chance is not None else html.text(name) for name, chance in answer.likely
    )
    return f"<p>The likeliest: {listed}.</p>"


def _buttons(examples: Sequence[str]) -> str:
    parts = [f'<button type="button" data-n="{n}">{escape(text)}</button>' for n, text in enumerate(examples)]
    return f'<div class="examples" role="group" aria-label="Examples">{"".join(parts)}</div>' if parts else ""
