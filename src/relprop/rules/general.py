"""Rules that act on several kinds of operation, and the wrapper that removes the bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from relprop.errors import RuleError
from relprop.numerics import nonzero
from relprop.rules.base import EVERYTHING, WEIGHTED, Layer, Rule, Way, WeightedRule


@dataclass(frozen=True)
class Zero(WeightedRule):
    """LRP-0: `R_i = sum_j x_i w_ij R_j / z_j`. Elsewhere, the operation's own default.

    Bach et al. 2015, "On pixel-wise explanations for non-linear classifier decisions by LRP".
    """

    reads_signs: ClassVar[bool] = False
    families: ClassVar[frozenset[str]] = EVERYTHING
    way: ClassVar[Way] = Way.DEFAULT
    separable: ClassVar[bool] = True

    def propagate(self, layer: Layer, g: Tensor) -> Tensor:
        return layer.transpose(layer.share(g, layer.z))


@dataclass(frozen=True)
class Pass(WeightedRule):
    """`R_i = R_j`: relevance goes straight through an operation that keeps the shape."""

    reads_signs: ClassVar[bool] = False
    families: ClassVar[frozenset[str]] = WEIGHTED | {"activation", "norm"}
    proportional: ClassVar[bool] = False

    def propagate(self, layer: Layer, g: Tensor) -> Tensor:
        relevance = layer.relevance(g)
        if relevance.shape != layer.x.shape:
            raise RuleError(
                f"Pass() sends relevance on one to one, but this operation maps {tuple(layer.x.shape)} to "
                f"{tuple(relevance.shape)}. Use it where input and output have one shape, or choose another rule."
            )
        return relevance / nonzero(layer.x)

    def activation(
        self, x: Tensor, output: Callable[[], Tensor], g: Tensor, gradient: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """`G_x = G_y y / x`."""
        return g * (nonzero(output()) / nonzero(x))

    def norm(self, x: Tensor, output: Callable[[], Tensor], g: Tensor) -> Tensor:
        """`G_x = G_y y / x`."""
        return g * (nonzero(output()) / nonzero(x))


@dataclass(frozen=True)
class Block(Rule):
    """`R_i = 0`: relevance stops here."""

    families: ClassVar[frozenset[str]] = EVERYTHING
    way: ClassVar[Way] = Way.BLOCKED


@dataclass(frozen=True)
class Native(Rule):
    """`R_i = x_i df/dx_i`: torch's own gradient, unmodified."""

    families: ClassVar[frozenset[str]] = EVERYTHING
    way: ClassVar[Way] = Way.NATIVE


@dataclass(frozen=True)
class ZeroBias(WeightedRule):
    """`rule` with `b_j = 0` in its denominators: the bias gets no share, and `R_j` is unchanged."""

    rule: WeightedRule

    def __post_init__(self) -> None:
        if not isinstance(self.rule, WeightedRule):
            raise RuleError(f"ZeroBias wraps a rule for weighted layers, such as ZeroBias(ZPlus()); got {self.rule!r}.")

    @property
    def proportional(self) -> bool:  # type: ignore[override]
        return self.rule.proportional

    @property
    def whole_output(self) -> bool:  # type: ignore[override]
        return self.rule.whole_output

    @property
    def per_sample(self) -> bool:  # type: ignore[override]
        return self.rule.per_sample

    @property
    def reads_signs(self) -> bool:  # type: ignore[override]
        return self.rule.reads_signs

    @property
    def separable(self) -> bool:  # type: ignore[override]
        return self.rule.separable

    def propagate(self, layer: Layer, g: Tensor) -> Tensor:
        return self.rule.propagate(layer.without_bias(), g)
