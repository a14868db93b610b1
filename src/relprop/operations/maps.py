"""Weighted layers as linear maps: forward and transpose for any weight of the same shape.

`along_result` shapes biases and scales to broadcast with the output. `channel_axis` is an axis of the output: a scale
or shift along it, one number per channel, gives another map of the same kind. It is None if there is no such axis.
`extent`, where it is not the last axis, holds the axes of the input along which values are of one kind.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.tensors import per_axis


class Dense:
    """`y = x w^T`: weight (j, i)."""

    channel_axis = -1

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        return F.linear(x, w, b)

    def transpose(self, s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        return s @ w

    def along_output(self, v: Tensor, w: Tensor) -> Tensor:
        """A vector over output channels, shaped to multiply the weight."""
        return v[:, None]

    def along_result(self, v: Tensor) -> Tensor:
        """A vector over output channels, shaped to broadcast with the output."""
        return v


class Bilinear:
    """`y_k = x1 w_k x2`, with the constant operand folded into a weight for each sample: weight (..., j, i)."""

    channel_axis = None

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        y = (w @ x[..., None])[..., 0]
        return y if b is None else y + b

    def transpose(self, s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        return (s[..., None, :] @ w)[..., 0, :]

    def along_output(self, v: Tensor, w: Tensor) -> Tensor:
        return v[:, None]

    def along_result(self, v: Tensor) -> Tensor:
        return v


class Contraction:
    """An einsum of a live and a constant tensor that share no index of the result: a matrix in any layout."""

    def __init__(self, live: str, constant: str, output: str) -> None:
        self.live, self.constant, self.output = live, constant, output
        self.channel_axis = -1 if output[-1] in constant else None  # `...` ends in a dot, which no constant contains
        before, _, after = live.partition("...")
        axes = {label: n for n, label in enumerate(before)} | {label: n - len(after) for n, label in enumerate(after)}
        self.extent = tuple(axes[label] for label in live if label in constant)

    @staticmethod
    def parse(equation: Any, position: int) -> Contraction | None:
        """The map of an equation of two operands, with the live one at `position`; None if it is not such a map."""
        if not isinstance(equation, str) or equation.count(",") != 1 or equation.count("->") != 1:
            return None
        operands, output = equation.replace(" ", "").split("->")
        live, constant = operands.split(",")[:: 1 - 2 * position]
        if "." in equation:
            if live.count("...") != 1 or output.count("...") != 1 or "." in constant:
                return None
            named = live.replace("...", ""), constant, output.replace("...", "")
        else:
            named = live, constant, output
        plain = all(len(set(term)) == len(term) for term in named)
        one, two, end = (set(term) for term in named)
        moved = two - one <= end and one - two <= end
        if not named[2] or not plain or not moved or one & two & end:
            return None
        return Contraction(live, constant, output)

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        y = torch.einsum(f"{self.live},{self.constant}->{self.output}", x, w)
        return y if b is None else y + b

    def transpose(self, s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        return torch.einsum(f"{self.output},{self.constant}->{self.live}", s, w)

    def along_output(self, v: Tensor, w: Tensor) -> Tensor:
        return v.reshape([-1 if label == self.output[-1] else 1 for label in self.constant])

    def along_result(self, v: Tensor) -> Tensor:
        return v


class Diagonal:
    """`y = x w`, one weight per channel, shaped to broadcast: a BatchNorm on its own."""

    channel_axis = None

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        return x * w if b is None else x * w + b

    def transpose(self, s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        return s * w

    def along_output(self, v: Tensor, w: Tensor) -> Tensor:
        return v.reshape(w.shape)

    def along_result(self, v: Tensor) -> Tensor:
        return v


class Convolution:
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

    def along_output(self, v: Tensor, w: Tensor) -> Tensor:
        if not self.transposed:
            return v.reshape(-1, *[1] * (w.ndim - 1))
        # weight (i, j / groups, ...): output channel j = group * (j / groups) + rest
        per_group = v.reshape(self.groups, 1, -1).expand(-1, w.shape[0] // self.groups, -1)
        return per_group.reshape(w.shape[0], -1, *[1] * (w.ndim - 2))

    def along_result(self, v: Tensor) -> Tensor:
        return v.reshape(-1, *[1] * self.dims)
