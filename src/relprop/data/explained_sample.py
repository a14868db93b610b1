"""One sample of a run: its numbers, its map, and the tokens of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from relprop.composites import Composite
from relprop.errors import InputError
from relprop.rendering.text import read
from relprop.rendering.visible import quoted
from relprop.results.relevance import Relevance
from relprop.results.texts import TextRelevance
from relprop.signatures import public


@dataclass(frozen=True, eq=False)
class TokensOfSample:
    """The tokens of a text.

    Attributes:
        ids: their ids.
        names: the tokens as the tokenizer names them.
        words: the number of the word that each belongs to; -1 for special tokens.
    """

    ids: Sequence[int]
    names: Sequence[str]
    words: Sequence[int]


@dataclass(frozen=True, eq=False)
class ExplainedSample:
    """One sample of a run. With several targets, `target`, `score`, `residual` and `map` have one entry for each.

    Attributes:
        key: its key.
        status: "explained" or "quarantined".
        reason: why it was quarantined; None otherwise.
        target: the class that was explained; -1 for a target that is not a class.
        score: the score that was explained.
        residual: what of it reached no input.
        map: the relevance of the input in the form that was kept, float32; None if none was. Of a text, one number for
            each token.
        layers: what was kept of layers, by the name of the array.
        composite: the name of the composite that acted.
        tokens: the tokens of a text; None for other inputs.
        decoder: of an encoder-decoder, the relevance of each token that its decoder was given; None for other networks.
        ledger: what absorbed the residual, by cause, if the run kept it; else None.
    """

    key: str
    status: str
    reason: str | None
    target: Any
    score: Any
    residual: Any
    map: np.ndarray | None
    layers: Mapping[str, np.ndarray] = field(default_factory=dict)
    composite: str | None = None
    tokens: TokensOfSample | None = None
    ledger: Mapping[str, Any] | None = None
    decoder: np.ndarray | None = None

    @public(".relevance")
    def relevance(self, inputs: Any = None, *, tokenizer: Any = None, which: int = 0) -> Any:
        """A `Relevance` of this sample, to draw or save; of a text a `TextRelevance`. Of its composite it has the name alone.

        Args:
            inputs: its input with the axis of samples, to draw the map on; only if the map was kept in full.
            tokenizer: the tokenizer of a text, which reads its tokens; None takes them as the run names them.
            which: which of several targets, from 0.

        Raises:
            InputError: the sample has no map, or no such target.
        """
        if self.map is None or self.status != "explained":
            raise InputError(f"{quoted(self.key)} has no map: {(self.reason or 'the run keeps none').rstrip('.')}.")
        values, target, score, residual = self._of_target(which)
        rules = Composite(name=self.composite or "unknown")
        if self.tokens is not None:
            return self._of_text(self.tokens, values, target, score, residual, rules, tokenizer)
        found = torch.from_numpy(values)[None]
        found = found[:, None] if found.ndim == 3 else found  # a map over height and width is a picture of one channel
        scores = torch.tensor([score])
        return Relevance(found, scores[:, None], scores, [target], rules, torch.tensor([residual]), inputs=inputs)

    def _of_target(self, which: int) -> tuple[Any, int, float, float]:
        """The map and the numbers of one target."""
        count = len(self.target) if isinstance(self.target, np.ndarray) else 1
        if isinstance(which, bool) or not isinstance(which, int) or not 0 <= which < count:
            raise InputError(f"which= is the number of a target, 0 to {count - 1}; got {which!r}.")
        if not isinstance(self.target, np.ndarray) or self.map is None:
            return self.map, self.target, self.score, self.residual
        return self.map[which], int(self.target[which]), float(self.score[which]), float(self.residual[which])

    def _of_text(
        self, tokens: TokensOfSample, values: np.ndarray, target: int, score: float, residual: float, rules: Composite,
        tokenizer: Any,
    ) -> TextRelevance:  # fmt: skip
        special = [word < 0 for word in tokens.words]
        pieces = [token.text for token in read(tokens.names, values, special=special)]
        if tokenizer is not None:
            from relprop.text.tokens import tokens_of_ids

            pieces = tokens_of_ids(tokenizer, tokens.ids).pieces
        return TextRelevance(
            tokens=list(tokens.names), pieces=pieces, special=special,
            relevance=torch.from_numpy(values.copy()), target=str(target), index=target, probability=None,
            score=torch.tensor(score), residual=torch.tensor(residual), spans=_spans(tokens.words), composite=rules,
        )  # fmt: skip


def _spans(words: Sequence[int]) -> list[tuple[int, int]]:
    """The tokens of each word, as (start, stop); each special token is one by itself."""
    starts = [n for n, word in enumerate(words) if n == 0 or word < 0 or word != words[n - 1]]
    return list(zip(starts, [*starts[1:], len(words)], strict=True))
