"""Tensors with a plain graph, of which the model may take a gradient itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from relprop.engine.tensors import WeakTensors


class ModelGradients:
    """The gradients that the model of a run takes itself.

    Attributes:
        plain: tensors with a plain graph.
        any_plain: whether there was one.
        own_from: the depth of module calls from which a gradient is the model's own; None if none can be.
        calling: whether the model's forward runs now, and not code of the caller's.
        asking: whether the caller's own tensors require a gradient, so that the model's operands do.
    """

    def __init__(self, own_from: int | None = None, asking: bool = True) -> None:
        self.plain = WeakTensors()
        self.any_plain = False
        self.own_from = own_from
        self.calling = False
        self.asking = asking

    def keep(self, tensor: Tensor) -> None:
        """Notes a tensor with a plain graph."""
        self.plain.add(tensor)
        self.any_plain = True

    @contextmanager
    def within_model(self) -> Iterator[None]:
        """A context in which the model's own forward runs."""
        self.calling = True
        try:
            yield
        finally:
            self.calling = False

    def end(self) -> None:
        """Ends the forward pass: no gradient taken from now on is the model's own."""
        self.own_from = None
