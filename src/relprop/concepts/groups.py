"""The nodes of a graph at one hidden tensor: which units belong to which node."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.conditions import Units
from relprop.attribution.filters import Filter, filter_of
from relprop.attribution.layers import Heads, SplicedPart, Steps
from relprop.attribution.points import Point
from relprop.errors import InputError


class Group:
    """Nodes at one point: the entries along some axes of a sample, or one node for an index.

    Attributes:
        units: the units, as they were given.
        point: where they are.
        step: the number of the step, for a state of a recurrent layer.
        heads: whether its units are the heads of an attention.
        axes: the axes of one sample whose entries are nodes; empty for one node.
        shape: the number of nodes along each of these axes.
        count: the number of nodes.
    """

    def __init__(self, units: Units, point: Point, module: Any) -> None:
        self.units, self.point, self.heads = units, point, isinstance(module, Heads)
        self.step = units.run if isinstance(module, Steps) else None
        self._latents = isinstance(module, SplicedPart) and module.name == "latents"
        inner = tuple(point.shape[1:])
        self.axes = self._axes(inner)
        self.shape = tuple(inner[axis] for axis in self.axes)
        self.count = math.prod(self.shape)
        chosen = filter_of(units, point.shape, 1)
        if chosen.weights is None or not bool(((chosen.weights == 0) | (chosen.weights == 1)).all()):
            raise InputError(f"{units.said}: a node is a set of units; directions and weights are none.")
        self._mask = None if bool((chosen.weights == 1).all()) else chosen.weights.expand(1, *inner)

    def _axes(self, inner: tuple[int, ...]) -> tuple[int, ...]:
        if self.units.per is not None:
            axes = tuple(axis + len(inner) if axis < 0 else axis for axis in self.units.per)
            if len(set(axes)) < len(axes) or not all(0 <= axis < len(inner) for axis in axes):
                raise InputError(f"{self.units.said}: each{self.units.per} names no axes of {inner}.")
            return tuple(sorted(axes))
        if self.units.index is not None or self.units.mask is not None or not inner:
            return ()
        return (0, 1) if self.heads or (self._latents and len(inner) == 2) else (0,)

    def sums(self, relevance: Tensor) -> Tensor:
        """The relevance of each node, (..., count), from that of the units, (..., 1, *units)."""
        if self._mask is not None:
            relevance = relevance * self._mask.to(relevance)
        inner = len(self.point.shape) - 1
        start = relevance.ndim - inner
        rest = [start - 1, *(start + axis for axis in range(inner) if axis not in self.axes)]
        return relevance.sum(rest).flatten(-len(self.axes)) if self.axes else relevance.sum(rest)[..., None]

    def index(self, number: int) -> tuple[int, ...]:
        """The place of a node along the axes."""
        found: list[int] = []
        for size in reversed(self.shape):
            number, i = divmod(number, size)
            found.append(i)
        return tuple(reversed(found))

    def chosen(self, numbers: Sequence[int]) -> Tensor:
        """1 at the units of some nodes, else 0, in the shape of the tensor in the graph."""
        marks = torch.zeros(self.count, dtype=torch.float64)
        marks[list(numbers)] = 1.0
        inner = tuple(self.point.shape[1:])
        shape = [n if axis in self.axes else 1 for axis, n in enumerate(inner)]
        weights = marks.reshape(shape)[None] if self.axes else marks.reshape([1] * (len(inner) + 1))
        weights = weights if self._mask is None else weights * self._mask
        return self.point.raw_weights(weights)

    def stop(self, numbers: Sequence[int]) -> Filter:
        """The filter that stops relevance at some nodes."""
        return Filter(1 - self.chosen(numbers))

    def name(self, number: int) -> str:
        """A node in words."""
        if not self.axes:
            return self.units.said
        inner = ["*"] * (max(self.axes) + 1)
        for axis, i in zip(self.axes, self.index(number), strict=True):
            inner[axis] = str(i)
        where = f"{self.units.path} (input)" if self.units.at == "input" else self.units.path
        run = "" if self.units.run is None else f", run {self.units.run}"
        return f"{where}[{', '.join(inner)}]{run}"

    def overlaps(self, other: Group) -> bool:
        """Whether the two share units of one tensor."""
        if not {edge for edge, _ in self.point.edges} & {edge for edge, _ in other.point.edges}:
            return False
        every = [g.chosen(range(g.count)).expand(1, *g.point.raw[1:]) for g in (self, other)]
        return bool((every[0] * every[1]).any())
