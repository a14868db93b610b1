"""Rules proportional to the contribution `x_i w_ij`, sign included. Index letters: i in, j out.

With `p_j = sum_i (x_i w_ij)+` and `n_j = sum_i (x_i w_ij)-`, `p + n = z - b`: one extra forward pass gives both.
Where every input is >= 0, as after a relu, `(x w)+ = x w+` and half of the terms vanish.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relprop.errors import RuleError
from relprop.numerics import signed, wide
from relprop.rules.base import Layer, WeightedRule, check_number


def _positive(layer: Layer) -> Tensor:
    """`p_j = sum_i (x_i w_ij)+`."""
    x, w = layer.x, layer.weight
    if layer.nonnegative:
        return layer.forward(x, w.clamp(min=0))
    return layer.forward(x.clamp(min=0), w.clamp(min=0)) + layer.forward(x.clamp(max=0), w.clamp(max=0))


def _parts(bias: Tensor | float) -> tuple[Tensor | float, Tensor | float]:
    return (bias.clamp(min=0), bias.clamp(max=0)) if isinstance(bias, Tensor) else (max(bias, 0.0), min(bias, 0.0))


@dataclass(frozen=True)
class Epsilon(WeightedRule):
    """`R_i = sum_j x_i w_ij R_j / (z_j + eps sgn z_j)`. Bach et al. 2015.

    Args:
        epsilon: the stabiliser, in units of the layer's output.
        relative: in units of the standard deviation of the layer's output, of each sample alone.
    """

    epsilon: float = 1e-6
    relative: bool = False

    def __post_init__(self) -> None:
        check_number("epsilon", self.epsilon)

    @property
    def whole_output(self) -> bool:  # type: ignore[override]
        return self.relative

    def propagate(self, layer: Layer, g: Tensor) -> Tensor:
        z = wide(layer.z)
        epsilon: float | Tensor = self.epsilon
        if self.relative:
            dims = tuple(range(1, z.ndim)) if z.ndim > 1 else (0,)
            epsilon = epsilon * z.std(dims, correction=0, keepdim=True)
        return layer.transpose(layer.share(g, signed(z, epsilon)), layer.weight)


@dataclass(frozen=True)
class Gamma(WeightedRule):
    """Contributions with the sign of `z_j` count `1 + gamma` times, the bias likewise.

    For `z_j > 0`: `c_ij = x_i w_ij + gamma (x_i w_ij)+`, `R_i = sum_j c_ij R_j / (sum_i c_ij + b_j + gamma b_j+)`;
    for `z_j < 0` with the negative parts. Montavon et al. 2019; Andéol et al. 2021 (both signs).
    """

    gamma: float = 0.25

    def __post_init__(self) -> None:
        check_number("gamma", self.gamma)

    def propagate(self, layer: Layer, g: Tensor) -> Tensor:
        w, b, z = layer.weight, layer.bias, wide(layer.z)
        b_pos, b_neg = _parts(b)
        # Without mixed signs p comes from w+ alone; with them it is half the sum with the absolute values, which
        # is well conditioned just where it is used (p where z > 0, n where z < 0).
        p = _positive(layer) if layer.nonnegative else (z - b + layer.forward(layer.x.abs(), w.abs())) / 2
        above = z + self.gamma * (p + b_pos)
        if bool(z.amin() >= 0):
            s = layer.share(g, above)
            if layer.nonnegative:
                return layer.transpose(s, w + self.gamma * w.clamp(min=0))
            oriented = s
        else:
            below = z + self.gamma * (z - b - p + b_neg)
            side = (z.sign() + 0.5).sign().to(g.dtype)
            s = layer.share(g, below + (above - below) * side.clamp(min=0))
            if layer.nonnegative:
                s_pos = s * side.clamp(min=0)
                return layer.transpose(s_pos, w + self.gamma * w.clamp(min=0)) + layer.transpose(
                    s - s_pos, w + self.gamma * w.clamp(max=0)
                )
            oriented = s * side
        # (x w)+ / x = (w + sgn(x) |w|) / 2
        even, odd = layer.transpose(s, w), layer.transpose(oriented, w.abs())
        return (1 + self.gamma / 2) * even + (self.gamma / 2) * layer.x.sign() * odd


@dataclass(frozen=True)
class AlphaBeta(WeightedRule):
    """`R_i = sum_j (a (x_i w_ij)+ / P_j - b (x_i w_ij)- / N_j) R_j`, `a - b = 1`. Bach et al. 2015.

    `P_j` and `N_j` are the sums of the positive and of the negative contributions, the bias among them.
    """

    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)
        check_number("beta", self.beta)
        if abs(self.alpha - self.beta - 1) > 1e-9:
            raise RuleError(f"alpha - beta must be 1 to conserve relevance; got {self.alpha} - {self.beta}.")

    def propagate(self, layer: Layer, g: Tensor) -> Tensor:
        x, w, b = layer.x, layer.weight, layer.bias
        w_pos, w_neg = w.clamp(min=0), w.clamp(max=0)
        b_pos, b_neg = _parts(b)
        p = wide(_positive(layer))
        shares = [(self.alpha, layer.share(g, p + b_pos), w_pos, w_neg)]
        if self.beta:
            # n is a difference: what is below the rounding of p is no contribution at all.
            n = wide(layer.z) - b - p
            n = n * (n + 8 * torch.finfo(p.dtype).eps * p).clamp(max=0).sign().neg()
            shares.append((-self.beta, layer.share(g, n + b_neg), w_neg, w_pos))
        total: Tensor | None = None
        for factor, s, above, below in shares:
            part = layer.transpose(s, above)
            if not layer.nonnegative:
                part = torch.where(x >= 0, part, layer.transpose(s, below))
            total = factor * part if total is None else total + factor * part
        assert total is not None
        return total


@dataclass(frozen=True)
class ZPlus(WeightedRule):
    """`R_i = sum_j (x_i w_ij)+ / P_j R_j`: `AlphaBeta(1, 0)`. Montavon et al. 2017."""

    def propagate(self, layer: Layer, g: Tensor) -> Tensor:
        return AlphaBeta(1.0, 0.0).propagate(layer, g)
