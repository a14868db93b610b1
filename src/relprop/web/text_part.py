"""The part of the page that explains texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from relprop.rendering import html
from relprop.web import controls, programs, scripts, texts
from relprop.web.answering import Desk
from relprop.web.components import choices_of
from relprop.web.downloads import OF_NUMBERS, made
from relprop.web.gradio_here import gradio
from relprop.web.network_part import LAST, ONE, example_buttons, laid_out
from relprop.web.page_subject import PageSubject
from relprop.web.rule_fields import RuleFields
from relprop.web.scripts import styled
from relprop.web.settings import settings_of
from relprop.web.text_links import LinkedText, target_of

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
        self.named = bool(self.classes and subject.labels)
        self.part = desk.own(PART)
        self.rules = RuleFields(desk, False)

    def add(self) -> None:
        """Adds the fields and their events."""
        self.query = gradio().Textbox(visible=False)
        laid_out([self._text, self._targets, self.rules.add, self._ways], [self._answers, self._kept])
        programs.add_of_texts(self._of_program)
        self._listen()

    def _text(self) -> None:
        gr = gradio()
        self.text = gr.Textbox(
            label="Text", lines=4, max_length=self.desk.limits.letters, elem_id=self.desk.own("text"), submit_btn=False
        )  # fmt: skip
        self.lines = gr.Checkbox(
            False, label=f"Each line is a text, {self.desk.limits.texts} at most", elem_id=self.desk.own("lines")
        )  # fmt: skip
        self.chosen = gr.HTML(
            styled(example_buttons(self.examples)), js_on_load=scripts.CHOOSE, apply_default_css=False
        )  # fmt: skip
        self.ask = gr.Button("Ask why", variant="primary", elem_id=self.desk.own("ask"))

    def _targets(self) -> None:
        gr = gradio()
        if self.named:
            labels, nothing = choices_of(self.subject.labels), controls.NOTHING
            self.target = gr.Dropdown(
                [("the likeliest", nothing), *labels], value=nothing, label="Class", elem_id=self.desk.own("target")
            )
            self.against = gr.Dropdown(
                [("nothing", nothing), *labels], value=nothing, label="Against", elem_id=self.desk.own("against")
            )
            return
        what = "class (number)" if self.classes else "token, as it is written"
        self.target = gr.Textbox(
            label=f"Which {what}; empty is the likeliest", max_length=100, elem_id=self.desk.own("target")
        )
        self.against = gr.Textbox(label=f"Against which {what}", max_length=100, elem_id=self.desk.own("against"))

    def _ways(self) -> None:
        gr = gradio()
        self.words = gr.Checkbox(False, label="Join the tokens of words", elem_id=self.desk.own("words"))
        self.parts = gr.Checkbox(False, label="Show blocks and attention heads", elem_id=self.desk.own("parts"))
        self.count = gr.Slider(
            1, self.desk.limits.generated, value=8, step=1, label="Tokens to write", visible=not self.classes
        )
        self.write = gr.Button(
            "Let it go on, and explain each token", visible=not self.classes, elem_id=self.desk.own("write")
        )

    def _answers(self) -> None:
        gr = gradio()
        self.likely = gr.HTML(styled(""), apply_default_css=False, elem_id=self.desk.own("likely"))
        hint = '<p class="hint">Write a text, or choose an example.</p>'
        self.maps = gr.HTML(styled(hint), apply_default_css=False, elem_id=self.desk.own("maps"))
        self.tokens = gr.HTML(
            styled(""), js_on_load=scripts.CHOOSE, apply_default_css=False, elem_id=self.desk.own("tokens"),
            visible=not self.classes,
        )  # fmt: skip

    def _kept(self) -> None:
        self.kept = controls.Downloads(
            OF_NUMBERS, self.desk, self.part, drawing=lambda answer, settings: {}, make=_file
        )  # fmt: skip
        self.kept.add()

    def _of_program(self, text: str, wish: texts.TextRequest) -> texts.TextAnswer:
        """The answer to a program. It is kept nowhere."""
        if self.classes:
            wish = replace(wish, target=self._target(wish.target), against=self._target(wish.against))
        return self.desk.work.do("", lambda: texts.ask(self.subject, text, wish, self.desk.limits))

    @property
    def fields(self) -> list[Any]:
        """The fields, in the order in which their values come."""
        return [self.text, self.lines, self.target, self.against, *self.rules.fields, self.words, self.parts]

    @property
    def outputs(self) -> list[Any]:
        """What an answer fills."""
        return [self.likely, self.maps, self.tokens, *self.kept.outputs]

    def _listen(self) -> None:
        fields, link = self.fields, controls.linked(self.kept.link)
        changed = [*self.rules.events, self.words.input, self.parts.input, self.lines.input]
        changed += [self.target.input, self.against.input] if self.named else []
        place = controls.AnswerPlace(self.maps, self.kept)
        for event in (self.ask.click, self.text.submit):
            place.on(event, self.asked, fields, self.outputs, **LAST).then(**link)
        for event in changed:
            place.on(event, self.again, fields, self.outputs, **LAST).then(**link)
        if not self.named:
            for event in (self.target.submit, self.against.submit):
                place.on(event, self.asked, fields, self.outputs, **ONE).then(**link)
        place.on(self.write.click, self.written, [self.count, *fields], self.outputs, **ONE).then(**link)
        place.on(self.chosen.select, self.example, fields, [*fields[:4], *self.outputs], **ONE).then(**link)
        place.on(self.tokens.select, self.expected, fields, [self.text, self.target, *self.outputs], **ONE).then(**link)
        root = gradio().context.Context.root_block
        whole = [*fields, *self.outputs]
        act = controls.opened(self.restored, whole, [self.kept.link])
        place.on(root.load, act, self.query, whole, js=scripts.ADDRESS, **ONE)

    def _linked(self, values: Sequence[Any]) -> LinkedText:
        """What the fields hold."""
        text, lines, target, against, *rules, words, parts = values
        found = settings_of(self.rules.values(rules))
        return LinkedText(
            str(text or ""), _written(target), _written(against), found.composites, bool(words), found.gamma, found.first,
            bool(parts), bool(lines),
        )  # fmt: skip

    def _wish(self, linked: LinkedText, **changed: Any) -> texts.TextRequest:
        """What the fields ask for."""
        wish = texts.TextRequest(
            self._target(linked.target), self._target(linked.against), linked.composites, linked.words, gamma=linked.gamma,
            first=linked.first, parts=linked.parts, lines=linked.lines,
        )  # fmt: skip
        return replace(wish, **changed)

    def asked(self, *values: Any, request: Any) -> Any:
        """Explains a text, or several."""
        linked = self._linked(values)
        return self._answer(request, linked.text, self._wish(linked), linked)

    def again(self, *values: Any, request: Any) -> Any:
        """Explains the same in another way; before a first question, there is nothing to explain."""
        if self.part not in self.desk.sessions.of(str(request.session_hash)).answers:
            return [gradio().skip()] * len(self.outputs)
        return self.asked(*values, request=request)

    def restored(self, query: Any, request: Any) -> Any:
        """The settings of the page's address, and the answer if they hold a text."""
        found = LinkedText.of_link(self.desk.asked(query))
        if found == LinkedText():  # a visitor may have begun to write
            return [gradio().skip()] * (len(self.fields) + len(self.outputs))
        target, against = (
            each or (controls.NOTHING if self.named else "") for each in (found.target, found.against)
        )  # fmt: skip
        fields = (found.text, found.lines, target, against, *self.rules.restored(found.rules), found.words, found.parts)
        if not found.text:
            return [*fields, *[gradio().skip()] * len(self.outputs)]
        return (*fields, *self.asked(*fields, request=request))

    def _target(self, given: Any) -> int | str | None:
        if given in (None, "", controls.NOTHING):
            return None
        return controls.whole(given, "the class") if self.classes else target_of(given)

    def written(self, count: Any, *values: Any, request: Any) -> Any:
        """Lets a language model go on, and explains each token."""
        linked = self._linked(values)
        number = controls.whole(count, "the number of tokens")
        wish = self._wish(linked, target=None, against=None, generate=number, parts=False)
        return self._answer(request, linked.text, wish)

    def example(self, *values: Any, event: Any, request: Any) -> Any:
        """Explains an example."""
        text = self.examples[controls.number_of(event, "n", len(self.examples))]
        none = controls.NOTHING if self.named else ""
        fields = (text, False, none, none)
        return (*fields, *self.asked(*fields, *values[4:], request=request))

    def expected(self, *values: Any, event: Any, request: Any) -> Any:
        """Explains why a language model expected a token of the text, from what comes before it."""
        before = self.desk.sessions.answer(str(request.session_hash), self.part)
        place = controls.number_of(event, "n", len(before.pieces))
        start, token = texts.before(self.subject, before.text, place)
        linked = replace(self._linked(values), text=start, target=token, against="", lines=False)
        shown = self._answer(request, start, self._wish(linked), linked, before)
        return (before.text, token, *shown)

    def _answer(
        self, request: Any, text: str, wish: texts.TextRequest, linked: LinkedText | None = None,
        whole: texts.TextAnswer | None = None,
    ) -> Any:  # fmt: skip
        name = str(request.session_hash)
        answer = self.desk.work.do(name, lambda: texts.ask(self.subject, text, wish, self.desk.limits))
        session = self.desk.sessions.of(name)
        if whole is not None:  # the tokens of the whole text stay to be chosen
            answer = controls.changed(answer, text=whole.text, pieces=whole.pieces)
        session.keep(self.part, answer)
        tokens = "" if self.classes or wish.generate or not answer.pieces else texts.tokens_html(answer.pieces)
        return (
            styled(_likely(answer)), styled(texts.maps_html(answer, wish.words)), styled(tokens),
            *self.kept.shown(answer.code, linked or LinkedText()),
        )  # fmt: skip


def _written(given: Any) -> str:
    """What a field of a class or a token holds, as a link has it."""
    return "" if given in (None, controls.NOTHING) else str(given)


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
