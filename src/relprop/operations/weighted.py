"""The affine map of a weighted layer, `z = A(weight) x + bias`, as a value: nothing in it changes."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from relprop.operations.layer_view import LayerView
from relprop.operations.maps import Convolution, Dense, Map
from relprop.operations.saved_output import Output

PART = 4 * 2**20
"""The most entries that a CPU processes at once: with more, page faults cost more than arithmetic."""


class Weighted:
    """A linear map with its weight and bias, and a factor for each output channel that was folded into it.

    Attributes:
        linear: the map `A`, which takes any weight of the same shape.
        plain: the weight without the factors.
        scale: the factors; None for ones.
        bias: the bias, a number for each output channel; None for zeros.
        source: the weight as the model has it: `plain`, or what `plain` is a copy of.
        version: the version of `plain` when the layer ran.
    """

    __slots__ = ("bias", "linear", "plain", "scale", "source", "version")
    opaque: ClassVar[bool] = False
    """Whether the weight is hidden in the operation, so that only its own backward pass can be asked."""

    def __init__(
        self, linear: Any, plain: Tensor, scale: Tensor | None, bias: Tensor | None, source: Tensor, version: int
    ) -> None:
        self.linear, self.plain, self.scale, self.bias = linear, plain, scale, bias
        self.source, self.version = source, version

    @property
    def weight(self) -> Tensor:
        """The weight with the factors. It is made on demand, so that no copy outlives its use."""
        return self.plain if self.scale is None else self.plain * self.linear.along_output(self.scale, self.plain)

    @property
    def overwritten(self) -> bool:
        """Whether the model has written into the weight since."""
        return self.plain._version != self.version

    def folded(self, scale: Tensor | None, shift: Tensor | None) -> Weighted:
        """This map followed by a factor and a summand for each output channel, as one map."""
        return Weighted(self.linear, self.plain, *combined(self, scale, shift), self.source, self.version)

    def seen_as(self, linear: Map) -> Weighted:
        """Another map of the same weight."""
        return Weighted(linear, self.plain, self.scale, self.bias, self.source, self.version)

    def per_entry(self, relevance: Tensor) -> Tensor:
        """What went through each entry of the model's weight, from what went through each of `weight`."""
        return relevance

    def rows(self, rows: slice) -> Weighted:
        """Some of the outputs of a dense map."""
        scale, bias = (None if t is None else t[rows] for t in (self.scale, self.bias))
        return Weighted(self.linear, self.plain[rows], scale, bias, self.source, self.version)

    def view(self, site: Any, x: Tensor, output: Output, memo: dict[str, Tensor]) -> LayerView:
        """The layer as rules see it. Arguments as of `LayerView`."""
        return LayerView(self, site, x, output, memo)

    def large(self, x: Tensor, g: Tensor) -> bool:
        """Whether a tensor has so many entries that the layer may have portions."""
        return max(self.plain.numel(), x.numel(), g.numel()) > PART

    def portions_of_outputs(self, x: Tensor) -> list[slice]:
        """The outputs to process at a time, so that no modified copy of a large weight exists; none if all at once."""
        if not isinstance(self.linear, Dense) or self.plain.numel() <= max(PART, 8 * x.numel()):
            return []
        per = max(1, PART // self.plain.shape[1])
        return [slice(start, start + per) for start in range(0, self.plain.shape[0], per)]

    def portions_of_samples(self, x: Tensor, g: Tensor) -> list[slice]:
        """The samples to process at a time where a batch is large; none if all at once."""
        if not isinstance(self.linear, Convolution) or x.ndim != self.plain.ndim or len(x) < 2:
            return []
        largest = max(x.numel(), g.numel())
        if largest <= PART:
            return []
        parts = min(-(-largest // PART), len(x))
        return [slice(int(at[0]), int(at[-1]) + 1) for at in torch.arange(len(x)).tensor_split(parts)]


def combined(before: Any, scale: Tensor | None, shift: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The factors and the bias of a map that is followed by further factors and summands."""
    factors, bias = before.scale, before.bias
    if scale is not None:
        factors = scale if factors is None else factors * scale
        bias = None if bias is None else bias * scale
    if shift is not None:
        bias = shift if bias is None else bias + shift
    return factors, bias
