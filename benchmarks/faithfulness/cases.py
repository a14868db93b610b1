"""What a network of the leaderboard is judged on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from relprop.evaluation.subject import targets_of
from relprop.trees import leaves, map_tree


@dataclass(frozen=True, eq=False)
class Case:
    """A network and the samples that it is judged on.

    Attributes:
        name: the network.
        data: where the samples are from.
        kind: what it is made of, by which methods are chosen.
        model: the network.
        inputs: the samples.
        targets: their classes, which the network gets right.
        options: arguments of `relprop.evaluate`.
        truth: where the target lies, if that is known.
        accuracy: on all held-out samples.
        last: the last convolution, for GradCAM.
    """

    name: str
    data: str
    kind: str
    model: nn.Module
    inputs: Any
    targets: Any
    options: dict[str, Any] = field(default_factory=dict)
    truth: Tensor | None = None
    accuracy: float = float("nan")
    last: nn.Module | None = None

    def first(self) -> tuple[Any, Any]:
        """The first sample and its target, a batch of one."""
        whole = self.inputs if isinstance(self.inputs, Tensor) else dict(self.inputs)
        some = map_tree(lambda leaf: leaf[:1], whole)
        return some, targets_of(self.targets, [0], len(leaves(whole)[0][1]))

    def how(self) -> dict[str, Any]:
        """The options that one sample needs."""
        units = self.options.get("units")
        return {"units": units} if units is not None else {}

    @property
    def auto(self) -> relprop.Composite:
        """The composite that `"auto"` stands for: finished work is kept by what acts, not by a name."""
        some, target = self.first()
        return relprop.attribute(self.model, some, target).composite


def trained(model: nn.Module, x: Tensor, y: Tensor, steps: int, rate: float = 3e-3) -> nn.Module:
    search = torch.optim.Adam(model.parameters(), rate)
    model.train()
    for _ in range(steps):
        some = torch.randint(len(x), (64,))
        search.zero_grad()
        F.cross_entropy(model(x[some]), y[some]).backward()
        search.step()
    return model.eval()


def judged(name: str, data: str, kind: str, model: nn.Module, x: Tensor, y: Tensor, count: int, **more: Any) -> Case:
    """Only samples that the network gets right."""
    with torch.no_grad():
        right = model(x).argmax(1) == y
    chosen = right.nonzero()[:count, 0]
    truth, last = more.pop("truth", None), more.pop("last", None)
    return Case(
        name, data, kind, model, x[chosen], y[chosen].tolist(), more, None if truth is None else truth[chosen],
        float(right.double().mean()), last,
    )  # fmt: skip
