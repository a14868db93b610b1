"""The saved output of a layer, kept for its rule without a copy."""

from __future__ import annotations

import torch
from torch import Tensor

from relprop.numerics import where_positive
from relprop.torch_private.graph import batched
from relprop.torch_private.recorded import recording


class Kept:
    """A layer's saved output, without a copy as long as nothing overwrites it."""

    __slots__ = ("alone", "capped", "rectified", "value", "version")

    def __init__(self, z: Tensor) -> None:
        self.alone = False
        self.hold(z, rectified=False)

    def hold(self, z: Tensor, *, rectified: bool, capped: Capped | None = None) -> None:
        self.value: Tensor | None = z.detach()
        self.version = z._version
        self.rectified = rectified
        self.capped = capped

    def read(self, g: Tensor, whole: bool) -> Tensor | None:
        """The output. None if it was overwritten, or if the relu's output in its place differs where it matters."""
        if self.value is None or self.value._version != self.version:
            return None
        if self.rectified and whole:
            return None
        if self.rectified and not self.alone and (recording() or batched(g) or not self._reads(g)):
            return None
        return self.value if self.capped is None else self.capped.restore(self.value)

    def _reads(self, g: Tensor) -> bool:
        """Whether relevance arrives only where the relu let its input through."""
        return self.value is not None and torch.equal(where_positive(g, self.value), g)


class Capped:
    """The few entries that a cap such as relu6 cut: their positions and their earlier values."""

    __slots__ = ("index", "values")

    def __init__(self, x: Tensor, high: float) -> None:
        planes = x.detach().reshape(-1, x.shape[2:].numel()) if x.ndim > 2 else x.detach().reshape(len(x), -1)
        reach = (planes.amax(1) > high).nonzero()[:, 0]  # few channels exceed it; only these are searched
        beyond = planes[reach]
        at = (beyond > high).nonzero()
        self.index = reach[at[:, 0]] * planes.shape[1] + at[:, 1]
        self.values = beyond[at[:, 0], at[:, 1]]

    def restore(self, y: Tensor) -> Tensor:
        """The tensor as it was before the cap."""
        return y.put(self.index, self.values)
