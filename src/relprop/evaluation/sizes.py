"""Whether the sizes of relevance are right, not only their order: removed subsets against the sums of their relevance.

Index letters: M methods, N samples, D draws, U units.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.evaluation.asks import Ask, Removed
from relprop.evaluation.metric import Metric, Running, SampleWork, positive
from relprop.evaluation.paired_statistics import pearson
from relprop.evaluation.score_columns import Column


@dataclass(frozen=True)
class SensitivityN(Metric):
    """The correlation between the relevance of random subsets of n units and what their removal takes away.

    Args:
        shares: the sizes n of subsets, as shares of the units.
        draws: how many subsets of each size.

    References:
        Ancona et al. 2018, "Towards better understanding of gradient-based attribution methods", ICLR.
    """

    name: ClassVar[str] = "sensitivity_n"
    replaces: ClassVar[bool] = True

    shares: tuple[float, ...] = (0.1, 0.3, 0.5)
    draws: int = 32

    def check(self, work: SampleWork) -> None:
        """Refuses shares and numbers of draws that are none."""
        positive("draws", self.draws, 3)
        if not self.shares or not all(0 < share < 1 for share in self.shares):
            raise InputError(f"shares lie between 0 and 1; got {self.shares!r}.")

    def run(self, work: SampleWork) -> Running:
        """The mean correlation over sizes."""
        subsets = torch.stack([_subsets(work, self.name, self.draws, share) for share in self.shares])  # (S, N, D, U)
        sums, drops = yield from _sums_and_drops(work, subsets.flatten(0, 1), len(self.shares))
        return [
            Column(self.name, self.name, pearson(sums, drop).nanmean(1), 1, str(each))
            for each, drop in zip(work.replacements, drops, strict=True)
        ]


@dataclass(frozen=True)
class Infidelity(Metric):
    """The mean square of what subsets' relevance misses of the drop that their removal causes, at the best scale.

    The scale of each map is the one that makes this smallest, so that it is no matter how a map is normalised.
    `infidelity_relative` divides by the mean square of the drops: 0 is perfect, 1 is what a map of zeros gets.

    Args:
        draws: how many subsets of random sizes.

    References:
        Yeh et al. 2019, "On the (in)fidelity and sensitivity of explanations", NeurIPS.
    """

    name: ClassVar[str] = "infidelity"
    replaces: ClassVar[bool] = True

    draws: int = 64

    def check(self, work: SampleWork) -> None:
        """Refuses a number of draws that is none."""
        positive("draws", self.draws, 2)

    def run(self, work: SampleWork) -> Running:
        """The error at the best scale."""
        subsets = _subsets(work, self.name, self.draws, None)
        sums, drops = yield from _sums_and_drops(work, subsets, 1)
        columns = []
        for each, drop in zip(work.replacements, drops, strict=True):
            a, b = sums[:, 0], drop[0]
            square = (a**2).mean(-1)
            scale = torch.where(square > 0, (a * b).mean(-1) / square, 0.0)
            missed = ((scale[..., None] * a - b) ** 2).mean(-1)
            size = (b**2).mean(-1).expand_as(missed)
            columns.append(Column(self.name, "infidelity", missed, -1, str(each)))
            relative = torch.where(size > 0, missed / size, float("nan"))
            columns.append(Column(self.name, "infidelity_relative", relative, -1, str(each)))
        return columns


def _subsets(work: SampleWork, purpose: str, draws: int, share: float | None) -> Tensor:
    """Random subsets of each sample's units, boolean, (N, D, U); of one size, or of random sizes."""
    found = torch.zeros(work.samples, draws, work.units.count, dtype=torch.bool)
    for n, count in enumerate(work.counts.tolist()):
        chance = work.generator(f"{purpose} {share}", n)
        order = torch.rand(draws, count, generator=chance).argsort(1).argsort(1)
        if share is None:
            size = torch.randint(1, count + 1, (draws, 1), generator=chance)
        else:
            size = torch.tensor(min(max(1, round(share * count)), max(1, count - 1)))
        found[n, :, :count] = order < size
    return found.to(work.relevance.device)


SumsAndDrops = Generator[Sequence[Ask], list[Tensor], tuple[Tensor, list[Tensor]]]


def _sums_and_drops(work: SampleWork, subsets: Tensor, sets: int) -> SumsAndDrops:
    """The relevance of subsets (M, S, N, D), and for each replacement the drop they cause (S, N, D)."""
    rows, draws, units = subsets.shape
    relevance = work.relevance  # (M, N, U)
    inside = subsets.reshape(sets, work.samples, draws, units).double()
    sums = torch.einsum("mnu,sndu->msnd", relevance, inside).cpu()
    samples = work.of_all().repeat(sets).repeat_interleave(draws)
    asks = [Removed(samples, each, subsets.reshape(rows * draws, units)) for each in work.replacements]
    found = yield asks
    drops = [work.subject.score[:, None] - one.reshape(sets, work.samples, draws) for one in found]
    return sums, drops
