"""Texts: what a network says of one, why, and which tokens could have come. Nothing here knows Gradio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relprop.errors import InputError, TargetError
from relprop.rendering import html
from relprop.rendering.matrix import TokenMatrix
from relprop.rendering.view import Options
from relprop.rendering.visible import visible
from relprop.results.contrast import Contrast
from relprop.results.protocol import Result
from relprop.text import explain_generation, explain_text
from relprop.text.tokens import tokenize
from relprop.web import limits
from relprop.web.limits import Limits
from relprop.web.page_subject import MapColumn, PageSubject, columns
from relprop.web.settings import PageSettings


@dataclass(frozen=True, eq=False)
class TextAnswer:
    """What a network said of a text, and why.

    Attributes:
        text: the text, or several, as they were given.
        names: the name of the rules of each result.
        results: what was explained, each by each composite.
        code: the code that made it.
        pieces: the tokens of a single text as they read, and whether each is the model's own.
        likely: the likeliest answers to a single text, by name, with probabilities.
    """

    text: str
    names: tuple[str, ...]
    results: tuple[Result, ...]
    code: str
    pieces: tuple[tuple[str, bool], ...]
    likely: tuple[tuple[str, float | None], ...]


@dataclass(frozen=True)
class TextRequest:
    """What is asked of a text.

    Attributes:
        target: a class by number, or a token as it is written; None is the likeliest.
        against: what it is set against, in the same form; None is nothing.
        composites: the names of the composites.
        words: whether the tokens of words are joined.
        generate: how many tokens a language model writes and explains; 0 for none.
        gamma: the gamma of those composites that have one; None is their own.
        first: the rule of the first layer, a key of `FIRST`.
        parts: whether the relevance of blocks and attention heads is shown.
        lines: whether each line is a text of its own.
    """

    target: int | str | None = None
    against: int | str | None = None
    composites: tuple[str, ...] = ("auto",)
    words: bool = False
    generate: int = 0
    gamma: float | None = None
    first: str = "composite"
    parts: bool = False
    lines: bool = False

    @property
    def rules(self) -> PageSettings:
        """The rules that are asked for."""
        return PageSettings(composites=self.composites, gamma=self.gamma, first=self.first)


def ask(subject: PageSubject, text: str, wish: TextRequest, bounds: Limits) -> TextAnswer:
    """Explains a text.

    Raises:
        InputError: the text is empty or too long.
        TargetError: there is no such class or token.
        RelpropError: as in `relprop.explain_text`.
    """
    text = limits.text(text, bounds)
    loaded, each = subject.loaded, several(text, wish, bounds)
    read = [tokenize(loaded.tokenizer, one) for one in each]
    if (longest := max(map(len, read))) > bounds.tokens:
        raise InputError(f"the text has {longest:,} tokens, more than the {bounds.tokens:,} we take.")
    if not 0 <= wish.generate <= bounds.generated:
        raise InputError(f"a network writes 1 to {bounds.generated} tokens here; got {wish.generate}.")
    if wish.generate and loaded.classes:
        raise InputError(f"{visible(loaded.name)} answers with classes, and writes nothing.")
    targets, chosen = _targets(wish), _columns(subject, each[0], wish)
    found = [
        (column.name, result)
        for column in chosen
        for result in (
            [_written(subject, text, wish, column)]
            if wish.generate
            else [_explained(subject, each, target, wish, column) for target in targets]
        )
    ]
    results = tuple(result for _, result in found)
    alone = len(each) == 1 and not wish.lines
    likely = tuple(results[0].predictions[:5]) if alone and not wish.generate else ()
    pieces = tuple(zip(read[0].pieces, read[0].special, strict=True)) if alone else ()
    code = code_of(subject, text, wish, chosen)
    return TextAnswer(text, tuple(name for name, _ in found), results, code, pieces, likely)


def several(text: str, wish: TextRequest, bounds: Limits) -> list[str]:
    """The text, or each line that holds one.

    Raises:
        InputError: there are too many, or a network should go on from several.
    """
    if not wish.lines:
        return [text]
    if wish.generate:
        raise InputError("a network goes on from one text: leave 'Each line is a text' off.")
    found = [line.strip() for line in text.splitlines() if line.strip()]
    if len(found) > bounds.texts:
        raise InputError(f"{bounds.texts} texts are explained at once; got {len(found)} lines: leave some out.")
    return found


def _columns(subject: PageSubject, text: str, wish: TextRequest) -> list[MapColumn]:
    """The rules that are asked for. What "auto" stands for is found by explaining the text once."""
    changed = wish.gamma is not None or wish.first != "composite"
    if "auto" in wish.composites and changed and "auto" not in subject.resolved:
        loaded = subject.loaded
        subject.resolve(explain_text(loaded.model, loaded.tokenizer, text).composite.name)
    return columns(wish.rules, subject, None)


def _written(subject: PageSubject, text: str, wish: TextRequest, column: MapColumn) -> Any:
    loaded = subject.loaded
    return explain_generation(
        loaded.model, loaded.tokenizer, text, max_new_tokens=wish.generate, composite=column.composite
    )


def _explained(subject: PageSubject, each: list[str], target: Any, wish: TextRequest, column: MapColumn) -> Any:
    loaded = subject.loaded
    asked = [target] * len(each) if wish.lines and target is not None else target
    return explain_text(
        loaded.model, loaded.tokenizer, each if wish.lines else each[0], asked, composite=column.composite,
        labels=loaded.labels if loaded.classes else None, ledger=True, parts=wish.parts,
    )  # fmt: skip


def _targets(wish: TextRequest) -> list[Any]:
    if wish.against is None:
        return [wish.target]
    if wish.target is None:
        raise TargetError("what is set against something is named, too: choose a class or a token.")
    if wish.target == wish.against:
        raise TargetError(f"{wish.against!r} cannot be set against itself: choose another.")
    return [wish.target, wish.against, Contrast(wish.target, wish.against)]


def before(subject: PageSubject, text: str, place: int) -> tuple[str, str]:
    """The text before a token, and the token as it reads: why did a language model expect it there?

    Raises:
        InputError: there is no such token, nothing comes before it, or the text before it is read as other tokens.
    """
    tokenizer = subject.loaded.tokenizer
    read = tokenize(tokenizer, text)
    if not 0 <= place < len(read) or read.special[place]:
        raise InputError("that token is none of the text's.")
    start = "".join(
        piece for piece, special in zip(read.pieces[:place], read.special[:place], strict=True) if not special
    )
    if not start.strip():
        raise InputError("nothing comes before the first token, from which it could be explained.")
    again = tokenize(tokenizer, start)
    own = [n for n, special in zip(again.ids, again.special, strict=True) if not special]
    if own != [n for n, special in zip(read.ids[:place], read.special[:place], strict=True) if not special]:
        raise InputError("the text before that token is read as other tokens: choose the first token of a word.")
    return start, read.pieces[place]


def maps_html(answer: TextAnswer, words: bool) -> str:
    """The coloured texts with their blocks and heads, or the matrices of what was written."""
    shown = []
    for name, result in zip(answer.names, answer.results, strict=True):
        alone = [result.alone(n) for n in range(result.samples)]
        for view, one in zip(result.views(Options(merge=words, most=len(alone))), alone, strict=True):
            shown.append(f"<p class=note>{html.text(name)}</p>{html.view_html(view, many=True)}{parts_html(one)}")
        shown += [f"<p class=note>{html.text(notice)}</p>" for notice in result.notices]
    return "".join(shown)


def parts_html(result: Any) -> str:
    """The relevance of blocks and attention heads as matrices; empty where they were not asked for."""
    if getattr(result, "blocks", None) is None:
        return ""
    rows = [f"block {n}" for n in range(len(result.blocks))]
    blocks = TokenMatrix.of(rows, result.pieces, result.blocks, style="plain")
    parts = ["<h4>Each token where it enters each block</h4>", html.matrix_html(blocks, "Block")]
    if result.heads is not None:
        names = [f"head {n}" for n in range(result.heads.shape[1])]
        heads = TokenMatrix.of(rows, names, result.heads.sum(-1), style="plain")
        parts += ["<h4>Each attention head, summed over the tokens</h4>", html.matrix_html(heads, "Block")]
    return "".join(parts)


def tokens_html(pieces: Sequence[tuple[str, bool]]) -> str:
    """The tokens of a text as buttons."""
    shown = [
        f'<button type="button" data-n="{n}">{html.text(piece.strip() or piece)}</button>'
        for n, (piece, special) in enumerate(pieces)
        if not special
    ]
    return (
        '<p class="hint">Choose a token to ask why it was expected there.</p>'
        f'<div class="examples" role="group" aria-label="Tokens">{"".join(shown)}</div>'
    )


def code_of(subject: PageSubject, text: str, wish: TextRequest, chosen: Sequence[MapColumn]) -> str:
    """The code that made an answer. It runs as it stands; the text is a literal, whatever it holds."""
    lines = ["import relprop", "from relprop.loading import models", ""]
    if subject.spec is None:
        lines += ["# model, tokenizer: those that this page was made for"]
    else:
        lines += [f"loaded = models.load({subject.spec!r})", "model, tokenizer = loaded.model, loaded.tokenizer"]
    lines += [f"text = {text!a}"]
    if wish.lines:
        lines += ["text = [line.strip() for line in text.splitlines() if line.strip()]"]
    labels = "" if subject.spec is None or not subject.loaded.classes else ", labels=loaded.labels"
    parts = ", parts=True" if wish.parts else ""
    lines += ["results = ["]
    for column in chosen:
        if wish.generate:
            lines.append(
                f"    relprop.explain_generation(model, tokenizer, text, max_new_tokens={wish.generate}, "
                f"composite={column.source}),"
            )
            continue
        lines += [
            f"    relprop.explain_text(model, tokenizer, text, {_source(target, wish)}, composite={column.source}{labels}, "
            f"ledger=True{parts}),"
            for target in _targets(wish)
        ]
    lines += ["]", f'relprop.report(results, "texts.html", merge={wish.words})']
    if wish.parts:
        lines += [
            f"print(results[0]{'[0]' if wish.lines else ''}.blocks)  # (blocks, tokens); .heads are (blocks, heads, tokens)"
        ]
    return "\n".join(lines) + "\n"


def _source(target: Any, wish: TextRequest) -> str:
    """The Python expression of a target, one for each text."""
    shown = repr(target)
    if isinstance(target, Contrast):
        shown = f"relprop.Contrast({target.positive!r}, {target.negative!r})"
    return f"[{shown}] * len(text)" if wish.lines and target is not None else shown
