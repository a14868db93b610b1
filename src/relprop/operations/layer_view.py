"""A weighted layer during a backward pass, as rules see it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.numerics import carrying, finite, nonzero, own, quotient, signed, times, wide
from relprop.operations.saved_output import Output

_LARGE = 2**16
"""From how many entries on a copy of a weight takes longer than what it saves."""


class LayerView:
    """A weighted layer during one backward pass, as rules see it (`relprop.rules.Layer`).

    Args:
        weighted: the layer's map and weight (`operations.weighted`).
        site: knows whether zeros carry relevance, and whether the input has negative entries (`operations.layer_site`).
        x: the input.
        output: the output, where it was saved.
        memo: what `once` keeps for other portions of the same backward pass.
    """

    def __init__(self, weighted: Any, site: Any, x: Tensor, output: Output, memo: dict[str, Tensor]) -> None:
        self._weighted, self._memo = weighted, memo
        self.x, self.nz, self.nonnegative, self.samples = x, site.nz, site.nonnegative, site.samples
        self._rectified, self._clipped = output.rectified, output.clipped
        self._z = self._output = output.value
        self._bias: Tensor | float | None = None

    @property
    def weight(self) -> Tensor:
        return self.once("weight itself", lambda: self._weighted.weight.to(self.x.dtype))

    @property
    def bias(self) -> Tensor | float:
        if self._bias is None:
            b = self._weighted.bias
            self._bias = 0.0 if b is None else self._weighted.linear.along_result(b).to(self.x.dtype)
        return self._bias

    @property
    def rectified(self) -> bool:
        if callable(self._rectified):
            self._rectified = self._rectified()
        return self._rectified

    @property
    def output(self) -> Tensor:
        if self._output is None:
            self._output = self.forward(self.x, self.weight, self.bias)
        return self._output

    @property
    def z(self) -> Tensor:
        return self.output if self._z is None else self._z

    def as_output(self) -> Output:
        """The output as the view has it, without history."""
        return Output(self.z.detach(), self._rectified, self._clipped)

    @property
    def extent(self) -> tuple[int, ...]:
        return getattr(self._weighted.linear, "extent", (-1,))

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | float = 0.0) -> Tensor:
        return self._weighted.linear.forward(x, weight, bias if isinstance(bias, Tensor) else None)

    def transpose(self, s: Tensor, weight: Tensor | None = None) -> Tensor:
        s = s.to(self.x.dtype)
        if weight is not None:
            return self._weighted.linear.transpose(s, weight, self.x)
        weighted = self._weighted
        if weighted.scale is None or "weight itself" in self._memo or s.numel() > weighted.plain.numel():
            return weighted.linear.transpose(s, self.weight, self.x)
        # folded with a BatchNorm: scaling the few outputs is less work than scaling the weight
        s = s * weighted.linear.along_result(weighted.scale).to(s.dtype)
        return weighted.linear.transpose(s, weighted.plain.to(s.dtype), self.x)

    def relevance(self, g: Tensor) -> Tensor:
        if not self.nz:
            return wide(self.output) * g
        # a slope at a zero is not relevance
        return wide(nonzero(self.output)) * torch.where((self.output == 0) & ~carrying(g), 0.0, g)

    def share(self, g: Tensor, denominator: Tensor) -> Tensor:
        return quotient(self.relevance(g), wide(denominator))

    def stabilised(self, g: Tensor, epsilon: float | Tensor) -> Tensor:
        z = wide(self.z)
        if self.nz or self.z is not self.output or not own(g):
            return self.share(g, signed(z, epsilon))
        if isinstance(epsilon, Tensor) or epsilon < torch.finfo(z.dtype).tiny:
            size = z.abs()
            return quotient(size * g, size.add_(epsilon))
        # |z| / (|z| + eps) = 1 - eps / (|z| + eps); if a relu follows, z stands for |z|
        g, below = wide(g), z + epsilon if self._clipped else z.abs().add_(epsilon)
        return torch.addcdiv(g, g, below, value=-epsilon, out=below)

    def deviation(self) -> Tensor:
        z = wide(self.z)
        if not z.numel():  # an expert that got no token
            return z.new_zeros(())
        rows = z.shape[0] if z.ndim else 1
        if 0 < self.samples < rows and rows % self.samples == 0:  # several rows of each
            each = z.reshape(self.samples, -1).std(1, correction=0)
            return each.repeat_interleave(rows // self.samples).reshape(rows, *[1] * (z.ndim - 1))
        return z.std(tuple(range(1, z.ndim)) if z.ndim > 1 else (0,), correction=0, keepdim=True)

    def halves(self, g: Tensor, denominator: Tensor) -> tuple[Tensor, Tensor]:
        if self.nz or self.z is not self.output:
            odd = self.share(g, denominator)
            return odd, odd * torch.copysign(torch.ones((), dtype=odd.dtype, device=odd.device), wide(self.z))
        ratio, g = finite(wide(self.output) / denominator), wide(g)
        odd = ratio * g
        return odd, times(ratio.abs_(), g) if own(ratio) else ratio.abs() * g

    def once(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        if name not in self._memo:
            self._memo[name] = compute()
        return self._memo[name]

    def of_weight(self, name: str, change: Callable[[Tensor], Tensor], within: Callable[[Tensor], Tensor]) -> Tensor:
        weighted = self._weighted
        alone = weighted.scale is not None and not {name, "weight itself"} & self._memo.keys()
        if alone and weighted.plain.numel() > max(
            _LARGE, self.x.numel()
        ):  # else the merged weight is kept, to be read again
            merged = weighted.weight.to(self.x.dtype)
            if own(merged):
                self._memo[name] = within(merged)
        return self.once(name, lambda: change(self.weight))

    def without_bias(self) -> LayerView:
        view = copy.copy(self)
        view._output = self.output
        view._z = self.z - self.bias
        view._bias, view._rectified, view._clipped = 0.0, False, False
        return view
