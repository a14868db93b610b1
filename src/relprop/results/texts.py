"""The relevance of a text's tokens and words. It is shown and saved like any result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from relprop.results.files.checks import require
from relprop.results.files.texts import check_text
from relprop.results.ledger import Ledger
from relprop.results.made import Made
from relprop.results.protocol import loadable
from relprop.results.words import Word
from relprop.signatures import public

if TYPE_CHECKING:
    from relprop.rendering.view import Options, Row, View

_WIDTH = 24  # letters of the longest bar
ROTARY = "rotary"
"""The key in `positions` of relevance that ends in rotary encodings."""


@loadable
@dataclass(kw_only=True)
class TextRelevance(Made):
    """How much each token of a text contributed to one score.

    Attributes:
        tokens: the tokens, as the tokenizer names them.
        pieces: the tokens as they read in the text, spaces included.
        special: which tokens are the model's own, such as `[CLS]`.
        relevance: the relevance of each token, (T,), on the CPU.
        target: the name of what was explained.
        index: the target's index: a class, a token id or a span; both for a contrast.
        probability: the target's probability; None for contrasts, and for scores that are not a distribution.
        score: the explained score, a tensor of one number. Tokens, positions and residual add up to it, or to the seed
            where one was given.
        residual: what biases, other inputs and stabilisers absorbed, likewise.
        predictions: the model's likeliest answers, with probabilities.
        positions: if requested, the relevance that ended in position encodings and other tables, by the module that
            makes them; per token (T,) where they belong to tokens. The key of rotary ones is "rotary".
        decoder: the same for what an encoder-decoder model had written so far.
        blocks: if requested, the relevance of each token at the input of each block, (L, T).
        heads: the relevance of each attention head at each token, (L, H, T).
        neurons: the relevance of each MLP's neurons, a (T, D) tensor per block.
        layers: the relevance of layers requested by path; the first axis is the tokens'.
        spans: the tokens of each word, as (start, stop).

    How it was made is in `composite`, `rules`, `unknown`, `model`, `ledger` and `notices`, as in `Relevance`.
    """

    kind: ClassVar[str] = "text"

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
        """The words, each with the sum of its tokens' relevance."""
        return [
            Word(
                "".join(self.pieces[a:b]).strip() or "".join(self.pieces[a:b]), float(self.relevance[a:b].sum()),
                all(self.special[a:b]), range(a, b),
            )
            for a, b in self.spans
        ]  # fmt: skip

    def top(self, count: int = 5) -> list[Word]:
        """The words with the most relevance, without special ones."""
        return sorted((w for w in self.words if not w.special), key=lambda w: -w.relevance)[:count]

    @public(".grouped")
    def grouped(self, groups: Mapping[str, Any]) -> dict[str, float]:
        """The relevance of spans, such as a question and its context; tokens of none are "in no group".

        Args:
            groups: a span by its name: words of the text that occur once, as a str; the numbers of its tokens, as
                (start, stop), where stop is the token after the last; or a list of such.

        Raises:
            InputError: a span is empty or not in the text, or two share a token.
        """
        from relprop.results.spans import grouped

        return grouped(self, groups)

    def __str__(self) -> str:
        """A line per word, with a bar: to the right for the target, to the left against it."""
        words = self.words
        names = [plain(w.text) for w in words]
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
        lines += [f"  {plain(notice)}" for notice in self.notices]
        return "\n".join(lines)

    __repr__ = __str__

    def _head(self) -> str:
        sure = "" if self.probability is None else f", probability {self.probability:.3f}"
        return (
            f"{plain(self.target)!r}{sure}: score {self.score:.4g} on {len(self)} tokens, residual {self.residual:.4g}, "
            f"by {self.composite.name!r}"
        )

    def in_tables(self) -> float:
        """The relevance that ended in positions that are looked up or added, without rotary ones."""
        return sum(float(r.sum()) for name, r in self.positions.items() if name != ROTARY)

    def views(self, options: Options) -> list[View]:
        """Its drawings, for `show`, `save` and the other outputs."""
        from relprop.results import text_views

        return text_views.text_views(self, options)

    def rows(self) -> list[Row]:
        """The numbers that a report lists."""
        from relprop.results import text_views

        return text_views.rows_of_text(self)

    def subject(self, n: int) -> str:
        """What was explained, worded for a sentence."""
        return self.rows()[n].explained

    def facts(self, n: int) -> dict[str, Any]:
        """The target's probability, the likeliest answers, and the relevance of each token."""
        from relprop.results import text_views

        return text_views.facts_of_text(self)

    def given(self) -> Any:
        """The tokens."""
        return self.tokens

    def kept(self) -> dict[str, Any]:
        """What a folder stores."""
        own = {name: _number(getattr(self, name)) for name in names_of(TextRelevance)}
        return own | {"decoder": None if self.decoder is None else self.decoder.kept()}

    @classmethod
    def restored(cls, content: dict[str, Any], made: dict[str, Any], ledger: Callable[[int], Ledger]) -> TextRelevance:
        """Rebuilds the result from the content of a folder."""
        names = names_of(cls)
        require(content, names)
        own = {name: content[name] for name in names}
        if own["decoder"] is not None:
            written = own["decoder"]
            if not isinstance(written, dict) or any(name not in written for name in names):
                raise ValueError("what was written so far is not described")
            decoder = {name: written[name] for name in names}
            if decoder["decoder"] is not None:
                raise ValueError("what was written so far has a part of its own")
            check_text(decoder)
            own["decoder"] = cls(**decoder, **made | {"notices": []})
        check_text(own)
        return cls(**own, **made, ledger=ledger(1))


def names_of(kind: type[Made]) -> list[str]:
    """The attributes of a kind of result, without those of `Made`."""
    made = {field.name for field in fields(Made)}
    return [field.name for field in fields(kind) if field.name not in made]


def _number(part: Any) -> Any:
    return float(part) if isinstance(part, Tensor) and part.ndim == 0 else part  # a score is a number in files


def plain(text: str) -> str:
    """Text that is safe for a terminal: characters that are not printable are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
