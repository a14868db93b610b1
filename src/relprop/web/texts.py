"""Texts: what a network says of one, why, and which tokens could have come. Nothing here knows Gradio."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relprop.errors import InputError, TargetError
from relprop.rendering import html
from relprop.rendering.view import Options
from relprop.rendering.visible import visible
from relprop.results.contrast import Contrast
from relprop.results.protocol import Result
from relprop.text import explain_generation, explain_text
from relprop.text.tokens import tokenize
from relprop.web import limits
from relprop.web.limits import Limits
from relprop.web.page_subject import PageSubject


@dataclass(frozen=True, eq=False)
class TextAnswer:
    """What a network said of a text, and why.

    Attributes:
        text: the text.
        results: what was explained, each by each composite.
        code: the code that made it.
        pieces: the tokens of the text as they read, and whether each is the model's own.
        likely: the likeliest answers, by name, with probabilities.
    """

    text: str
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
    """

    target: int | str | None = None
    against: int | str | None = None
    composites: tuple[str, ...] = ("auto",)
    words: bool = False
    generate: int = 0


def ask(subject: PageSubject, text: str, wish: TextRequest, bounds: Limits) -> TextAnswer:
    """Explains a text.

    Raises:
        InputError: the text is empty or too long.
        TargetError: there is no such class or token.
        RelpropError: as in `relprop.explain_text`.
    """
    text = limits.text(text, bounds)
    loaded = subject.loaded
    read = tokenize(loaded.tokenizer, text)
    if len(read) > bounds.tokens:
        raise InputError(f"the text has {len(read):,} tokens, more than the {bounds.tokens:,} we take.")
    if not 0 <= wish.generate <= bounds.generated:
        raise InputError(f"a network writes 1 to {bounds.generated} tokens here; got {wish.generate}.")
    if wish.generate and loaded.classes:
        raise InputError(f"{visible(loaded.name)} answers with classes, and writes nothing.")
    targets, labels = _targets(wish), loaded.labels if loaded.classes else None
    found: list[Any] = []
    for composite in wish.composites:
        if wish.generate:
            found.append(
                explain_generation(
                    loaded.model, loaded.tokenizer, text, max_new_tokens=wish.generate, composite=composite
                )
            )
            continue
        for target in targets:
            found.append(
                explain_text(
                    loaded.model, loaded.tokenizer, text, target, composite=composite, labels=labels, ledger=True
                )
            )
    likely = () if wish.generate else tuple(found[0].predictions[:5])
    pieces = tuple(zip(read.pieces, read.special, strict=True))
    return TextAnswer(text, tuple(found), code_of(subject, text, wish), pieces, likely)


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
    """The coloured texts, or the matrices of what was written."""
    parts = []
    for result in answer.results:
        for view in result.views(Options(merge=words)):
            name = html.text(result.composite.name)
            parts.append(f"<p class=note>{name}</p>{html.view_html(view, many=True)}")
        parts += [f"<p class=note>{html.text(notice)}</p>" for notice in result.notices]
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


def code_of(subject: PageSubject, text: str, wish: TextRequest) -> str:
    """The code that made an answer. It runs as it stands; the text is a literal, whatever it holds."""
    lines = ["import relprop", "from relprop.loading import models", ""]
    if subject.spec is None:
        lines += ["# model, tokenizer: those that this page was made for"]
    else:
        lines += [f"loaded = models.load({subject.spec!r})", "model, tokenizer = loaded.model, loaded.tokenizer"]
    lines += [f"text = {text!a}", "results = ["]
    for composite in wish.composites:
        if wish.generate:
            lines.append(
                f"    relprop.explain_generation(model, tokenizer, text, max_new_tokens={wish.generate}, composite={composite!r}),"
            )
            continue
        for target in _targets(wish):
            shown = (
                f"relprop.Contrast({target.positive!r}, {target.negative!r})"
                if isinstance(target, Contrast)
                else repr(target)
            )
            labels = "" if subject.spec is None or not subject.loaded.classes else ", labels=loaded.labels"
            lines.append(
                f"    relprop.explain_text(model, tokenizer, text, {shown}, composite={composite!r}{labels}, ledger=True),"
            )
    lines += ["]", f'relprop.report(results, "texts.html", merge={wish.words})']
    return "\n".join(lines) + "\n"


def target_of(given: Any) -> int | str | None:
    """A token as a visitor wrote it, `id:464` for its number; None where nothing is written.

    Raises:
        InputError: it is too long.
    """
    text = "" if given is None else str(given)
    if not text.strip():
        return None
    if len(text) > 100:
        raise InputError("a token has at most 100 letters.")
    return int(text.strip()[3:]) if re.fullmatch(r"\s*id:\d{1,9}\s*", text) else text
