"""Weighted layers as linear maps: forward and transpose for any weight of the same shape.

`along_result` shapes biases and scales to broadcast with the output. `channel_axis` is an axis of the output: a scale
or shift along it, one number per channel, gives another map of the same kind. It is None if there is no such axis.
`extent`, where it is not the last axis, holds the axes of the input along which values are of one kind.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.tensors import per_axis
from relprop.torch_private.autograd_graph import batched


class Map:
    """A linear map of any weight of the same shape."""

    channel_axis: int | None = None

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    def transpose(self, s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        """From the shape of the output to that of the input `x`."""
        raise NotImplementedError

    def along_output(self, v: Tensor, w: Tensor) -> Tensor:
        """A vector over output channels, shaped to multiply the weight."""
        raise NotImplementedError

    def weight_gradient(self, x: Tensor, s: Tensor, w: Tensor) -> Tensor:
        """The gradient of `<forward(x, w), s>` by the weight."""
        with torch.enable_grad():
            own = w.detach().requires_grad_()
            return torch.autograd.grad(self.forward(x.detach(), own), own, s)[0]

    def along_result(self, v: Tensor) -> Tensor:
        """A vector over output channels, shaped to broadcast with the output."""
        return v

    def vector(self, constant: Tensor, shape: torch.Size) -> Tensor | None:
        """A constant that the output, of this shape, is scaled or shifted by, as a vector over channels; None if it is none."""
        axis = self.channel_axis
        if axis is None or constant.ndim > len(shape):
            return None
        if constant.numel() == 1 == shape[axis]:  # of a lone channel, whatever axis it lies on
            return constant.reshape(-1)
        if constant.ndim < -axis:
            return None
        return constant.reshape(-1) if constant.numel() == constant.shape[axis] == shape[axis] else None

    def uniform(self, number: Tensor, shape: torch.Size) -> Tensor | None:
        """One number for all channels of the output, of this shape, as its factor; None if it has none."""
        return None if self.channel_axis is None else number.reshape(1).expand(shape[self.channel_axis])

    def over(self, axis: int) -> bool:
        """Whether this axis of the output holds channels, too, beside `channel_axis`."""
        return False


class Dense(Map):
    """`y = x w^T`: weight (j, i)."""

    channel_axis = -1

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        return F.linear(x, w, b)

    def transpose(self, s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        return s @ w

    def weight_gradient(self, x: Tensor, s: Tensor, w: Tensor) -> Tensor:
        return s.reshape(-1, s.shape[-1]).mT @ x.reshape(-1, x.shape[-1])

    def along_output(self, v: Tensor, w: Tensor) -> Tensor:
        return v[:, None]


class Bilinear(Map):
    """`y_k = x1 w_k x2`, with the constant operand folded into a weight for each sample: weight (..., j, i)."""

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        y = (w @ x[..., None])[..., 0]
        return y if b is None else y + b

    def transpose(self, s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        return (s[..., None, :] @ w)[..., 0, :]

    def along_output(self, v: Tensor, w: Tensor) -> Tensor:
        return v[:, None]


class Contraction(Map):
    """`y = x w`, summed over the axes that the result lacks; a letter for each axis."""

    def __init__(self, live: str, constant: str, output: str) -> None:
        self.live, self.constant, self.output = live, constant, output
        self.channels = set(constant) & set(output) - set(live)
        self.extent = tuple(n for n, label in enumerate(live) if label in constant and label not in output)

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        y = torch.einsum(f"{self.live},{self.constant}->{self.output}", x, w)
        return y if b is None else y + b

    def transpose(self, s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        if batched(s):  # vmap has no rule for einsum
            return _contracted(s, self.output, w, self.constant, self.live)
        return torch.einsum(f"{self.output},{self.constant}->{self.live}", s, w)

    def along_output(self, v: Tensor, w: Tensor) -> Tensor:
        v = v.reshape([1] * (len(self.output) - v.ndim) + list(v.shape))
        kept = [self.output.index(label) for label in self.constant if label in self.output]
        others = [axis for axis in range(v.ndim) if axis not in kept]
        v = v.permute(*kept, *others).reshape([v.shape[axis] for axis in kept])
        return v[tuple(slice(None) if label in self.output else None for label in self.constant)]

    def vector(self, constant: Tensor, shape: torch.Size) -> Tensor | None:
        """A constant that varies along axes of the weight alone, and along a channel if there is one."""
        if constant.ndim > len(shape):
            return None
        start = len(shape) - constant.ndim
        labels, sizes = self.output[start:], shape[start:]
        full = {a for a, have, need in zip(labels, constant.shape, sizes, strict=True) if have == need}
        fits = all(
            have == 1 or (a in full and a in self.constant) for a, have in zip(labels, constant.shape, strict=True)
        )
        return constant if fits and (full & self.channels or not self.channels) else None

    def uniform(self, number: Tensor, shape: torch.Size) -> Tensor | None:
        return number.reshape([1] * len(shape))  # along no axis, some of which a view may join with others

    def over(self, axis: int) -> bool:
        return self.output[axis : axis + 1] in self.channels


def _contracted(a: Tensor, of_a: str, b: Tensor, of_b: str, output: str) -> Tensor:
    """`einsum` of two operands as a product of matrices. Each letter of the operands is in two of the three terms or in all."""
    shared = [label for label in of_a if label in of_b and label in output]
    summed = [label for label in of_a if label in of_b and label not in output]
    rows = [label for label in of_a if label not in of_b]
    columns = [label for label in of_b if label not in of_a]
    sizes = dict(zip(of_a, a.shape, strict=True)) | dict(zip(of_b, b.shape, strict=True))
    count = [math.prod(sizes[label] for label in labels) for labels in (shared, rows, summed, columns)]
    left = a.permute([of_a.index(label) for label in shared + rows + summed]).reshape(count[0], count[1], count[2])
    right = b.permute([of_b.index(label) for label in shared + summed + columns]).reshape(count[0], count[2], count[3])
    order = shared + rows + columns
    product = (left @ right).reshape([sizes[label] for label in order])
    return product.permute([order.index(label) for label in output])


class Diagonal(Map):
    """`y = x w`, one weight per channel, shaped to broadcast: a BatchNorm on its own."""

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        return x * w if b is None else x * w + b

    def transpose(self, s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        return s * w

    def along_output(self, v: Tensor, w: Tensor) -> Tensor:
        return v.reshape(w.shape)


class Convolution(Map):
    """A convolution or transposed convolution of any dimension, with or without a batch axis."""

    def __init__(
        self, dims: int, stride: Any, padding: Any, dilation: Any, groups: int, transposed: bool, output_padding: Any
    ) -> None:
        self.dims, self.groups, self.transposed = dims, groups, transposed
        self.channel_axis, self.extent = -dims - 1, tuple(range(-dims, 0))
        self.stride, self.dilation, self.output_padding = (
            per_axis(stride, dims),
            per_axis(dilation, dims),
            per_axis(output_padding, dims),
        )
        self.same = padding == "same"
        self.padding = [0] * dims if isinstance(padding, str) else per_axis(padding, dims)

    def takes_patches(self, w: Tensor) -> bool:
        """Whether it takes patches that do not overlap, as a dense layer on a picture that was cut into patches does."""
        sizes = w.shape[2:]
        apart = all(step >= size for step, size in zip(self.stride, sizes, strict=True))
        return apart and max(sizes) > 1 and not self.transposed

    def _ends(self, w: Tensor) -> list[int]:
        """padding='same' as (left, right) per dimension, the last first, as F.pad takes it; the right gets the odd one."""
        ends: list[int] = []
        for dilation, size in zip(reversed(self.dilation), reversed(w.shape[2:]), strict=True):
            total = dilation * (size - 1)
            ends += [total // 2, total - total // 2]
        return ends

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        lone = x.ndim == self.dims + 1
        x = x[None] if lone else x
        if self.same:
            x = F.pad(x, self._ends(w))
        y = torch.convolution(
            x, w, None if b is None else b.reshape(-1), self.stride, self.padding, self.dilation, self.transposed,
            self.output_padding, self.groups,
        )  # fmt: skip
        return y[0] if lone else y

    def transpose(self, s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        lone = x.ndim == self.dims + 1
        s, x = (s[None], x[None]) if lone else (s, x)
        ends = self._ends(w) if self.same else None
        inner = F.pad(x, ends) if ends else x
        g = torch.ops.aten.convolution_backward(
            s, inner, w, None, self.stride, self.padding, self.dilation, self.transposed,
            self.output_padding, self.groups, [True, False, False],
        )[0]  # fmt: skip
        if ends:
            g = F.pad(g, [-end for end in ends])
        return g[0] if lone else g

    def weight_gradient(self, x: Tensor, s: Tensor, w: Tensor) -> Tensor:
        s, x = (s[None], x[None]) if x.ndim == self.dims + 1 else (s, x)
        inner = F.pad(x, self._ends(w)) if self.same else x
        g: Tensor = torch.ops.aten.convolution_backward(
            s, inner, w, None, self.stride, self.padding, self.dilation, self.transposed,
            self.output_padding, self.groups, [False, True, False],
        )[1]  # fmt: skip
        return g

    def along_output(self, v: Tensor, w: Tensor) -> Tensor:
        if not self.transposed:
            return v.reshape(-1, *[1] * (w.ndim - 1))
        # weight (i, j / groups, ...): output channel j = group * (j / groups) + rest
        per_group = v.reshape(self.groups, 1, -1).expand(-1, w.shape[0] // self.groups, -1)
        return per_group.reshape(w.shape[0], -1, *[1] * (w.ndim - 2))

    def along_result(self, v: Tensor) -> Tensor:
        return v.reshape(-1, *[1] * self.dims)
