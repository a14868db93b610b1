"""Flipping between the best and the worst order there is, so that areas of two models can be compared.

Index letters: M methods, N samples, U units, B beams.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.evaluation.asks import Ask, Removed
from relprop.evaluation.flipping import ask_for
from relprop.evaluation.metric import Metric, Running, SampleWork, positive
from relprop.evaluation.replacements import Replacement
from relprop.evaluation.score_columns import Column

EXACT = 8
"""Up to this number of units, all orders are compared."""


@dataclass(frozen=True)
class NormalisedFlipping(Metric):
    """NAOPC: the area over the curve of most relevant first, as a share of the way from the worst order to the best.

    Units are removed one by one. Up to 8 units the two orders are exact: all subsets are scored. Above, beam search
    finds orders that are at least as good as any that a method gave.

    Args:
        beams: the width of the search.
        most: the largest number of units; the search scores about `beams * units ** 2` rows for each sample.

    References:
        Edin et al. 2025, "Normalized AOPC: fixing misleading faithfulness metrics for feature attribution
        explainability", ACL.
    """

    name: ClassVar[str] = "naopc"
    replaces: ClassVar[bool] = True

    beams: int = 5
    most: int = 64

    def check(self, work: SampleWork) -> None:
        """Refuses more units than a search may take."""
        positive("beams", self.beams)
        if work.units.count > self.most:
            raise InputError(
                f"naopc searches for the best order of {work.units.count} units, which takes very many passes: take fewer units, "
                f"such as larger patches, or allow more with NormalisedFlipping(most={work.units.count})."
            )

    def run(self, work: SampleWork) -> Running:
        """One number for each replacement."""
        columns = []
        points = torch.arange(work.units.count + 1, device=work.relevance.device)
        first = torch.minimum(points, work.counts[:, None])
        for each in work.replacements:
            (scores,) = yield [ask_for(work, work.ranks(), first, each)]
            curves = scores.reshape(len(work.methods), work.samples, -1)
            values = work.empty()
            for n, count in enumerate(work.counts.tolist()):
                own = _over(curves[:, n, : count + 1])
                if count <= EXACT:
                    low, high = yield from _exact(work, n, count, each)
                else:
                    low, high = yield from self._searched(work, n, count, each)
                low, high = min(low, float(own.min())), max(high, float(own.max()))
                values[:, n] = (own - low) / (high - low) if high > low else float("nan")
            columns.append(Column(self.name, self.name, values, 1, str(each)))
        return columns

    def _searched(self, work: SampleWork, n: int, count: int, each: Replacement) -> Ends:
        ends = []
        for sign in (1.0, -1.0):  # the smallest sum of scores is the largest area over the curve
            beams = torch.zeros(1, count, dtype=torch.bool)
            sums = torch.zeros(1, dtype=torch.float64)
            whole = work.subject.score[n]
            for _ in range(count):
                grown = (beams[:, None] | torch.eye(count, dtype=torch.bool)[None])[~beams]
                parents = torch.arange(len(beams))[:, None].expand(-1, count)[~beams]
                (scores,) = yield [_gone(work, n, grown, each)]
                totals = sums[parents] + sign * scores
                best: dict[tuple[bool, ...], int] = {}
                for row in totals.argsort().tolist():  # of several ways to one set, the best
                    best.setdefault(tuple(grown[row].tolist()), row)
                chosen = torch.tensor(list(best.values())[: self.beams])
                beams, sums = grown[chosen], totals[chosen]
            ends.append(float(whole - sign * sums.min() / count))
        return ends[1], ends[0]


Ends = Generator[Sequence[Ask], list[Tensor], tuple[float, float]]


def _over(curve: Tensor) -> Tensor:
    """The mean fall of the score over the steps, without the first point, which is the sample itself."""
    return (curve[..., :1] - curve[..., 1:]).mean(-1)


def _exact(work: SampleWork, n: int, count: int, each: Replacement) -> Ends:
    """The worst and the best area over all orders, by the best way to each subset."""
    numbers = torch.arange(2**count)
    sets = (numbers[:, None] >> torch.arange(count)) & 1 == 1
    (scores,) = yield [_gone(work, n, sets, each)]
    falls = (work.subject.score[n] - scores).tolist()
    low, high = [0.0] * 2**count, [0.0] * 2**count
    for number in range(1, 2**count):
        before = [number & ~(1 << unit) for unit in range(count) if number >> unit & 1]
        low[number] = falls[number] + min(low[b] for b in before)
        high[number] = falls[number] + max(high[b] for b in before)
    return low[-1] / count, high[-1] / count


def _gone(work: SampleWork, n: int, sets: Tensor, each: Replacement) -> Removed:
    gone = torch.zeros(len(sets), work.units.count, dtype=torch.bool)
    gone[:, : sets.shape[1]] = sets
    device = work.relevance.device
    return Removed(torch.full((len(sets),), n, device=device), each, gone.to(device))
