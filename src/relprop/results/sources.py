"""The relevance of sources, such as documents in a prompt, for the sentences of an answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from relprop.results.files.checks import real, require
from relprop.signatures import public

_SHOWN = 60  # letters of a sentence in a table


@dataclass(frozen=True)
class LeftOut:
    """What happened when one source was left out of the prompt.

    Attributes:
        source: the number of the source.
        scores: how far the score of each sentence lies above that without the source, (S,).
        log_probabilities: likewise for the log-probability of each sentence, given the sentences before it.
    """

    source: int
    scores: Tensor
    log_probabilities: Tensor


@dataclass(frozen=True)
class Sources:
    """The relevance of each source for each sentence of an answer.

    The score of a sentence is the sum of its tokens' scores. It is the sum of its relevance in the sources, in the rest of
    the prompt and in the answer so far, and of the residual.

    Attributes:
        names: the names of the sources.
        spans: for each source the first token of the prompt and the one after the last.
        sentences: the sentences of the answer.
        ends: for each sentence the first generated token and the one after the last.
        relevance: (S, K): the relevance of each source for each sentence.
        prompt: (S,): that of the rest of the prompt.
        answer: (S,): that of the sentences before and of the sentence's own tokens.
        residual: (S,): what biases and other constants absorbed.
        scores: (S,): the scores of the sentences.
        verified: what happened when the strongest sources were left out, the strongest first.
    """

    names: list[str]
    spans: list[tuple[int, int]]
    sentences: list[str]
    ends: list[tuple[int, int]]
    relevance: Tensor
    prompt: Tensor
    answer: Tensor
    residual: Tensor
    scores: Tensor
    verified: list[LeftOut] = field(default_factory=list)

    @property
    def of_answer(self) -> Tensor:
        """The relevance of each source for the whole answer, (K,)."""
        return self.relevance.sum(0)

    def strongest(self, most: int = 3) -> list[tuple[str, float]]:
        """The sources with most relevance for the whole answer, by size."""
        order = self.of_answer.abs().argsort(descending=True, stable=True)[:most].tolist()
        return [(self.names[k], float(self.of_answer[k])) for k in order]

    def table(self) -> str:
        """Sentences and sources; below, each source that was left out, with the true change beside its relevance."""
        columns = [*self.names, "rest of prompt", "answer so far", "absorbed", "score"]
        values = torch.cat(
            [self.relevance, *(t[:, None] for t in (self.prompt, self.answer, self.residual, self.scores))], 1
        )
        wide = [max(len(name), 9) for name in columns]
        left = min(max(len(s) for s in self.sentences), _SHOWN)
        lines = [f"{'':<{left}}  {'  '.join(f'{name:>{w}}' for name, w in zip(columns, wide, strict=True))}"]
        for said, row in zip(self.sentences, values.tolist(), strict=True):
            short = _plain(said) if len(said) <= left else f"{_plain(said)[: left - 1]}…"
            lines.append(f"{short:<{left}}  {'  '.join(f'{v:>+{w}.3g}' for v, w in zip(row, wide, strict=True))}")
        for one in self.verified:
            lines.append(
                f"without {self.names[one.source]}: the score falls by {float(one.scores.sum()):.3g} (relevance "
                f"{float(self.of_answer[one.source]):.3g}), the log-probability by {float(one.log_probabilities.sum()):.3g}"
            )
        return "\n".join(lines)

    __str__ = table
    __repr__ = table

    def drawing(self) -> Any:
        """Each sentence, with a bar for each source and marks for the true changes."""
        from relprop.rendering.drawing import framed, titled
        from relprop.rendering.sources import draw

        rest = [("rest of the prompt", self.prompt), ("answer so far", self.answer), ("absorbed", self.residual)]
        drawn = draw(
            self.sentences,
            self.scores.tolist(),
            [(name, self.relevance[:, k].tolist()) for k, name in enumerate(self.names)],
            [(name, values.tolist()) for name, values in rest],
            {one.source: one.scores.tolist() for one in self.verified},
        )
        said = "bars: relevance; ticks: how far the score falls without the source" if self.verified else ""
        return framed(titled(drawn, "an answer by its sources", lines=[said]))

    def show(self) -> None:
        """Opens a picture of it."""
        self.drawing().to_image(2.0).show()

    @public(".save")
    def save(self, path: str | PathLike[str]) -> None:
        """Writes the drawing as `.svg`, `.png` or `.pdf`.

        Raises:
            InputError: the suffix is none of these.
        """
        from relprop.results.files.drawings import save_drawing

        save_drawing(self.drawing(), path, "sources are")

    def kept(self) -> dict[str, Any]:
        """What a folder stores."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "verified"}
        return own | {"verified": [(one.source, one.scores, one.log_probabilities) for one in self.verified]}

    @classmethod
    def restored(cls, content: Any) -> Sources:
        """Rebuilds it from the content of a folder, which may come from anyone.

        Raises:
            ValueError: the content is not that of sources.
        """
        if not isinstance(content, dict):
            raise ValueError("sources are not described")
        require(content, cls.__dataclass_fields__)
        own = {name: content[name] for name in cls.__dataclass_fields__}
        count, many = (len(own[name]) if isinstance(own[name], list) else 0 for name in ("sentences", "names"))
        good = count and many and real(own["relevance"], (count, many))
        good = good and all(real(own[name], (count,)) for name in ("prompt", "answer", "residual", "scores"))
        good = good and all(type(said) is str for said in [*own["names"], *own["sentences"]])
        good = good and _ranges(own["spans"], many) and _ranges(own["ends"], count)
        verified = own["verified"]
        good = good and isinstance(verified, list) and all(
            isinstance(one, tuple) and len(one) == 3 and type(one[0]) is int and 0 <= one[0] < many
            and real(one[1], (count,)) and real(one[2], (count,)) for one in verified
        )  # fmt: skip
        if not good:
            raise ValueError("sources do not fit each other")
        return cls(**own | {"verified": [LeftOut(*one) for one in verified]})


def _ranges(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(
        isinstance(one, tuple) and len(one) == 2 and all(type(i) is int for i in one) and 0 <= one[0] < one[1] for one in value
    )  # fmt: skip


def _plain(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
