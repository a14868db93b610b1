"""Conditions as chains of backward passes: each passes the gates of its layers in the order in which the model ran them.

For units u of a layer l, `G` is taken from the score to l, all but u is set to 0, and the rest goes on from l: what goes
around the layer is left behind. Paths that avoid units are another matter: there their `G` is set to 0 in place, within
a pass. Conditions that begin alike share their passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from relprop.attribution.books import Gradients
from relprop.attribution.conditions import Condition, Units
from relprop.attribution.filters import Filter, filter_of
from relprop.attribution.points import Point, Watch, below
from relprop.errors import InputError


@dataclass(frozen=True)
class PointGate:
    """A point with what it lets through.

    Attributes:
        point: where it stands.
        filter: the map on `G` there.
        said: the units in words.
    """

    point: Point
    filter: Filter
    said: str

    def passed(self, gradients: Gradients) -> list[Tensor | None]:
        """What the gate hands on of the `G` at each edge of its point."""
        return [None if g is None else self.filter(g) for g in gradients]


@dataclass(frozen=True)
class GateChain:
    """Gates in the order in which a backward pass meets them, and gates that act within the passes.

    Attributes:
        gates: those that relevance must pass; what goes around them is dropped.
        keeps: those that stop relevance at their units.
        rows: the samples that take part; None for all.
    """

    gates: tuple[PointGate, ...] = ()
    keeps: tuple[PointGate, ...] = ()
    rows: Tensor | None = None


class Planner:
    """Turns conditions into chains, after the forward pass."""

    def __init__(self, watch: Watch, samples: int) -> None:
        self._watch, self._samples = watch, samples
        self._gates: dict[tuple[int, bool], PointGate] = {}
        self._below: dict[int, set[Node]] = {}
        self._held: list[Any] = []

    def under(self, point: Point) -> set[Node]:
        """The nodes below a point."""
        if id(point) not in self._below:
            self._below[id(point)] = below([point])
        return self._below[id(point)]

    def chains(self, condition: Condition | Sequence[Condition | None] | None) -> list[GateChain]:
        """The chains of one condition, or of one per sample."""
        if condition is None:
            return [GateChain()]
        if isinstance(condition, Condition):
            return [chain for term in condition.terms() if (chain := self._chain(term.through, term.around))]
        alike: dict[Any, list[GateChain]] = {}
        for number, one in enumerate(condition):
            rows = torch.arange(len(condition)) == number
            for chain in self.chains(one):
                plain = all(gate.filter.basis is None for gate in (*chain.gates, *chain.keeps))
                key = (
                    tuple(id(g.point) for g in chain.gates),
                    tuple(id(g.point) for g in chain.keeps),
                    plain or number,
                )
                alike.setdefault(key, []).append(replace(chain, rows=rows))
        return [chain for some in alike.values() for chain in _merged(some)]

    def _gate(self, units: Units, inverse: bool) -> PointGate:
        if (id(units), inverse) not in self._gates:
            point = self._watch.point(units)
            if not point.edges:
                raise InputError(off_the_way(units.said))
            made = filter_of(units, point.shape, self._samples)
            if made.weights is not None:
                made = replace(made, weights=point.raw_weights(made.weights))
            elif point.raw != point.shape:
                raise InputError(f"{units.said}: directions of these heads cannot be told; take the layer around them.")
            self._held.append(units)  # its identity stays its own
            self._gates[id(units), inverse] = PointGate(point, made.complement() if inverse else made, units.said)
        return self._gates[id(units), inverse]

    def _chain(self, through: Sequence[Units], around: Sequence[Units]) -> GateChain | None:
        """The chain of a term; None if its units exclude each other."""
        gates, keeps = self._joined(through, False), self._joined(around, True)
        for keep in list(keeps):
            for n, gate in enumerate(gates):
                if gate.point is keep.point:  # each path passes the layer once: here, and not there
                    gates[n] = replace(gate, filter=gate.filter.times(keep.filter, gate.said))
                    keeps.remove(keep)
        if any(g.filter.weights is not None and not bool(g.filter.weights.any()) for g in gates):
            return None
        return GateChain(tuple(self._ordered(gates)), tuple(keeps))

    def _joined(self, units: Sequence[Units], inverse: bool) -> list[PointGate]:
        found: dict[int, PointGate] = {}
        for one in units:
            gate = self._gate(one, inverse)
            known = found.get(id(gate.point))
            found[id(gate.point)] = (
                gate
                if known is None or known is gate
                else replace(known, filter=known.filter.times(gate.filter, gate.said))
            )
        return list(found.values())

    def _ordered(self, gates: list[PointGate]) -> list[PointGate]:
        """The gates from the score downwards."""
        order: list[PointGate] = []
        for gate in gates:
            place = 0
            for n, other in enumerate(order):
                if gate.point.nodes & self.under(other.point):
                    place = n + 1
                elif not other.point.nodes & self.under(gate.point):
                    raise InputError(
                        f"no path passes both: '{other.said}' and '{gate.said}' lie side by side. Paths through either are "
                        "a | b."
                    )
            order.insert(place, gate)
        return order


def _merged(some: list[GateChain]) -> list[GateChain]:
    """Chains of different samples through the same points, as one."""
    rows = torch.stack([c.rows for c in some if c.rows is not None])
    if (rows.sum(0) > 1).any():  # several terms of one sample
        return [_restricted(chain) for chain in some]

    def joined(gates: tuple[PointGate, ...]) -> PointGate:
        weights = [g.filter.only(r).weights for g, r in zip(gates, rows, strict=True)]
        return PointGate(
            gates[0].point, Filter(sum((w for w in weights if w is not None), torch.zeros(()))), gates[0].said
        )

    if len(some) == 1:
        return [_restricted(some[0])]
    gates = tuple(joined(gs) for gs in zip(*(c.gates for c in some), strict=True))
    keeps = tuple(joined(gs) for gs in zip(*(c.keeps for c in some), strict=True))
    return [GateChain(gates, keeps, None if gates else rows.any(0))]


def _restricted(chain: GateChain) -> GateChain:
    """A chain that concerns some samples: its first gate is closed to the others."""
    if not chain.gates or chain.rows is None:
        return chain
    first = chain.gates[0]
    return GateChain((replace(first, filter=first.filter.only(chain.rows)), *chain.gates[1:]), chain.keeps, None)


def off_the_way(said: str) -> str:
    """What is said of a layer that relevance does not pass."""
    return (
        f"'{said}': the layer does not lie on the way from the inputs to the score, so no relevance passes it. A step inside "
        "an activation that is written out counts as part of the activation; of a layer that returns several tensors, part= "
        "names the one that is used."
    )
