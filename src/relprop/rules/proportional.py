"""Rules proportional to the contribution `x_i w_ij`, sign included. Index letters: i in, j out.

With `p_j = sum_i (x_i w_ij)+ + b_j+` and `n_j` its negative counterpart, `p + n = z`: one extra forward pass gives
both. Where every input is >= 0, as after a relu, `(x w)+ = x w+` and half of the terms vanish.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.errors import RuleError
from relprop.numerics import added, own, quotient, signed, where_positive, wide
from relprop.rules.base import Layer, WeightedRule, check_number


def _unchanged(z: Tensor, g: Tensor) -> Tensor:
    return g


@dataclass(frozen=True)
class Epsilon(WeightedRule):
    """`R_i = sum_j x_i w_ij R_j / (z_j + eps sgn z_j)`. Bach et al. 2015.

    Args:
        epsilon: the stabiliser, in units of the layer's output.
        relative: whether `epsilon` counts in standard deviations of the layer's output, taken per sample.
    """

    epsilon: float = 1e-6
    relative: bool = False
    reads_signs: ClassVar[bool] = False
    separable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("epsilon", self.epsilon)

    @property
    def whole_output(self) -> bool:  # type: ignore[override]
        return self.relative

    @property
    def per_sample(self) -> bool:  # type: ignore[override]
        return self.relative

    @property
    def of_output(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        if self.relative:
            return None

        def stabilised(z: Tensor, g: Tensor) -> Tensor:
            share = wide(z) * wide(g) / signed(wide(z), self.epsilon)
            return share.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).to(g.dtype)

        return stabilised if self.epsilon else _unchanged

    def propagate(self, layer: Layer, g: Tensor) -> Tensor:
        epsilon: float | Tensor = self.epsilon
        if self.relative:
            epsilon = epsilon * layer.deviation()
        return layer.transpose(layer.stabilised(g, epsilon))


@dataclass(frozen=True)
class Gamma(WeightedRule):
    """Contributions with the sign of `z_j` count `1 + gamma` times, the bias likewise.

    For `z_j > 0`: `c_ij = x_i w_ij + gamma (x_i w_ij)+`, `R_i = sum_j c_ij R_j / (sum_i c_ij + b_j + gamma b_j+)`;
    for `z_j < 0`, the same with negative parts. Montavon et al. 2019; Andéol et al. 2021 (both signs).

    With `A_j = sum_i |x_i w_ij| + |b_j|` both signs have one denominator, `(1 + gamma/2) |z_j| + gamma/2 A_j`, in which
    nothing cancels. Where no relevance arrives at `z_j < 0` and all inputs are >= 0, the contributions divided by
    `1 + gamma` are those of the leaky relu of the layer's weight: one transposed pass is enough instead of two.
    """

    gamma: float = 0.25
    separable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("gamma", self.gamma)

    def propagate(self, layer: Layer, g: Tensor) -> Tensor:
        b = layer.bias
        if layer.nonnegative and layer.rectified:
            slope = 1 / (1 + self.gamma)
            leaky, within = partial(F.leaky_relu, negative_slope=slope), partial(F.leaky_relu_, negative_slope=slope)
            above = layer.of_weight("above", leaky, within)
            bias = F.leaky_relu(b, slope) if isinstance(b, Tensor) else b
            return layer.transpose(layer.share(g, layer.forward(layer.x, above, bias)), above)
        half = self.gamma / (2 + self.gamma)
        size = layer.of_weight("size", torch.abs, torch.abs_)
        total = layer.forward(
            layer.x if layer.nonnegative else layer.x.abs(), size, b.abs() if isinstance(b, Tensor) else 0.0
        )
        z = wide(layer.z)
        odd, even = layer.halves(g, added(z.abs(), wide(total), half))
        back, part = layer.transpose(even), layer.transpose(odd, size)
        if layer.nonnegative:
            return added(back, part, half)
        sign = layer.x.sign()
        return back.addcmul_(part, sign, value=half) if own(back) else back.addcmul(part, sign, value=half)


@dataclass(frozen=True)
class AlphaBeta(WeightedRule):
    """`R_i = sum_j (a (x_i w_ij)+ / P_j - b (x_i w_ij)- / N_j) R_j`, `a - b = 1`. Bach et al. 2015.

    `P_j` and `N_j` are the sums of the positive and of the negative contributions, bias included.
    """

    alpha: float = 2.0
    beta: float = 1.0
    separable: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)
        check_number("beta", self.beta)
        if abs(self.alpha - self.beta - 1) > 1e-9:
            raise RuleError(f"alpha - beta must be 1 to conserve relevance; got {self.alpha} - {self.beta}.")

    def propagate(self, layer: Layer, g: Tensor) -> Tensor:
        x, b = layer.x, layer.bias
        b_pos = b.clamp(min=0) if isinstance(b, Tensor) else max(b, 0.0)

        def positive() -> Tensor:
            return layer.of_weight("positive", partial(torch.clamp, min=0), partial(torch.clamp_, min=0))

        def negative() -> Tensor:
            return layer.of_weight("negative", partial(torch.clamp, max=0), partial(torch.clamp_, max=0))

        def back(s: Tensor, same: Callable[[], Tensor], other: Callable[[], Tensor]) -> Tensor:
            """Sends `s` back through the weights `same()` where `x >= 0`, and through `other()` where `x < 0`."""
            part = layer.transpose(s, same())
            return part if layer.nonnegative else torch.where(x >= 0, part, layer.transpose(s, other()))

        if layer.nonnegative:
            p = wide(layer.forward(x, positive(), b_pos))
        else:
            p = wide(added(layer.forward(x.clamp(min=0), positive(), b_pos), layer.forward(x.clamp(max=0), negative())))
        relevance = layer.relevance(g)
        if not self.beta:
            return back(quotient(relevance, p), positive, negative)
        total = back(quotient(self.alpha * relevance, p), positive, negative)
        # n is a difference: below the rounding error of p it is noise, not a contribution.
        z = wide(layer.z)
        n, sure = p - z, added(p, z, -1 - 8 * torch.finfo(p.dtype).eps)
        s = where_positive(relevance.div_(n) if own(relevance) else relevance / n, sure)
        return added(total, back(s, negative, positive), self.beta)


@dataclass(frozen=True)
class ZPlus(WeightedRule):
    """`R_i = sum_j (x_i w_ij)+ / P_j R_j`: `AlphaBeta(1, 0)`. Montavon et al. 2017."""

    separable: ClassVar[bool] = True

    def propagate(self, layer: Layer, g: Tensor) -> Tensor:
        return AlphaBeta(1.0, 0.0).propagate(layer, g)
