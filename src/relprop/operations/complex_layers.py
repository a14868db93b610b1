"""Weighted layers of complex numbers, as the layers of real numbers that they are.

A complex number is two real ones. `y = w x` is then `Re y = Re w Re x - Im w Im x`, `Im y = Im w Re x + Re w Im x`: a real
layer with two entries for each entry of x and of y, and four for each of w. Rules act on that layer.
"""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.numerics import in_parts
from relprop.operations.layer_call import LayerCall
from relprop.operations.layer_site import LayerSite
from relprop.operations.maps import Map
from relprop.operations.weighted import Weighted


class InParts(Map):
    """A complex linear map of real numbers: the last axis of input and output holds both parts, and the last two of the weight.

    Args:
        inner: the same map of real numbers.
    """

    def __init__(self, inner: Map) -> None:
        self.inner = inner
        self.extent = tuple(axis - 1 if axis < 0 else axis for axis in getattr(inner, "extent", (-1,)))

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        y = torch.stack([self._part(x, w[..., part, :]) for part in range(2)], -1)
        return y if b is None else y + b

    def _part(self, x: Tensor, w: Tensor) -> Tensor:
        return self.inner.forward(x[..., 0], w[..., 0]) + self.inner.forward(x[..., 1], w[..., 1])

    def transpose(self, s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        return torch.stack([self._back(s, w[..., part], x[..., part]) for part in range(2)], -1)

    def _back(self, s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        return self.inner.transpose(s[..., 0], w[..., 0], x) + self.inner.transpose(s[..., 1], w[..., 1], x)

    def along_result(self, v: Tensor) -> Tensor:
        return torch.stack([self.inner.along_result(v[..., part]) for part in range(2)], -1)


class ComplexWeighted(Weighted):
    """A complex layer's map, weight and bias. Nothing folds into it."""

    __slots__ = ()

    @property
    def weight(self) -> Tensor:
        """The weight of the real layer."""
        real, imaginary = in_parts(self.plain).unbind(-1)
        return torch.stack([torch.stack([real, -imaginary], -1), torch.stack([imaginary, real], -1)], -2)

    def per_entry(self, relevance: Tensor) -> Tensor:
        """What went through each complex entry, from what went through those of the real layer."""
        return relevance.sum((-1, -2))


def complex_layer(call: Call, x: Tensor, linear: Map, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A complex layer with a constant weight, under a rule. Its result has the model's own numbers."""
    plain = weight.clone() if call.copies_are_kept else weight
    parts = in_parts(x)
    shift = None if bias is None else in_parts(bias)
    value = ComplexWeighted(InParts(linear), plain, None, shift, weight, plain._version)
    layer = LayerCall(LayerSite(call, parts), value, weakref.ref(parts), parts._version)
    y = layer.apply(lambda: in_parts(call()))
    return torch.view_as_complex(y).clone()  # the model may write into it
