"""Comprehensiveness and sufficiency, of texts at first, and of anything with units here.

Index letters: M methods, N samples, K shares, U units.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.evaluation.asks import Changed
from relprop.evaluation.flipping import ask_for
from relprop.evaluation.metric import Metric, Running, SampleWork, positive
from relprop.evaluation.score_columns import Column


@dataclass(frozen=True)
class Erasure(Metric):
    """What the score loses without its most relevant units (comprehensiveness), and with nothing but them (sufficiency).

    Args:
        shares: the shares of units; the mean over them is taken. Each is at least one unit.

    References:
        DeYoung et al. 2020, "ERASER: a benchmark to evaluate rationalized NLP models", ACL.
    """

    name: ClassVar[str] = "erasure"
    replaces: ClassVar[bool] = True

    shares: tuple[float, ...] = (0.01, 0.05, 0.1, 0.2, 0.5)

    def check(self, work: SampleWork) -> None:
        """Refuses shares that are none."""
        if not self.shares or not all(0 < share <= 1 for share in self.shares):
            raise InputError(f"shares lie above 0 and up to 1; got {self.shares!r}.")

    def run(self, work: SampleWork) -> Running:
        """Both numbers for each replacement."""
        counts = work.counts[:, None].double()
        shares = torch.tensor(self.shares, dtype=torch.float64, device=counts.device)
        taken = (counts * shares).round().clamp(min=1).long()
        without = [ask_for(work, work.ranks(), taken, each) for each in work.replacements]
        alone = [ask_for(work, work.reversed_ranks(), counts.long() - taken, each) for each in work.replacements]
        found = yield [*without, *alone]
        columns = []
        shape = len(work.methods), work.samples, len(self.shares)
        for n, each in enumerate(work.replacements):
            lost = work.subject.score[:, None] - found[n].reshape(shape)
            kept = work.subject.score[:, None] - found[len(without) + n].reshape(shape)
            columns.append(Column(self.name, "comprehensiveness", lost.mean(2), 1, str(each)))
            columns.append(Column(self.name, "sufficiency", kept.mean(2), -1, str(each)))
        return columns


@dataclass(frozen=True)
class SoftErasure(Metric):
    """Comprehensiveness and sufficiency where each entry is dropped by chance, the likelier the more relevant its unit.

    Relevance is scaled to lie between 0 and 1. For comprehensiveness an entry is dropped with that probability, for
    sufficiency it is kept with it.

    Args:
        draws: how often each sample is drawn.

    References:
        Zhao and Aletras 2023, "Incorporating attribution importance for improving faithfulness metrics", ACL.
    """

    name: ClassVar[str] = "soft_erasure"
    replaces: ClassVar[bool] = True

    draws: int = 8

    def check(self, work: SampleWork) -> None:
        """Refuses ids, of which no part can be dropped."""
        positive("draws", self.draws)
        if not work.subject.main.is_floating_point():
            raise InputError("soft_erasure drops parts of embeddings: pass inputs_embeds in place of ids.")

    def run(self, work: SampleWork) -> Running:
        """Both numbers for each replacement."""
        methods, samples = len(work.methods), work.samples
        chances = _scaled(work)
        at = work.units.at.expand(samples, *work.units.at.shape[1:])
        noise = torch.stack([self._noise(work, n) for n in range(samples)])
        rows = torch.arange(methods * samples * self.draws)

        def dropped(some: Tensor, complement: bool) -> Tensor:
            some = some.to(rows.device)
            m, n, d = some // (samples * self.draws), some // self.draws % samples, some % self.draws
            where = at[n.to(at.device)]
            flat = where.reshape(len(some), -1)
            chance = chances[m, n].gather(1, flat.clamp(min=0).cpu()).reshape(where.shape)
            chance = torch.where(where.cpu() < 0, 0.0, 1 - chance if complement else chance)
            return (noise[n, d] < chance).to(work.subject.main.device)

        one = (rows // self.draws % samples).to(work.relevance.device)
        asks = [
            Changed(one, lambda some, c=c: dropped(some, c), f"{self.name} {c} {self.draws} {_digest(work)}", each)  # type: ignore[misc]
            for each in work.replacements
            for c in (False, True)
        ]
        found = yield asks
        columns = []
        for n, each in enumerate(work.replacements):
            for c, (score, better) in enumerate((("soft_comprehensiveness", 1), ("soft_sufficiency", -1))):
                scores = found[2 * n + c].reshape(methods, samples, self.draws).mean(2)
                columns.append(Column(self.name, score, work.subject.score - scores, better, str(each)))
        return columns

    def _noise(self, work: SampleWork, n: int) -> Tensor:
        """The same noise for all methods, (D, ...)."""
        return torch.rand((self.draws, *work.subject.main.shape[1:]), generator=work.generator(self.name, n))


def _scaled(work: SampleWork) -> Tensor:
    """Relevance between 0 and 1 in each map, (M, N, U); 1/2 everywhere in a constant map."""
    present = work.units.present(work.samples)
    low = work.relevance.masked_fill(~present, float("inf")).amin(2, keepdim=True)
    high = work.relevance.masked_fill(~present, float("-inf")).amax(2, keepdim=True)
    span = high - low
    return torch.where(span > 0, (work.relevance - low) / span, 0.5).clamp(0, 1).cpu()


def _digest(work: SampleWork) -> str:
    """Says which maps were used: rows of the same number are others where maps are."""
    return hashlib.sha256(work.relevance.cpu().numpy().tobytes()).hexdigest()
