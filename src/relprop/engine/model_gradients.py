"""Tensors with a plain graph of their own, of which the model may take a gradient itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from torch import Tensor


class ModelGradients:
    """What a run knows of gradients that its model takes.

    Attributes:
        plain: tensors with a plain graph, by identity.
        own_from: how many module calls deep a gradient that is taken is the model's own; None where none can be.
        calling: whether the model's forward runs now, and nothing of the caller's.
        asking: whether the caller's own tensors ask for a gradient, so that the model sees such.
    """

    def __init__(self, own_from: int | None = None, asking: bool = True) -> None:
        self.plain: WeakValueDictionary[int, Tensor] = WeakValueDictionary()
        self.own_from = own_from
        self.calling = False
        self.asking = asking

    @contextmanager
    def within_model(self) -> Iterator[None]:
        """While this lasts, the model's own forward runs."""
        self.calling = True
        try:
            yield
        finally:
            self.calling = False

    def end(self) -> None:
        """The forward pass has ended: no gradient that is taken from now on is the model's own."""
        self.own_from = None
