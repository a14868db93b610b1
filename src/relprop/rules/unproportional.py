"""Rules that also give relevance to inputs of exactly 0, where relevance is `nz(x) G` (see `numerics`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from relprop.errors import RuleError
from relprop.numerics import known, nonzero, signed
from relprop.rules.base import Layer, WeightedRule


@dataclass(frozen=True)
class WSquare(WeightedRule):
    """`R_i = sum_j w_ij^2 / (sum_i w_ij^2) R_j`. Montavon et al. 2017."""

    reads_signs: ClassVar[bool] = False
    proportional: ClassVar[bool] = False
    separable: ClassVar[bool] = True

    def _weight(self, weight: Tensor) -> Tensor:
        return weight.square()

    def propagate(self, layer: Layer, g: Tensor) -> Tensor:
        weight = layer.once("weight", lambda: self._weight(layer.weight))
        one = layer.x[:1] if layer.x.ndim > 1 else layer.x
        counts = layer.once("counts", lambda: layer.forward(torch.ones_like(one), weight))
        return layer.transpose(layer.share(g, counts), weight) / nonzero(layer.x)


@dataclass(frozen=True)
class Flat(WSquare):
    """`R_i = sum_j R_j / (number of inputs of j)`. Lapuschkin et al. 2019."""

    def _weight(self, weight: Tensor) -> Tensor:
        return torch.ones_like(weight)


@dataclass(frozen=True)
class ZBox(WeightedRule):
    """`c_ij = x_i w_ij - l_i w_ij+ - h_i w_ij-`, `R_i = sum_j c_ij R_j / sum_i c_ij`. Montavon et al. 2017.

    Without bounds, `l` and `h` are the smallest and the largest value of the sample itself: of each channel of a
    convolution's input, of all entries that a unit of another layer sums. The map is then the same however the inputs of
    a convolution were shifted and scaled per channel, and a sample's map does not depend on others. A unit without any
    contribution, as in a constant picture, shares its relevance equally.

    Args:
        low: the smallest value an input can have: a number, or a tensor that broadcasts with the input.
        high: the largest value, in the same form.
        epsilon: signed stabiliser of the denominator, which is 0 where every input lies on a bound.

    Raises:
        RuleError: one bound is given without the other, or `low` is above `high`.
    """

    low: Any = None
    high: Any = None
    epsilon: float = 1e-6
    reads_signs: ClassVar[bool] = False
    proportional: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise RuleError(
                f"ZBox takes both bounds, or neither for those of each sample; got low={self.low!r}, high={self.high!r}."
            )
        if self.low is not None and bool((torch.as_tensor(self.low) > torch.as_tensor(self.high)).any()):
            raise RuleError(f"ZBox needs low <= high; got low={self.low!r}, high={self.high!r}.")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ZBox):
            return NotImplemented
        if self.low is None or other.low is None:
            return self.epsilon == other.epsilon and self.low is other.low
        return self.epsilon == other.epsilon and all(
            torch.equal(torch.as_tensor(a), torch.as_tensor(b))
            for a, b in ((self.low, other.low), (self.high, other.high))
        )

    def __hash__(self) -> int:
        return hash((ZBox, self.epsilon))

    @property
    def separable(self) -> bool:  # type: ignore[override]
        """Only where both bounds are single numbers or the sample's own, which fit every sample and every shape."""
        return all(not isinstance(v, Tensor) or v.numel() == 1 for v in (self.low, self.high))

    def propagate(self, layer: Layer, g: Tensor) -> Tensor:
        x, w = layer.x, layer.weight
        w_pos = layer.once("positive", lambda: w.clamp(min=0))
        w_neg = layer.once("negative", lambda: w.clamp(max=0))
        if self.low is None:
            return self._by_own_bounds(layer, g, w_pos, w_neg)
        try:
            low, high = (torch.as_tensor(v, dtype=x.dtype, device=x.device).expand_as(x) for v in (self.low, self.high))
        except RuntimeError as error:
            raise RuleError(f"ZBox bounds do not broadcast with an input of shape {tuple(x.shape)}: {error}") from None
        one = slice(0, 1) if x.ndim > 1 and not _varies(self.low, x) and not _varies(self.high, x) else slice(None)
        bounds = layer.once(
            "bounds",
            lambda: layer.forward(low[one].contiguous(), w_pos) + layer.forward(high[one].contiguous(), w_neg),
        )
        s = layer.share(g, signed(layer.z - layer.bias - bounds, self.epsilon))
        # x w = x w+ + x w-
        relevance = (x - low) * layer.transpose(s, w_pos) + (x - high) * layer.transpose(s, w_neg)
        return relevance / nonzero(x)

    def _by_own_bounds(self, layer: Layer, g: Tensor, w_pos: Tensor, w_neg: Tensor) -> Tensor:
        x = layer.x
        above, below = x - x.amin(layer.extent, keepdim=True), x - x.amax(layer.extent, keepdim=True)
        # No contribution is negative: nothing cancels, and a sum is 0 only if all of its terms are.
        sums = layer.forward(above, w_pos) + layer.forward(below, w_neg)
        s = layer.share(g, torch.where(sums > 0, sums + self.epsilon, 0.0))
        relevance = above * layer.transpose(s, w_pos) + below * layer.transpose(s, w_neg)
        empty = sums <= 0
        if x.device.type != "cpu" or known(empty.any(), True):
            ones = layer.once("ones", lambda: torch.ones_like(layer.weight))
            counts = layer.forward(torch.ones_like(x), ones)
            relevance = relevance + layer.transpose(layer.share(g, torch.where(empty, counts, 0.0)), ones)
        return relevance / nonzero(x)


def _varies(bound: Any, x: Tensor) -> bool:
    """Whether a bound may differ from sample to sample."""
    return isinstance(bound, Tensor) and bound.ndim == x.ndim and bound.shape[0] > 1
