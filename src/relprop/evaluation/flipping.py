"""Flipping: units are removed step by step, most relevant first and least relevant first.

Deletion and insertion are the two curves read forwards and backwards.
Index letters: M methods, N samples, U units, K points of a curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from relprop.evaluation.asks import Removed
from relprop.evaluation.metric import Metric, Running, SampleWork, positive
from relprop.evaluation.replacements import Replacement
from relprop.evaluation.score_columns import Column


@dataclass(frozen=True)
class Flipping(Metric):
    """The areas under the curves of most and least relevant first, and what lies between them.

    `abpc` is LeRF - MoRF, the area between the curves; it is also called SRG. `abpc_normalised` divides it by the score
    that removing everything takes away.

    Args:
        steps: how many steps a curve has; at most one per unit.

    References:
        Samek et al. 2017, "Evaluating the visualization of what a deep neural network has learned", IEEE TNNLS 28(11).
        Blücher et al. 2024, "Decoupling pixel flipping and occlusion strategy for consistent XAI benchmarks", TMLR.
    """

    name: ClassVar[str] = "flipping"
    replaces: ClassVar[bool] = True

    steps: int = 10

    def check(self, work: SampleWork) -> None:
        """Refuses a number of steps that is none."""
        positive("steps", self.steps)

    def run(self, work: SampleWork) -> Running:
        """Two curves for each method, sample and replacement."""
        first = removed(work.counts, self.steps)
        columns: list[Column] = []
        orders = torch.stack([work.ranks(), work.reversed_ranks()])
        found = yield [ask_for(work, orders.flatten(0, 1), first, each) for each in work.replacements]
        share = first.double().cpu() / work.counts.double().cpu()[:, None]
        for each, scores in zip(work.replacements, found, strict=True):
            most, least = scores.reshape(2, len(work.methods), work.samples, -1)
            columns += _columns(str(each), most, least, share)
        return columns


def removed(counts: Tensor, steps: int) -> Tensor:
    """How many units are gone at each point of a curve, (N, K): from none to all."""
    points = torch.arange(min(steps, int(counts.max())) + 1, device=counts.device)
    return (points * counts[:, None] / points[-1]).round().long()


def ask_for(work: SampleWork, ranks: Tensor, first: Tensor, replacement: Replacement) -> Removed:
    """Asks for all points of curves: `ranks` is (orders, N, U), `first` is (N, K); rows come as (orders, N, K)."""
    orders, samples, points = len(ranks), work.samples, first.shape[1]
    device = ranks.device
    table = torch.arange(orders * samples, device=device).repeat_interleave(points)
    return Removed(
        table % samples,
        replacement,
        ranks.reshape(-1, ranks.shape[-1]),
        first.to(device).expand(orders, -1, -1).reshape(-1),
        table,
    )


def area(curve: Tensor, share: Tensor) -> Tensor:
    """The area under curves (..., N, K) over the share of removed units (N, K), by trapezoids."""
    return ((curve[..., 1:] + curve[..., :-1]) * (share[:, 1:] - share[:, :-1])).sum(-1) / 2


def _columns(replaced: str, most: Tensor, least: Tensor, share: Tensor) -> Sequence[Column]:
    at = share.mean(0)
    morf, lerf, between = area(most, share), area(least, share), area(least - most, share)
    fall = most[..., 0] - most[..., -1]
    normalised = torch.where(fall != 0, between / fall, float("nan"))
    return [
        Column("flipping", "abpc", between, 1, replaced),
        Column("flipping", "morf", morf, -1, replaced, most, at),
        Column("flipping", "lerf", lerf, 1, replaced, least, at),
        Column("flipping", "abpc_normalised", normalised, 1, replaced),
    ]
