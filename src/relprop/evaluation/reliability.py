"""Whether a model can be trusted on what a replacement makes of the samples: R-OMS. It judges replacements, no method.

Index letters: N samples, D draws, U units, K steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from relprop.errors import InputError
from relprop.evaluation.flipping import area, ask_for, removed
from relprop.evaluation.metric import Metric, Running, SampleWork, positive
from relprop.evaluation.score_columns import Column


@dataclass(frozen=True)
class Reliability(Metric):
    """The target's probability while units are replaced in random order: the area under the mean curve.

    The more of it a replacement keeps, the closer its samples are to what the model knows. It is R-OMS where the target
    is the class that the model gives the sample. All methods have the same number, which ranks none of them.

    Args:
        steps: how many steps a curve has; at most one per unit. It begins after the first.
        draws: how many random orders for each sample.

    References:
        Blücher et al. 2024, "Decoupling pixel flipping and occlusion strategy for consistent XAI benchmarks", TMLR.
    """

    name: ClassVar[str] = "reliability"
    replaces: ClassVar[bool] = True

    steps: int = 10
    draws: int = 4

    def check(self, work: SampleWork) -> None:
        """Refuses scores that are no probabilities, and numbers of things that are none."""
        positive("steps", self.steps)
        positive("draws", self.draws)
        if work.subject.of != "probability":
            raise InputError(f"reliability reads probabilities: pass of='probability'; got of={work.subject.of!r}.")

    def run(self, work: SampleWork) -> Running:
        """One number for each replacement and sample."""
        device = work.relevance.device
        ranks = torch.stack([self._orders(work, n) for n in range(work.samples)], 1).to(device)  # (D, N, U)
        first = removed(work.counts, self.steps)[:, 1:]
        found = yield [ask_for(work, ranks, first, each) for each in work.replacements]
        share = first.double().cpu() / work.counts.double().cpu()[:, None]
        columns = []
        for each, scores in zip(work.replacements, found, strict=True):
            curve = scores.reshape(self.draws, work.samples, -1).mean(0)
            wide = share[:, -1] - share[:, 0]
            mean = torch.where(wide > 0, area(curve, share) / wide, curve[:, -1])
            columns.append(Column(self.name, "r_oms", mean.expand(len(work.methods), -1).clone(), 0, str(each)))
        return columns

    def _orders(self, work: SampleWork, n: int) -> torch.Tensor:
        """The place of each unit in random orders, (D, U); units that a sample lacks come last."""
        chance, count = work.generator(self.name, n), int(work.counts[n])
        rest = torch.arange(count, work.units.count)
        return torch.stack([torch.cat([torch.randperm(count, generator=chance), rest]) for _ in range(self.draws)])
