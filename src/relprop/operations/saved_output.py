"""The saved output of a layer, kept for its rule without a copy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relprop.numerics import where_positive
from relprop.torch_private.autograd_graph import batched
from relprop.torch_private.recorded import recording


class Output(NamedTuple):
    """A layer's output as the backward pass finds it.

    Attributes:
        value: the saved output; None if it must be computed again.
        rectified: whether no relevance arrives where it is negative; a function if that must be read off numbers.
        clipped: whether its negative entries read 0.
    """

    value: Tensor | None = None
    rectified: bool | Callable[[], bool] = False
    clipped: bool = False

    def part(self, at: Any) -> Output:
        """A part of it."""
        return self if self.value is None else self._replace(value=self.value[at])


class Kept:
    """A layer's saved output, without a copy as long as nothing overwrites it."""

    __slots__ = ("alone", "complete", "rectified", "value", "version")

    def __init__(self, z: Tensor) -> None:
        self.alone = False
        self.hold(z, rectified=False)

    def hold(self, z: Tensor, *, rectified: bool, whole: bool = False) -> None:
        """Keeps a tensor: the output, or a relu's in its place, unless `whole` says that it is the output all the same."""
        self.value: Tensor | None = z.detach()
        self.version = z._version
        self.rectified = rectified
        self.complete = whole or not rectified

    def read(self, g: Tensor, whole: bool) -> Output:
        """The output. It has no value if that was overwritten, or if the relu's in its place differs where it matters."""
        if self.value is None or self.value._version != self.version:
            return Output()
        if self.complete:
            return Output(self.value, self.rectified and (self.alone or partial(self._reads, g)))
        if whole or not (self.alone or self._reads(g)):
            return Output()
        return Output(self.value, True, True)

    def _reads(self, g: Tensor) -> bool:
        """Whether relevance arrives only where the relu let its input through. Read on a CPU alone: others would wait."""
        if self.value is None or g.device.type != "cpu" or recording() or batched(g):
            return False
        return torch.equal(where_positive(g, self.value), g)
