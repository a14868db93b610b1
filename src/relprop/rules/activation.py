"""Rules for activations other than the default, the secant. Each gives `G` at the input from `G` at the output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from relprop.rules.base import Rule, check_number


@dataclass(frozen=True)
class ActivationRule(Rule):
    """A rule for elementwise functions `y = f(x)`; `gradient(g)` is torch's own."""

    families: ClassVar[frozenset[str]] = frozenset({"activation"})

    def activation(
        self, x: Tensor, output: Callable[[], Tensor], g: Tensor, gradient: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """From `G` at `y` to `G` at `x`. Most rules do not need `y` and define only `propagate`."""
        return self.propagate(x, g, gradient)

    def propagate(self, x: Tensor, g: Tensor, gradient: Callable[[Tensor], Tensor]) -> Tensor:
        """From `G` at `y` to `G` at `x`."""
        raise NotImplementedError(f"{type(self).__name__} must define propagate(x, g, gradient).")


@dataclass(frozen=True)
class GuidedBackprop(ActivationRule):
    """`G_x = f'(x) G+`. Springenberg et al. 2015."""

    linear: ClassVar[bool] = False

    def propagate(self, x: Tensor, g: Tensor, gradient: Callable[[Tensor], Tensor]) -> Tensor:
        return gradient(g.clamp(min=0))


@dataclass(frozen=True)
class Deconvnet(ActivationRule):
    """`G_x = G+`. Zeiler and Fergus 2014."""

    linear: ClassVar[bool] = False

    def propagate(self, x: Tensor, g: Tensor, gradient: Callable[[Tensor], Tensor]) -> Tensor:
        return g.clamp(min=0)


@dataclass(frozen=True)
class BetaSmooth(ActivationRule):
    """`G_x = sigmoid(beta x) G`: the gradient of a softplus in place of a relu's. Dombrowski et al. 2019."""

    beta: float = 10.0

    def __post_init__(self) -> None:
        check_number("beta", self.beta, above=0.0)

    def propagate(self, x: Tensor, g: Tensor, gradient: Callable[[Tensor], Tensor]) -> Tensor:
        return (self.beta * x).sigmoid() * g
