"""Conditions on a plain convolutional network are those of zennit-crp, where it applies."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import units
from test_peers import STABILISER, imported, zennit

__all__ = ["zennit"]

close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-9)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(200, 10), nn.ReLU(), nn.Linear(10, 4),
    ).double()  # fmt: skip


@pytest.mark.parametrize("name", ["EpsilonPlus", "EpsilonPlusFlat"])
def test_conditions_of_a_plain_network(zennit: Any, name: str) -> None:
    crp, composites = imported("crp.attribution"), imported("zennit.composites")
    net, x = network(), torch.rand(3, 3, 18, 18, dtype=torch.float64)

    def theirs(conditions: list[dict[str, list[int]]]) -> Tensor:
        rules = getattr(composites, name)(stabilizer=STABILISER)
        found: Tensor = crp.CondAttribution(net)(x.clone().requires_grad_(), conditions, rules)[0]
        return found

    composite = relprop.composites.by_name("epsilon_plus" if name == "EpsilonPlus" else "epsilon_plus_flat")

    def ours(through: Any) -> Tensor:
        summed: Tensor = relprop.attribute(net, x, 1, composite=composite, through=through).values.sum(1)
        return summed

    # zennit-crp starts from the score, too, and sums over channels
    score = relprop.attribute(net, x, 1, composite=composite, layers=["2", "5"])
    low = score.layers["2"].sum((0, 2, 3)).abs().argsort(descending=True).tolist()
    high = int(score.layers["5"].sum((0, 2, 3)).abs().argmax())
    close(ours(units("2")[low[0]]), theirs([{"y": [1], "2": [low[0]]}] * 3))
    close(ours(units("2")[low[:2]] & units("5")[high]), theirs([{"y": [1], "5": [high], "2": low[:2]}] * 3))
    each = [{"y": [1], "2": [unit]} for unit in low[:3]]
    close(ours([units("2")[unit] for unit in low[:3]]), theirs(each))
