"""What many tests share: comparisons, scores of an output, and small modules."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import relprop

D = torch.float64
close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-12)
"""Both sides are computed in float64; what is left is the order of the operations."""
close_to_rounding = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-13)
"""Both sides are the same operations in float64."""


def total(y: Tensor) -> Tensor:
    """The sum of each sample's outputs, as a target."""
    return y.flatten(1).sum(1)


def weighed_by(weights: Tensor) -> Callable[[Tensor], Tensor]:
    """The weighted sum of each sample's outputs, as a target: relevance of either sign arrives at each."""
    return lambda y: (y * weights).flatten(1).sum(1)


def explained(
    model: nn.Module, x: Tensor, composite: relprop.Composite | str
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The map of a score that weighs every output, and the relevance of those outputs."""
    weights = torch.randn(model(x).shape[1:]).double()
    values = relprop.attribute(model, x, target=weighed_by(weights), composite=composite).values
    return values, lambda y: y * weights


def propagated(model: nn.Module, x: Tensor) -> Tensor:
    """`G` at the input, by the engine alone."""
    x = x.requires_grad_()
    with relprop.propagate("epsilon_plus", model=model, inputs=x):
        score = model(x)[:, 1].sum()
    return torch.autograd.grad(score, x)[0]


@contextmanager
def only_what_is_new() -> Iterator[None]:
    """A context in which searches for tensors leave out what is there already, such as a million objects of libraries."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Pair(nn.Module):
    """A function of two tensors, as a module."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.function(a, b)


class InPlace(torch.autograd.Function):
    """A custom function that writes into its argument, and says so."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x.mul_(3)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return 3 * g


class Struck(Exception):
    """What goes wrong in tests of faults."""


class Mark:
    """Something whose end can be seen."""
