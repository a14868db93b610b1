"""One call of a weighted layer, as the note of its output remembers it: later operations may be folded into it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from relprop.engine.functions import custom
from relprop.engine.notes import Note
from relprop.engine.tensor_attributes import NOTE
from relprop.operations.layer_site import LayerSite, Observer
from relprop.operations.maps import Map
from relprop.operations.saved_output import SavedOutput


class LayerCall:
    """A weighted layer on one input: its map, its site, and its output once it is applied.

    Attributes:
        weighted: the map and the weight, with what was folded into them.
        site: which rule acts, and who observes.
        saved: the output, kept for the rule.
        shape: the output's shape.
        dtype: the output's dtype.
    """

    __slots__ = ("_version", "_x", "dtype", "saved", "shape", "site", "weighted")
    saved: SavedOutput
    shape: torch.Size
    dtype: torch.dtype

    def __init__(self, site: LayerSite, weighted: Any, x: weakref.ref[Tensor], version: int) -> None:
        self.site, self.weighted = site, weighted
        self._x, self._version = x, version  # the output's note holds the input, so the graph need not

    def apply(self, compute: Callable[[], Tensor]) -> Tensor:
        """The layer's output, with the value `compute()`. The rule acts in its backward pass.

        Nothing extra is computed or stored for the rule: the input is saved, as torch saves it, and the output is kept
        without a copy. So memory stays that of a gradient.
        """
        x, site = self._x(), self.site
        assert x is not None  # the output that was folded is alive, and its note holds it
        saved = self.saved = SavedOutput()
        y = custom(x, compute, partial(site.propagate, self.weighted, saved))
        self.shape, self.dtype = y.shape, y.dtype
        journal = site.run.sites.journal
        saved.begin(y, kept=not (journal.active and journal.inside()))  # a checkpoint keeps nothing
        note = Note(site.run)
        note.layer, note.input = self, x
        NOTE.put(y, note)
        for show in site.followers:
            show(y)
        return y

    def folded(self, scale: Tensor | None, shift: Tensor | None) -> LayerCall:
        """This layer followed by a factor and a summand for each output channel, as one layer, yet to be applied."""
        return LayerCall(self.site, self.weighted.folded(scale, shift), self._x, self._version)

    def seen_as(self, linear: Map, shape: torch.Size) -> LayerCall:
        """This layer with another map of the same weight, whose output has this shape."""
        twin = LayerCall(self.site, self.weighted.seen_as(linear), self._x, self._version)
        twin.saved, twin.shape, twin.dtype = self.saved, shape, self.dtype
        return twin

    @property
    def folds(self) -> bool:
        """Whether the next operation can be folded into this layer: its input still has the same numbers."""
        x = self._x()
        return x is not None and x._version == self._version

    def vector(self, constant: Tensor) -> Tensor | None:
        """A constant that holds one number per channel of the output, as a vector over channels; None if it does not."""
        found: Tensor | None = self.weighted.linear.vector(constant, self.shape) if self.folds else None
        return found

    def uniform(self, number: Tensor) -> Tensor | None:
        """One number for all channels of the output, as a vector over channels; None if it is none."""
        found: Tensor | None = self.weighted.linear.uniform(number, self.shape) if self.folds else None
        return found

    def probe(self, report: Observer) -> None:
        """Reports the layer's relevance, also where another operation is folded into it. The report is a reader."""
        self.site.probe(report)
        self.saved.read()

    def follow(self, show: Observer) -> None:
        """Shows the outputs of what the layer is folded into. Other relevance than that of its relu may arrive there."""
        self.site.follow(show)
        self.saved.read()
