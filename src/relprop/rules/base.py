"""What a rule is, and what it is told about the weighted layer it acts on."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar, Protocol

from torch import Tensor

from relprop.errors import RuleError

WEIGHTED = frozenset({"linear", "conv", "bilinear", "batch_norm"})
EVERYTHING = WEIGHTED | {
    "activation",
    "max_pool",
    "avg_pool",
    "product",
    "division",
    "sum",
    "norm",
    "softmax",
    "selection",
    "recurrent",
    "structure",
}


def check_number(name: str, value: float, above: float | None = None) -> None:
    """Refuses a parameter that is no finite number >= 0 (or > `above`)."""
    if (
        not isinstance(value, (int, float))
        or not isfinite(value)
        or value < 0
        or (above is not None and value <= above)
    ):
        raise RuleError(f"{name} must be a finite number {'>= 0' if above is None else f'> {above:g}'}; got {value!r}.")


class Layer(Protocol):
    """A weighted layer `z = A(weight) x + bias` during the backward pass.

    Attributes:
        x: the layer's input.
        weight: its weight, merged with a BatchNorm that follows.
        bias: its bias, in a shape that broadcasts with `z`, or 0.
        z: its output. Where a relu follows, entries the relu set to 0 may read 0: no relevance arrives there.
    """

    x: Tensor
    weight: Tensor

    @property
    def bias(self) -> Tensor | float: ...
    @property
    def z(self) -> Tensor: ...
    @property
    def nonnegative(self) -> bool:
        """Whether no entry of `x` is negative."""
        ...

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        """`A(weight) x`, without bias."""
        ...

    def transpose(self, s: Tensor, weight: Tensor) -> Tensor:
        """`A(weight)` transposed, times `s`: from the shape of `z` to the shape of `x`."""
        ...

    def relevance(self, g: Tensor) -> Tensor:
        """`R_j = z_j G_j`, the relevance that arrived."""
        ...

    def share(self, g: Tensor, denominator: Tensor) -> Tensor:
        """`R_j / denominator_j`, and 0 where the denominator is 0."""
        ...

    def without_bias(self) -> Layer:
        """The same layer with a bias of 0 (the relevance that arrived stays)."""
        ...


@dataclass(frozen=True)
class Rule:
    """Base of all rules: a frozen value, compared by its parameters.

    Class attributes:
        families: the families of operations the rule can act on.
        proportional: whether `R_i = 0` wherever `x_i = 0`.
    """

    families: ClassVar[frozenset[str]] = frozenset()
    proportional: ClassVar[bool] = True


@dataclass(frozen=True)
class WeightedRule(Rule):
    """A rule for weighted layers (linear, conv, bilinear, BatchNorm on its own). Subclass it to write your own."""

    families: ClassVar[frozenset[str]] = WEIGHTED
    whole_output: ClassVar[bool] = False
    """Whether the rule reads `layer.z` also where no relevance arrives (as a standard deviation does)."""

    def propagate(self, layer: Layer, g: Tensor) -> Tensor:
        """From `G` at the output to `G` at the input, where relevance is `R = tensor * G`."""
        raise NotImplementedError(f"{type(self).__name__} must define propagate(layer, g)")
