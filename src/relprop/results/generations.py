"""The relevance of a generation: of what was read, for each token that was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from relprop.results.files.checks import require
from relprop.results.files.texts import check_generation
from relprop.results.ledger import Ledger
from relprop.results.made import Made
from relprop.results.protocol import loadable
from relprop.results.sources import Sources
from relprop.results.texts import names_of, plain

if TYPE_CHECKING:
    from relprop.rendering.view import Options, Row, View


@loadable
@dataclass(kw_only=True)
class GenerationRelevance(Made):
    """How much each token that was read contributed to each generated token, from one forward pass.

    Attributes:
        prompt: the tokens of the prompt, as they read.
        generated: the generated tokens, as they read.
        relevance: (G, P + G): row g is the relevance of the prompt and the tokens before g; exactly 0 from g on.
        probabilities: the probability of each generated token, (G,).
        scores: the score of each generated token, (G,).
        residual: (G,): the score minus the sum of the row.
        special: which of the P + G tokens are the model's own.
        names: the P + G tokens as the tokenizer names them.
        sources: if asked for, the relevance of each source for each sentence of the answer.

    In encoder-decoder models the prompt is the source text, followed by the decoder's start token.
    How it was made is in `composite`, `rules`, `unknown`, `model`, `ledger` and `notices`, as in `Relevance`.
    """

    kind: ClassVar[str] = "generation"

    prompt: list[str]
    generated: list[str]
    relevance: Tensor
    probabilities: Tensor
    scores: Tensor
    residual: Tensor
    special: list[bool]
    names: list[str]
    sources: Sources | None = None

    def __len__(self) -> int:
        return len(self.generated)

    @property
    def tokens(self) -> list[str]:
        """All tokens, the columns of the matrix."""
        return [*self.prompt, *self.generated]

    @property
    def read(self) -> Tensor:
        """Which tokens had been read when each token was generated, (G, P + G)."""
        count, start = len(self.generated), len(self.prompt)
        return torch.arange(start + count) < torch.arange(start, start + count)[:, None]

    @property
    def text(self) -> str:
        """The generated text."""
        return "".join(self.generated)

    def of_prompt(self) -> Tensor:
        """Relevance of the prompt's tokens for the whole answer, (P,)."""
        return self.relevance[:, : len(self.prompt)].sum(0)

    def __str__(self) -> str:
        """A line per generated token, with the tokens that contributed most."""
        lines = [
            f"{len(self)} tokens generated from {len(self.prompt)}, by {self.composite.name!r}: {plain(self.text)!r}"
        ]
        wide = min(max((len(plain(t)) for t in self.generated), default=0), 20)
        for g, token in enumerate(self.generated):
            row = self.relevance[g]
            order = [int(i) for i in row.abs().argsort(descending=True)[:4] if row[i] != 0]
            drawn = ", ".join(
                f"{plain(self.tokens[i]).strip() or plain(self.tokens[i])!r} {float(row[i]):+.3g}" for i in order
            )
            lines.append(f"  {plain(token)[:20]:<{wide}} {float(self.probabilities[g]):.2f}  {drawn}")
        lines += [] if self.sources is None else str(self.sources).splitlines()
        lines += [f"  {plain(notice)}" for notice in self.notices]
        return "\n".join(lines)

    __repr__ = __str__

    def views(self, options: Options) -> list[View]:
        """Its drawings, for `show`, `save` and the other outputs."""
        from relprop.results import text_views

        return text_views.generation_views(self, options)

    def rows(self) -> list[Row]:
        """The numbers that a report lists."""
        from relprop.results import text_views

        return text_views.rows_of_generation(self)

    def subject(self, n: int) -> str:
        """The n-th generated token, worded for a sentence."""
        return self.rows()[n].explained

    def heading(self) -> str:
        """The name of the kind: the tokens would make a poor file name."""
        return "generation"

    def facts(self, n: int) -> dict[str, Any]:
        """The probability of a token, and the relevance of each token read before it."""
        from relprop.results import text_views

        return text_views.facts_of_generation(self, n)

    def given(self) -> Any:
        """The tokens."""
        return self.tokens

    def kept(self) -> dict[str, Any]:
        """What a folder stores."""
        own = {name: getattr(self, name) for name in names_of(GenerationRelevance) if name != "sources"}
        return own if self.sources is None else own | {"sources": self.sources.kept()}

    @classmethod
    def restored(
        cls, content: dict[str, Any], made: dict[str, Any], ledger: Callable[[int], Ledger]
    ) -> GenerationRelevance:
        """Rebuilds the result from the content of a folder."""
        names = [name for name in names_of(cls) if name != "sources"]
        require(content, names)
        own = {name: content[name] for name in names}
        check_generation(own)
        if content.get("sources") is not None:
            own["sources"] = Sources.restored(content["sources"])
        return cls(**own, **made, ledger=ledger(len(own["generated"])))
