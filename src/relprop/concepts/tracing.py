"""Nodes and edges of an attribution graph, from passes through one open autograd graph."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from relprop.attribution.conditions import Units
from relprop.attribution.filters import Filter
from relprop.attribution.opened import Opened
from relprop.attribution.points import Point, below
from relprop.concepts.graph import AttributionGraph
from relprop.concepts.groups import Group
from relprop.concepts.nodes import GraphNode
from relprop.engine.undo import Undo
from relprop.errors import InputError
from relprop.results.identity import Identity
from relprop.results.target_words import in_words
from relprop.trees import leaves

MOST = 5000
"""The largest number of nodes of a graph."""
AT_ONCE = 16
"""How many nodes share a batched backward pass."""


class Tracer:
    """Finds nodes and edges with passes through one open graph."""

    def __init__(
        self, state: Opened, chosen: Sequence[Units], keep: float, tokens: Any, fold_first: bool | None
    ) -> None:
        self._state, self._keep = state, keep
        found = [(units, state.watch.point(units)) for units in chosen]
        for units, point in found:
            if not point.edges:
                raise InputError(f"{units.said}: the layer does not lie on the way from the inputs to the score.")
        under = {id(point): below([point]) for _, point in found}
        self.groups = [
            Group(u, p, state.watch.layers[u.path, u.at])
            for u, p in sorted(found, key=lambda one: -len(under[id(one[1])]))
        ]
        self._under = [under[id(group.point)] for group in self.groups]
        for n, group in enumerate(self.groups):
            for other in self.groups[:n]:
                if group.overlaps(other):
                    raise InputError(f"nodes overlap: {other.units.said} and {group.units.said} share units.")
        self._ids = state.run.inputs.ids
        self._length = max(
            (t.shape[1] for _, t in leaves(state.inputs) if isinstance(t, Tensor) and t.ndim > 1), default=0
        )
        self._tokens, self._fold = tokens, self._ids if fold_first is None else fold_first

    def graph(self) -> AttributionGraph:
        """The whole graph."""
        state, start = self._state, self._state.start
        ends, arrived = self._pass([start.score], [start.gradient], range(len(self.groups)), {})
        inputs = self._inputs(ends)
        names = self._input_names()
        relevance = [group.sums(_relevance(group.point, gs)) for group, gs in zip(self.groups, arrived, strict=True)]
        for group, gs in zip(self.groups, arrived, strict=True):
            if all(g is None for g in gs):
                raise InputError(f"{group.units.said}: the layer does not lie on the way from the inputs to the score.")
        kept = self._kept(relevance)
        nodes = [GraphNode("score", "score", "score", (), self._length - 1 if self._ids else None, len(self.groups) + 1, float(start.handed.sum()), float(start.score.detach().sum()))]  # fmt: skip
        number: dict[tuple[int, int], int] = {}
        for g, group in enumerate(self.groups):
            values = group.sums(group.point.value.double())
            for i in kept[g]:
                number[g, i] = len(nodes)
                depth = len(self.groups) - g
                nodes.append(GraphNode(group.name(i), "unit", group.units.path, group.index(i), self._position(group, i), depth, float(relevance[g][i]), float(values[i])))  # fmt: skip
        first = len(nodes)
        activations = self._input_values()
        for i, (name, position) in enumerate(names):
            nodes.append(GraphNode(name, "input", "inputs", (i,), position, 0, float(inputs[i]), activations[i]))
        edges: list[tuple[int, int, float]] = []
        for target, found_groups, found_inputs in self._edges(kept, arrived):
            at = 0 if target is None else number[target]
            total = nodes[at].relevance
            for (g, i), weight in found_groups.items():
                edges.append((number[g, i], at, weight))
                total -= weight
            for i, weight in enumerate(found_inputs):
                edges.append((first + i, at, weight))
                total -= weight
            nodes[at] = nodes[at].absorbing(total)
        made = state.start.target
        said = in_words(made, state.labels)
        tokens = list(self._tokens) if self._tokens is not None else []
        return AttributionGraph(nodes, [e for e in edges if e[2] != 0.0], said, tokens, state.run.sites.composite.name, str(Identity.of(state.model)), list(state.notices))  # fmt: skip

    def _kept(self, relevance: list[Tensor]) -> list[list[int]]:
        """The numbers of the nodes that are kept, for each group."""
        sizes = [self._sizes(group, some) for group, some in zip(self.groups, relevance, strict=True)]
        every = torch.cat(sizes)
        order = every.argsort(descending=True, stable=True)
        live = int((every > 0).sum())
        if isinstance(self._keep, int) or self._keep >= 1:
            count = min(int(self._keep), live)
        else:
            running = every[order].cumsum(0)
            count = min(int((running < self._keep * running[-1]).sum()) + 1, live)
        if count > MOST:
            raise InputError(f"the graph would have {count} nodes; {MOST} are the most. Keep fewer: keep=200.")
        chosen = torch.zeros(len(every), dtype=torch.bool)
        chosen[order[:count]] = True
        return [part.nonzero()[:, 0].tolist() for part in chosen.split([len(some) for some in sizes])]

    def _sizes(self, group: Group, relevance: Tensor) -> Tensor:
        """How strong each node of a group is; 0 for those that are folded."""
        sizes = relevance.detach().abs().double().cpu()
        if not self._fold:
            return sizes
        if group.count == 1:
            return sizes * float(self._position(group, 0) != 0)
        axis = self._axis(group)
        if axis in group.axes and group.point.shape[1 + axis] == self._length:
            sizes = sizes.reshape(group.shape).clone()
            sizes.select(group.axes.index(axis), 0).zero_()
        return sizes.flatten()

    def _edges(
        self, kept: list[list[int]], arrived: Any
    ) -> Iterator[tuple[Any, dict[tuple[int, int], float], list[float]]]:
        """For the score (None) and each kept node: the weights of its edges to lower nodes, and to the inputs."""
        stops = {g: self.groups[g].stop(some) for g, some in enumerate(kept) if some}
        start = self._state.start
        ends, found = self._pass([start.score], [start.gradient], list(stops), stops)
        yield None, *self._read(ends, found, kept, list(stops))
        every = [(g, i) for g, some in enumerate(kept) for i in some]
        for first in range(0, len(every), AT_ONCE):
            yield from self._from(every[first : first + AT_ONCE], kept, arrived, stops)

    def _from(
        self, some: list[tuple[int, int]], kept: list[list[int]], arrived: Any, stops: dict[int, Filter]
    ) -> Iterator[tuple[Any, dict[tuple[int, int], float], list[float]]]:
        """The edges of some nodes, from one batched pass: each row starts at one node."""
        seeds: dict[tuple[int, int], Tensor] = {}
        for row, (g, i) in enumerate(some):
            for n, given in enumerate(arrived[g]):
                if given is not None:
                    whole = seeds.setdefault((g, n), given.new_zeros(len(some), *given.shape))
                    whole[row] = given * self.groups[g].chosen([i]).to(given)
        starts = list(seeds)
        lower = [h for h in stops if any(self.groups[h].point.nodes & self._under[g] for g, _ in some)]
        outputs = [GradientEdge(*self.groups[g].point.edges[n][0]) for g, n in starts]
        answered: list[bool] = []

        def run(*rows: Tensor) -> tuple[Tensor, ...]:
            ends, found = self._pass(outputs, list(rows), lower, stops, dict(zip(starts, rows, strict=True)))
            flat = [*ends, *(g for gs in found for g in gs)]
            answered[:] = [g is not None for g in flat]
            return tuple(g for g in flat if g is not None)

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # an operation runs row by row
            given = iter(torch.func.vmap(run)(*seeds.values()))
        flat = [next(given) if there else None for there in answered]
        count = len(self._state.reader.ends)
        for row, (g, i) in enumerate(some):
            one = iter([x if x is None else x[row] for x in flat[count:]])
            parts = [[next(one) for _ in self.groups[h].point.edges] for h in lower]
            others = [(h, gs) for h, gs in zip(lower, parts, strict=True) if h != g]
            ends = [x if x is None else x[row] for x in flat[:count]]
            yield (g, i), *self._read(ends, [gs for _, gs in others], kept, [h for h, _ in others])

    def _read(
        self, ends: Any, found: Any, kept: list[list[int]], groups: Sequence[int]
    ) -> tuple[dict[tuple[int, int], float], list[float]]:
        weights: dict[tuple[int, int], float] = {}
        for h, gs in zip(groups, found, strict=True):
            if any(g is not None for g in gs):
                sums = self.groups[h].sums(_relevance(self.groups[h].point, gs))
                weights.update({(h, i): float(sums[i]) for i in kept[h]})
        return weights, [float(r) for r in self._inputs(ends)]

    def _pass(
        self, outputs: Any, seeds: Any, groups: Sequence[int], stops: dict[int, Filter],
        own: dict[tuple[int, int], Tensor] | None = None,
    ) -> tuple[list[Any], list[list[Any]]]:  # fmt: skip
        """`G` at the ends and at the points of some groups. Relevance goes no further at the stops, unless it starts there."""
        ends = self._state.reader.ends
        edges: list[Any] = [GradientEdge(*edge) for g in groups for edge, _ in self.groups[g].point.edges]
        wanted: list[Any] = [*ends, *edges]
        self._state.run.begin_pass(1, False)
        with _stopped({g: (self.groups[g].point, stop) for g, stop in stops.items()}, own or {}):
            found = torch.autograd.grad(outputs, wanted, seeds, retain_graph=True, allow_unused=True)
        rest = iter(found[len(ends) :])
        return list(found[: len(ends)]), [[next(rest) for _ in self.groups[g].point.edges] for g in groups]

    def _inputs(self, ends: Any) -> Tensor:
        """The relevance of each node of the inputs."""
        if all(g is None for g in ends):
            return torch.zeros(len(self._input_names()), dtype=torch.float64)
        values = self._state.reader.inputs(ends, self._state.start.score)
        return torch.cat([_parts(v.detach()) for v in values])

    def _input_values(self) -> list[float]:
        return torch.cat([_parts(t.detach().double()) for _, t in leaves(self._state.inputs)]).tolist()

    def _input_names(self) -> list[tuple[str, int | None]]:
        """A name for each node of the inputs, and its position."""
        found: list[tuple[str, int | None]] = []
        several = len(leaves(self._state.inputs)) > 1
        for path, t in leaves(self._state.inputs):
            prefix = path.removeprefix("inputs") if several else ""
            count = len(_parts(t.detach().double()))
            if count == 1 and t.numel() != 1:
                found.append((f"input{prefix}", None))
                continue
            for i in range(count):
                named_ = (
                    self._tokens[i] if self._tokens is not None and i < len(self._tokens) and not prefix else str(i)
                )
                found.append((f"input{prefix} {named_}", i))
        return found

    @staticmethod
    def _axis(group: Group) -> int:
        """The axis of a sample along which positions lie, if the layer has positions."""
        return 1 if group.heads else 0

    def _position(self, group: Group, number: int) -> int | None:
        """The position of a node in the sequence; None if it has none."""
        axis = self._axis(group)
        if group.step is not None:
            return group.step % self._length if self._length else None
        if (not self._ids and len(group.point.shape) != 3 + axis) or group.point.shape[1 + axis] != self._length:
            return None
        if axis in group.axes:
            return group.index(number)[group.axes.index(axis)]
        index = group.units.index if isinstance(group.units.index, tuple) else (group.units.index,)
        first = index[axis] if len(index) > axis else None
        return first % self._length if isinstance(first, int) else None


def _parts(t: Tensor) -> Tensor:
    """What belongs to each node of an input: a position, a feature, or all of a picture."""
    if t.ndim == 2 and t.shape[1] <= 512:
        return t[0].double()
    if t.ndim == 3 and t.shape[1] <= 512:
        return t[0].double().sum(1)
    return t.double().sum().reshape(1)


def _relevance(point: Point, gradients: Sequence[Tensor | None]) -> Tensor:
    found = point.relevance(gradients)
    return torch.zeros(point.shape, dtype=torch.float64) if found is None else found.double()


@contextmanager
def _stopped(stops: dict[int, tuple[Point, Filter]], own: dict[tuple[int, int], Tensor]) -> Iterator[None]:
    """While this lasts, relevance goes no further at some units; what starts there does."""
    with Undo() as undo:
        for number, (point, stop) in stops.items():
            for n, (edge, value) in enumerate(point.edges):
                kept, seed = stop.weights, own.get((number, n))
                kept = kept if kept is None else kept.to(value)

                def close(gradients: Any, at: int = edge[1], kept: Any = kept, seed: Any = seed) -> Any:
                    g = gradients[at]
                    if g is None:
                        return gradients
                    passed = g * kept if seed is None else g * kept + seed
                    return tuple(passed if m == at else one for m, one in enumerate(gradients))

                undo.later(edge[0].register_prehook(close).remove)
        yield
