"""The saved output of a layer, kept for its rule without a copy."""

from __future__ import annotations

import weakref
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


MISSING = Output()
"""An output that must be computed again."""


class SavedOutput:
    """A layer's output, kept without a copy as long as nothing overwrites it, and what was done to it since.

    A relu's result may be kept in its place: it has the same numbers where relevance can arrive.

    Attributes:
        value: the tensor that is kept; None if there is none.
        version: its version at that time.
        rectified: whether a relu, or a relu with a cap, read the output.
        complete: whether the value is the output itself.
        readers: how many operations read the output.
        rectifiers: how many of them were relus.
    """

    __slots__ = ("_output", "complete", "readers", "rectified", "rectifiers", "value", "version")

    def __init__(self) -> None:
        self._output: weakref.ref[Tensor] | None = None
        self.value: Tensor | None = None
        self.version = self.readers = self.rectifiers = 0
        self.rectified, self.complete = False, True

    def begin(self, y: Tensor, kept: bool) -> None:
        """Starts with the output; its numbers are kept if `kept`."""
        self._output = weakref.ref(y)
        if kept:
            self.value, self.version = y.detach(), y._version

    def read(self) -> None:
        """Counts an operation that reads the output."""
        self.readers += 1

    def stands_in(self, output: Tensor) -> None:
        """Notes the tensor that now stands for the output."""
        self._output = weakref.ref(output)

    def preserve(self, copy: Tensor | None = None) -> None:
        """Keeps the numbers before the output is overwritten: takes `copy`, if that is a copy of it, else makes one."""
        if self.value is not None:
            held = copy if copy is not None and self.complete else self.value.clone()
            self.value, self.version = held.detach(), held._version

    def rectify(self, y: Tensor, inplace: bool, whole: bool = False) -> None:
        """Notes that a relu made `y` of the output, which equals it where relevance can arrive.

        With `whole`, `y` is the output itself, and the relu has a cap.
        """
        self.rectifiers += 1
        if inplace:
            self._output = None
        if self.value is not None:
            self.value, self.version = y.detach(), y._version
            self.rectified, self.complete = True, whole

    def take(self, g: Tensor, whole: bool, final: bool) -> Output:
        """The output, for a backward pass in which `G` arrives.

        It has no value if that was overwritten, or if a relu's result in its place differs where it matters: for a rule
        that reads the whole output, or where relevance arrives beside the relu.

        Args:
            g: what arrived.
            whole: whether all entries are read, also those at which no relevance arrives.
            final: whether this is the last backward pass, so that the memory is freed, as autograd frees its own.
        """
        value = self.value
        if value is None or torch.is_grad_enabled():
            return MISSING
        if final:
            self.value = None
        if value._version != self.version:
            return MISSING
        if not self.rectified:
            return Output(value)
        # relus are the only readers, now and later: the output's relevance is 0 where theirs is
        alone = self.readers == self.rectifiers and (self._output is None or self._output() is None)
        if self.complete:
            return Output(value, alone or partial(_passed_relu, g, value))
        if whole or not (alone or _passed_relu(g, value)):
            return MISSING
        return Output(value, True, True)


def _passed_relu(g: Tensor, value: Tensor) -> bool:
    """Whether relevance arrives only where a relu lets numbers through. Read on a CPU alone: others would wait."""
    if g.device.type != "cpu" or recording() or batched(g):
        return False
    return torch.equal(where_positive(g, value), g)
