"""The relevance of a text's tokens and words, and of a generation; both show themselves as text and in notebooks."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from relprop.text.drawn import Drawn

if TYPE_CHECKING:
    from relprop.rendering import Drawing

_WIDTH = 24  # letters of the longest bar
_POSITIVE, _NEGATIVE = "214, 39, 40", "31, 119, 180"


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


@dataclass
class TextRelevance(Drawn):
    """How much each token of a text contributed to one score.

    Attributes:
        tokens: as the tokenizer names them.
        pieces: as they read in the text, spaces included.
        special: which tokens are the model's own, such as `[CLS]`.
        relevance: of each token, (T,), on the CPU.
        target: what was explained, as people call it.
        index: its index: a class, the id of a token, a span; for a contrast both.
        probability: how sure the model was of it; None where its scores make no distribution, and for contrasts.
        score: what was explained; tokens, positions and residual add up to it (to the seed, where one was given).
        residual: what biases, other inputs and stabilisers absorbed.
        composite: the name of the rules.
        predictions: what the model finds likeliest, with probabilities.
        positions: relevance that ended in position encodings and other tables, where it was asked for: per module that
            makes them, per token (T,) where they belong to tokens; rotary ones are called "rotary".
        decoder: the same for what had been written so far, in encoder-decoder models.
        blocks: relevance of each token where it enters each block, (L, T), where parts were asked for.
        heads: of each attention head at each token, (L, H, T).
        neurons: of each MLP's neurons, a (T, D) per block.
        layers: relevance of layers asked for by path; the first axis is the tokens'.
        spans: the tokens of each word, as (start, stop).
    """

    tokens: list[str]
    pieces: list[str]
    special: list[bool]
    relevance: Tensor
    target: str
    index: Any
    probability: float | None
    score: float
    residual: float
    composite: str
    spans: list[tuple[int, int]]
    predictions: list[tuple[str, float | None]] = field(default_factory=list)
    positions: dict[str, Tensor] = field(default_factory=dict)
    decoder: TextRelevance | None = None
    blocks: Tensor | None = None
    heads: Tensor | None = None
    neurons: list[Tensor] | None = None
    layers: dict[str, Any] = field(default_factory=dict)

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
        most = max((abs(w.relevance) for w in words), default=0.0) or 1.0
        left = any(w.relevance < 0 for w in words)
        lines = [self._head()]
        for w, name in zip(words, names, strict=True):
            bar = "█" * round(abs(w.relevance) / most * _WIDTH)
            shown = name if len(name) <= 30 else name[:29] + "…"
            against, towards = (bar, "") if w.relevance < 0 else ("", bar)
            before = f"{against:>{_WIDTH}}│" if left else "│"
            lines.append(f"  {shown:<{wide}} {w.relevance:+9.3g} {before}{towards}".rstrip())
        if self.positions:
            lines.append(
                f"  positions {', '.join(f'{name}: {float(r.sum()):+.3g}' for name, r in self.positions.items())}"
            )
        if self.decoder is not None:
            lines += ["  written so far:", *str(self.decoder).splitlines()[1:]]
        return "\n".join(lines)

    __repr__ = __str__

    def _head(self) -> str:
        sure = "" if self.probability is None else f", probability {self.probability:.3f}"
        return (
            f"{_plain(self.target)!r}{sure}: score {self.score:.4g} on {len(self)} tokens, residual {self.residual:.4g}, "
            f"by {self.composite!r}"
        )

    def drawing(self, *, merge: bool = False, room: float = 720, **options: Any) -> Drawing:
        """The text, each token on its colour.

        Args:
            merge: whether the tokens of a word are merged.
            room: the width of the lines.
            **options: see `relprop.rendering.TokenMap.of`.
        """
        from relprop.rendering import TokenMap, titled

        pieces, values, special = self.pieces, self.relevance, self.special
        if merge:
            pieces = ["".join(self.pieces[a:b]) for a, b in self.spans]
            values = torch.tensor([w.relevance for w in self.words])
            special = [w.special for w in self.words]
        shown = TokenMap.of(pieces, values, style="plain", special=special, **options)
        sure = "" if self.probability is None else f", probability {self.probability:.2f}"
        return titled(shown.drawing(room), f"{_plain(self.target).strip()}{sure}")

    def _repr_html_(self) -> str:
        """The text itself, tinted: red speaks for the target, blue against it."""
        most = float(self.relevance.abs().max()) or 1.0
        parts = [_tinted(p, float(r) / most, float(r)) for p, r in zip(self.pieces, self.relevance, strict=True)]
        return f"<div><small>{html.escape(self._head())}</small><p>{''.join(parts)}</p></div>"


@dataclass
class GenerationRelevance(Drawn):
    """How much each token read contributed to each token generated, from one forward pass.

    Attributes:
        prompt: the tokens of the prompt, as they read.
        generated: the tokens generated, as they read.
        relevance: (G, P + G): row g is the relevance of the prompt and the tokens before g; exactly 0 from g on.
        probabilities: of each generated token, (G,).
        scores: (G,).
        residual: (G,): score less the sum of the row.
        composite: the name of the rules.
        special: which of the P + G tokens are the model's own.
        names: the P + G tokens as the tokenizer names them.
    """

    prompt: list[str]
    generated: list[str]
    relevance: Tensor
    probabilities: Tensor
    scores: Tensor
    residual: Tensor
    composite: str
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
        lines = [f"{len(self)} tokens generated from {len(self.prompt)}, by {self.composite!r}: {_plain(self.text)!r}"]
        wide = min(max((len(_plain(t)) for t in self.generated), default=0), 20)
        for g, token in enumerate(self.generated):
            row = self.relevance[g]
            order = [int(i) for i in row.abs().argsort(descending=True)[:4] if row[i] != 0]
            drawn = ", ".join(
                f"{_plain(self.tokens[i]).strip() or _plain(self.tokens[i])!r} {float(row[i]):+.3g}" for i in order
            )
            lines.append(f"  {_plain(token)[:20]:<{wide}} {float(self.probabilities[g]):.2f}  {drawn}")
        return "\n".join(lines)

    __repr__ = __str__

    def drawing(self, **options: Any) -> Drawing:
        """The matrix: a row per generated token, a column per token read; see `relprop.rendering.matrix`."""
        from relprop.rendering import matrix

        shown = self.relevance.double().masked_fill(~self.read, torch.nan)
        return matrix(self.generated, self.tokens, shown, row_style="plain", **options)

    def _repr_html_(self) -> str:
        """The matrix as a table, a row per generated token."""
        most = float(self.relevance.abs().max()) or 1.0
        head = "".join(f"<th>{html.escape(_plain(t))}</th>" for t in self.tokens)
        rows = [
            f"<tr><th>{html.escape(_plain(token))}</th>"
            + "".join(_cell(float(r) / most, float(r), bool(seen)) for r, seen in zip(row, read, strict=True)) + "</tr>"
            for token, row, read in zip(self.generated, self.relevance, self.read, strict=True)
        ]  # fmt: skip
        return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _plain(text: str) -> str:
    """Text that steers no terminal: what is not printable is written as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _colour(part: float) -> str:
    return f"rgba({_POSITIVE if part > 0 else _NEGATIVE}, {abs(part):.2f})"


def _tinted(piece: str, part: float, value: float) -> str:
    return f'<span style="background: {_colour(part)}" title="{value:+.3g}">{html.escape(_plain(piece))}</span>'


def _cell(part: float, value: float, read: bool) -> str:
    return f'<td style="background: {_colour(part)}" title="{value:+.3g}"></td>' if read else "<td></td>"
