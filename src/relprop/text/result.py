"""The relevance of a text's tokens and words, and of a generation. They are shown and saved as any result is."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from relprop.attribution.identity import Identity
from relprop.attribution.outputs import Outputs
from relprop.composites import Composite, Place
from relprop.engine.ledger import Ledger
from relprop.rules import Rule
from relprop.text import shown

if TYPE_CHECKING:
    from relprop.rendering import Options
    from relprop.rendering.views import Row, View

_WIDTH = 24  # letters of the longest bar
ROTARY = "rotary"
"""What relevance that ends in rotations is called among positions."""


@dataclass(frozen=True)
class Word:
    """The tokens of a word, and the sum of their relevance.

    Attributes:
        text: as it reads.
        relevance: of all its tokens.
        special: whether it is one of the model's own signs.
        tokens: its tokens, as a range of positions.
    """

    text: str
    relevance: float
    special: bool
    tokens: range


@dataclass(kw_only=True)
class Made(Outputs):
    """How relevance of tokens was made, for reports.

    Attributes:
        composite: the composite that acted; its name says what "auto" picked.
        rules: each place a rule was asked for, and the rule that acted (None: the operation's default).
        unknown: operations whose native gradient was used because of `strict=False`, with their number of calls.
        model: what was explained, by name.
        ledger: with `ledger=True`, what absorbed the residual, see `Relevance`; of a generation, for each token of it.
        notices: what should be known of the result, see `Relevance`.
    """

    composite: Composite
    rules: list[tuple[Place, Rule | None]] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    model: Identity | None = None
    ledger: Ledger = field(default_factory=lambda: Ledger([]))
    notices: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class TextRelevance(Made):
    """How much each token of a text contributed to one score.

    Attributes:
        tokens: as the tokenizer names them.
        pieces: as they read in the text, spaces included.
        special: which tokens are the model's own, such as `[CLS]`.
        relevance: of each token, (T,), on the CPU.
        target: what was explained, as people call it.
        index: its index: a class, the id of a token, a span; for a contrast both.
        probability: how sure the model was of it; None where its scores make no distribution, and for contrasts.
        score: what was explained, a tensor of one number; tokens, positions and residual add up to it (to the seed, where
            one was given).
        residual: what biases, other inputs and stabilisers absorbed, likewise.
        predictions: what the model finds likeliest, with probabilities.
        positions: relevance that ended in position encodings and other tables, where it was asked for: per module that
            makes them, per token (T,) where they belong to tokens; rotary ones are called "rotary".
        decoder: the same for what had been written so far, in encoder-decoder models.
        blocks: relevance of each token where it enters each block, (L, T), where parts were asked for.
        heads: of each attention head at each token, (L, H, T).
        neurons: of each MLP's neurons, a (T, D) per block.
        layers: relevance of layers asked for by path; the first axis is the tokens'.
        spans: the tokens of each word, as (start, stop).

    How it was made is in `composite`, `rules`, `unknown`, `model`, `ledger` and `notices`, as in `Relevance`.
    """

    tokens: list[str]
    pieces: list[str]
    special: list[bool]
    relevance: Tensor
    target: str
    index: Any
    probability: float | None
    score: Tensor
    residual: Tensor
    spans: list[tuple[int, int]]
    predictions: list[tuple[str, float | None]] = field(default_factory=list)
    positions: dict[str, Tensor] = field(default_factory=dict)
    decoder: TextRelevance | None = None
    blocks: Tensor | None = None
    heads: Tensor | None = None
    neurons: list[Tensor] | None = None
    layers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("score", "residual"):
            if isinstance(getattr(self, name), float):
                setattr(self, name, torch.tensor(getattr(self, name), dtype=torch.float64))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def words(self) -> list[Word]:
        """Tokens of a word merged, their relevance added up."""
        return [
            Word(
                "".join(self.pieces[a:b]).strip() or "".join(self.pieces[a:b]), float(self.relevance[a:b].sum()),
                all(self.special[a:b]), range(a, b),
            )
            for a, b in self.spans
        ]  # fmt: skip

    def top(self, count: int = 5) -> list[Word]:
        """The words with most relevance, without special ones."""
        return sorted((w for w in self.words if not w.special), key=lambda w: -w.relevance)[:count]

    def __str__(self) -> str:
        """A line per word, with a bar: to the right for the target, to the left against it."""
        words = self.words
        names = [_plain(w.text) for w in words]
        wide = min(max(map(len, names)), 30)
        most = max((abs(w.relevance) for w in words if isfinite(w.relevance)), default=0.0) or 1.0
        left = any(w.relevance < 0 for w in words)
        lines = [self._head()]
        for w, name in zip(words, names, strict=True):
            bar = "█" * round(abs(w.relevance) / most * _WIDTH) if isfinite(w.relevance) else ""
            short = name if len(name) <= 30 else name[:29] + "…"
            against, towards = (bar, "") if w.relevance < 0 else ("", bar)
            before = f"{against:>{_WIDTH}}│" if left else "│"
            lines.append(f"  {short:<{wide}} {w.relevance:+9.3g} {before}{towards}".rstrip())
        if self.positions:
            lines.append(
                f"  positions {', '.join(f'{name}: {float(r.sum()):+.3g}' for name, r in self.positions.items())}"
            )
        if self.decoder is not None:
            lines += ["  written so far:", *str(self.decoder).splitlines()[1:]]
        lines += [f"  {_plain(notice)}" for notice in self.notices]
        return "\n".join(lines)

    __repr__ = __str__

    def _head(self) -> str:
        sure = "" if self.probability is None else f", probability {self.probability:.3f}"
        return (
            f"{_plain(self.target)!r}{sure}: score {self.score:.4g} on {len(self)} tokens, residual {self.residual:.4g}, "
            f"by {self.composite.name!r}"
        )

    def in_tables(self) -> float:
        """The relevance that ended in positions that are looked up or added; rotary ones are not among them."""
        return sum(float(r.sum()) for name, r in self.positions.items() if name != ROTARY)

    def views(self, options: Options) -> list[View]:
        """What is drawn of it; `show`, `save` and the others use it."""
        return shown.text_views(self, options)

    def rows(self) -> list[Row]:
        """The numbers that a report lists."""
        return shown.rows_of_text(self)


@dataclass(kw_only=True)
class GenerationRelevance(Made):
    """How much each token read contributed to each token generated, from one forward pass.

    Attributes:
        prompt: the tokens of the prompt, as they read.
        generated: the tokens generated, as they read.
        relevance: (G, P + G): row g is the relevance of the prompt and the tokens before g; exactly 0 from g on.
        probabilities: of each generated token, (G,).
        scores: (G,).
        residual: (G,): score less the sum of the row.
        special: which of the P + G tokens are the model's own.
        names: the P + G tokens as the tokenizer names them.

    In encoder-decoder models the prompt is the source text, and after it the sign that starts what is written.
    How it was made is in `composite`, `rules`, `unknown`, `model`, `ledger` and `notices`, as in `Relevance`.
    """

    prompt: list[str]
    generated: list[str]
    relevance: Tensor
    probabilities: Tensor
    scores: Tensor
    residual: Tensor
    special: list[bool]
    names: list[str]

    def __len__(self) -> int:
        return len(self.generated)

    @property
    def tokens(self) -> list[str]:
        """All tokens, the columns of the matrix."""
        return [*self.prompt, *self.generated]

    @property
    def read(self) -> Tensor:
        """Which tokens had been read when each was generated, (G, P + G)."""
        count, start = len(self.generated), len(self.prompt)
        return torch.arange(start + count) < torch.arange(start, start + count)[:, None]

    @property
    def text(self) -> str:
        """What was generated."""
        return "".join(self.generated)

    def of_prompt(self) -> Tensor:
        """Relevance of the prompt's tokens for the whole answer, (P,)."""
        return self.relevance[:, : len(self.prompt)].sum(0)

    def __str__(self) -> str:
        """A line per generated token: what it drew on most."""
        lines = [
            f"{len(self)} tokens generated from {len(self.prompt)}, by {self.composite.name!r}: {_plain(self.text)!r}"
        ]
        wide = min(max((len(_plain(t)) for t in self.generated), default=0), 20)
        for g, token in enumerate(self.generated):
            row = self.relevance[g]
            order = [int(i) for i in row.abs().argsort(descending=True)[:4] if row[i] != 0]
            drawn = ", ".join(
                f"{_plain(self.tokens[i]).strip() or _plain(self.tokens[i])!r} {float(row[i]):+.3g}" for i in order
            )
            lines.append(f"  {_plain(token)[:20]:<{wide}} {float(self.probabilities[g]):.2f}  {drawn}")
        lines += [f"  {_plain(notice)}" for notice in self.notices]
        return "\n".join(lines)

    __repr__ = __str__

    def views(self, options: Options) -> list[View]:
        """What is drawn of it; `show`, `save` and the others use it."""
        return shown.generation_views(self, options)

    def rows(self) -> list[Row]:
        """The numbers that a report lists."""
        return shown.rows_of_generation(self)


def _plain(text: str) -> str:
    """Text that steers no terminal: what is not printable is written as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
