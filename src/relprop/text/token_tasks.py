"""Tasks on the tokens of a text: the class of a token, or the span of an answer.

Places count the text's own tokens, as `TextRelevance.tokens` lists them, without padding.

Index letters: n text, t token, c class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.targets import class_of
from relprop.errors import TargetError, TargetIndexError
from relprop.text.batch import Batch
from relprop.text.tasks import Choice, Task, as_int
from relprop.text.tokens import Tokens, readings

_SHOWN = 8
"""The most tokens that a message lists."""


def position(text: Tokens, place: Any, among: Sequence[int] | None = None, last: bool = False) -> int:
    """The position of a token, from its number (negative: from the end) or from a word.

    Args:
        text: the tokens.
        place: the number or the word.
        among: the tokens among which to look for a word; None for all.
        last: whether a word stands for its last token, instead of its first.

    Raises:
        TargetError: the text does not hold the word, or holds it several times.
        TargetIndexError: the number is outside the text.
    """
    if not isinstance(place, str):
        number = as_int(place)
        if not -len(text) <= number < len(text):
            raise TargetIndexError(
                f"token {number} is out of range: the text has {len(text)} tokens, 0 to {len(text) - 1}: {_listed(text)}."
            )
        return number % len(text)
    found = [some for some in readings(text, place) if among is None or set(among).issuperset(some)]
    if not found:
        raise TargetError(f"no token or word of the text reads {place!r}. Its tokens: {_listed(text)}.")
    if len(found) > 1:
        starts = [str(some[-1] if last else some[0]) for some in found]
        raise TargetError(
            f"the text holds {place!r} {len(found)} times, at tokens {', '.join(starts)}: write the number of the one that "
            f"is meant, such as {starts[0]}, in place of {place!r}."
        )
    return found[0][-1] if last else found[0][0]


def _listed(text: Tokens) -> str:
    """The first tokens with their numbers, for messages."""
    some = ", ".join(f"{k} {piece.strip()!r}" for k, piece in enumerate(text.pieces[:_SHOWN]))
    return some if len(text) <= _SHOWN else f"{some}, ..."


@dataclass
class Tags(Task):
    """The class of one token."""

    rows: Tensor  # (N, T, C)
    batch: Batch
    labels: Sequence[str] | None

    def best(self, n: int, count: int) -> list[Choice]:
        raise TargetError(
            f"the model gives each token classes of its own: say which token and which class. {self._advice(n)}"
        )

    def rivals(self, choice: Choice, n: int, count: int) -> list[Choice]:
        at, _ = choice
        width = self.rows.shape[-1]
        return [(at, c) for c in self._row(at, n).topk(min(count, width)).indices.tolist()]

    def choice(self, target: Any, n: int) -> Choice:
        text = self.batch.texts[n]
        if isinstance(target, str) and (readings(text, target) or target not in (self.labels or ())):
            target = (target, None)
        if not isinstance(target, tuple) or len(target) != 2:
            raise TargetError(
                f"target {target!r} does not say of which token: the model gives each token classes of its own. "
                f"{self._advice(n)}"
            )
        place, named = target
        at = position(text, place)
        if named is None:
            return at, int(self._row(at, n).argmax())
        if isinstance(named, str):
            return at, class_of(named, self.labels)
        index, width = as_int(named), self.rows.shape[-1]
        if not -width <= index < width:
            raise TargetIndexError(
                f"class {index} of target {target!r} is out of range: the model has {width} classes per token, 0 to "
                f"{width - 1}."
            )
        return at, index % width

    def scores(self, choices: Sequence[Choice]) -> Tensor:
        every = torch.arange(len(choices), device=self.rows.device)
        at = torch.tensor([self._column(k, n) for n, (k, _) in enumerate(choices)], device=self.rows.device)
        return self.rows[every, at, torch.tensor([c for _, c in choices], device=self.rows.device)]

    def probability(self, choice: Choice, n: int) -> float | None:
        at, c = choice
        return float(self._row(at, n).float().softmax(0)[c])

    def name(self, choice: Choice, n: int) -> str:
        at, c = choice
        label = self.labels[c] if self.labels is not None and c < len(self.labels) else c
        return f"{self.batch.texts[n].pieces[at].strip()}: {label}"

    def _column(self, at: int, n: int) -> int:
        return int(self.batch.real(n)[at])

    def _row(self, at: int, n: int) -> Tensor:
        return self.rows[n, self._column(at, n)].detach()

    def _advice(self, n: int) -> str:
        text = self.batch.texts[n]
        plain = [k for k, special in enumerate(text.special) if not special]
        alone = (k for k in plain if [k] == [some[0] for some in readings(text, text.pieces[k])])
        at = next(alone, plain[0])
        c = int(self._row(at, n).argmax())
        named = repr(self.labels[c]) if self.labels is not None and c < len(self.labels) else str(c)
        word = repr(text.pieces[at].strip())
        return (
            f"Write target=({at}, {named}) or ({word}, {named}); ({word}, None) takes the class that is likeliest there; or "
            f"pass a callable target, output -> (N,). Tokens: {_listed(text)}."
        )


@dataclass
class Spans(Task):
    """The span of an answer: the score of its first token plus that of its last."""

    first: Tensor  # (N, T)
    last: Tensor
    batch: Batch
    longest: int = 30

    def best(self, n: int, count: int) -> list[Choice]:
        allowed = self._allowed(n)
        first, last = self._read(n)
        spans = [(s, e) for k, s in enumerate(allowed) for e in allowed[k : k + self.longest]]
        return sorted(spans, key=lambda span: -(first[span[0]] + last[span[1]]))[:count]

    def choice(self, target: Any, n: int) -> Choice:
        allowed, text = self._allowed(n), self.batch.texts[n]
        if isinstance(target, str):
            found = [(some[0], some[-1]) for some in readings(text, target) if set(allowed).issuperset(some)]
            if not found:
                raise TargetError(f"the answer {target!r} is not a span of tokens of the text that was given.")
            first, last = self._read(n)
            return max(found, key=lambda span: first[span[0]] + last[span[1]])
        if isinstance(target, tuple) and len(target) == 2:
            s, e = position(text, target[0], allowed), position(text, target[1], allowed, last=True)
            if s in allowed and e in allowed and s <= e:
                return s, e
        raise TargetError(
            "the answer to a question is a str out of the text, or a tuple (first token, last token) inside it"
            f"{f', tokens {allowed[0]} to {allowed[-1]}' if allowed else ''}; got {target!r}."
        )

    def scores(self, choices: Sequence[Choice]) -> Tensor:
        every = torch.arange(len(choices), device=self.first.device)
        placed = [[int(self.batch.real(n)[at]) for at in span] for n, span in enumerate(choices)]
        s, e = torch.tensor(placed, device=self.first.device).T
        return self.first[every, s] + self.last[every, e]

    def probability(self, choice: Choice, n: int) -> float | None:
        real = self.batch.real(n)
        first, last = (row[n, real].detach().float().softmax(0) for row in (self.first, self.last))
        return float(first[choice[0]] * last[choice[1]])

    def name(self, choice: Choice, n: int) -> str:
        return "".join(self.batch.texts[n].pieces[choice[0] : choice[1] + 1]).strip()

    def _allowed(self, n: int) -> list[int]:
        text = self.batch.texts[n]
        pair = any(text.second)
        return [k for k in range(len(text)) if not text.special[k] and (text.second[k] or not pair)]

    def _read(self, n: int) -> tuple[list[float], list[float]]:
        real = self.batch.real(n)
        first, last = (row[n, real].detach().float().tolist() for row in (self.first, self.last))
        return first, last
