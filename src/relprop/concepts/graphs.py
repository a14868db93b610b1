"""Attribution graphs: which hidden units passed relevance to which, as books that balance.

Relevance is taken from one node to the next: a backward pass starts at a node, and where it meets another node, its part
is read and goes no further. So the weight of an edge is direct relevance, and each node's relevance is the sum of what it
hands on plus what was absorbed on the way (by biases, stabilisers, softmax and norms).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from relprop.attribution.conditions import Condition, Units
from relprop.attribution.filters import Filter
from relprop.attribution.opened import Opened, opened
from relprop.attribution.points import Point, below, modules_of, named
from relprop.attribution.settings import Settings
from relprop.composites import Composite
from relprop.concepts.graph import Graph, Node
from relprop.concepts.groups import Group
from relprop.engine.eager import step_by_step
from relprop.engine.undo import Undo
from relprop.errors import InputError
from relprop.results.identity import Identity
from relprop.results.views import in_words
from relprop.signatures import public
from relprop.trees import batch_of, leaves

MOST = 5000
"""The largest number of nodes of a graph."""
AT_ONCE = 16
"""How many nodes share a batched backward pass."""


@step_by_step
@public("relprop.graph")
def graph(
    model: Any,
    inputs: Any,
    target: Any = None,
    *,
    nodes: Any,
    keep: int | float = 60,
    composite: Composite | str = "auto",
    tokens: Sequence[str] | None = None,
    fold_first: bool | None = None,
    seed: float | Tensor | None = None,
    select: Any = None,
    labels: Sequence[str] | None = None,
    forward_args: Sequence[Any] = (),
    forward_kwargs: dict[str, Any] | None = None,
) -> Graph:
    """The attribution graph of one score: direct relevance from node to node, from the score down to the inputs.

    Args:
        model: a module.
        inputs: one sample, with the axis of samples.
        target: which output, as in `attribute`; a `Contrast` to ask why this and not that.
        nodes: a list of `relprop.units`, or paths. Units with an index are one node. Others are a node for each entry of
            the first axis (channels, tokens, features), heads one for each head and token; `units(...).each(0, 1)` makes
            a node of each entry along other axes, such as the neurons of each token.
        keep: how many of the hidden nodes with most relevance the graph keeps; a number below 1 keeps the strongest that
            have this share of the sum of their sizes. Relevance passes through the others.
        composite: the rules. With `cp_lrp` nothing is absorbed by attention; `attnlrp` has edges into queries and keys.
        tokens: names of the positions.
        fold_first: whether nodes at the first position are left out, so that relevance passes through them. Attention of
            language models rests there. None: where the inputs are ids.
        seed: the relevance to hand out instead of the score.
        select: what to explain of an output that is no tensor.
        labels: names of the classes.
        forward_args: further positional arguments of the model.
        forward_kwargs: further keyword arguments.

    Returns:
        A `Graph` with the score, the kept nodes and the inputs.

    Raises:
        InputError: nodes overlap, are off the way from the inputs to the score, or more than 5,000; the inputs are
            several samples.
        RelpropError: as in `attribute`.

    References:
        Ameisen et al. 2025, "Circuit tracing: revealing computational graphs in language models"; Achtibat et al. 2023
        for graphs of relevance.
    """
    if batch_of(inputs) != 1:
        raise InputError(
            f"a graph is of one sample; got a batch of {batch_of(inputs)}. Take one at a time, inputs[:1]."
        )
    if isinstance(keep, bool) or not isinstance(keep, (int, float)) or keep <= 0:
        raise InputError(f"keep must be a number of nodes, or a share between 0 and 1; got {keep!r}.")
    chosen = [_units(model, one) for one in _listed(nodes)]
    settings = Settings(composite=composite, select=select, labels=labels)
    modules = modules_of(model, chosen)
    with opened(
        model, inputs, target, settings, modules, seed=seed, forward_args=forward_args, forward_kwargs=forward_kwargs
    ) as state:
        return _Tracer(state, chosen, keep, tokens, fold_first).graph()


def _listed(nodes: Any) -> Sequence[Any]:
    if isinstance(nodes, (str, Condition)) or not isinstance(nodes, (list, tuple)) or not nodes:
        raise InputError(f"nodes must be a list of units or paths, such as [relprop.units('blocks.3')]; got {nodes!r}.")
    return nodes


def _units(model: Any, given: Any) -> Units:
    one = (
        named(model, Units(given) if isinstance(given, str) else given) if isinstance(given, (str, Condition)) else None
    )
    if not isinstance(one, Units):
        raise InputError(f"a node is units of one layer, such as relprop.units('blocks.3')[4]; got {given!r}.")
    return one


class _Tracer:
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
        self.groups = [Group(u, p) for u, p in sorted(found, key=lambda one: -len(under[id(one[1])]))]
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

    def graph(self) -> Graph:
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
        nodes = [Node("score", "score", "score", (), self._length - 1 if self._ids else None, len(self.groups) + 1, float(start.handed.sum()), float(start.score.detach().sum()))]  # fmt: skip
        number: dict[tuple[int, int], int] = {}
        for g, group in enumerate(self.groups):
            values = group.sums(group.point.value.double())
            for i in kept[g]:
                number[g, i] = len(nodes)
                depth = len(self.groups) - g
                nodes.append(Node(group.name(i), "unit", group.units.path, group.index(i), self._position(group, i), depth, float(relevance[g][i]), float(values[i])))  # fmt: skip
        first = len(nodes)
        activations = self._input_values()
        for i, (name, position) in enumerate(names):
            nodes.append(Node(name, "input", "inputs", (i,), position, 0, float(inputs[i]), activations[i]))
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
        return Graph(nodes, [e for e in edges if e[2] != 0.0], said, tokens, state.run.sites.composite.name, str(Identity.of(state.model)), list(state.notices))  # fmt: skip

    def _kept(self, relevance: list[Tensor]) -> list[list[int]]:
        """The numbers of the nodes that are kept, for each group."""
        sizes = [(abs(float(r)), g, i) for g, some in enumerate(relevance) for i, r in enumerate(some.tolist())]
        sizes = [one for one in sizes if not (self._fold and self._position(self.groups[one[1]], one[2]) == 0)]
        sizes.sort(key=lambda one: (-one[0], one[1], one[2]))
        if isinstance(self._keep, int) or self._keep >= 1:
            sizes = sizes[: int(self._keep)]
        else:
            total, running = sum(size for size, _, _ in sizes), 0.0
            count = 0
            while count < len(sizes) and running < self._keep * total:
                running += sizes[count][0]
                count += 1
            sizes = sizes[:count]
        if len(sizes) > MOST:
            raise InputError(f"the graph would have {len(sizes)} nodes; {MOST} are the most. Keep fewer: keep=200.")
        kept: list[list[int]] = [[] for _ in self.groups]
        for size, g, i in sizes:
            if size > 0:
                kept[g].append(i)
        return [sorted(some) for some in kept]

    def _edges(
        self, kept: list[list[int]], arrived: Any
    ) -> Iterator[tuple[Any, dict[tuple[int, int], float], list[float]]]:
        """For the score (None) and each kept node: the weights of its edges to lower nodes, and to the inputs."""
        stops = {g: self.groups[g].stop(some) for g, some in enumerate(kept) if some}
        start = self._state.start
        yield None, *self._read(*self._pass([start.score], [start.gradient], list(stops), stops), kept, list(stops))
        for g, group in enumerate(self.groups):
            lower = [
                h
                for h in stops
                if h != g
                and group.point.nodes.isdisjoint(self.groups[h].point.nodes)
                and self.groups[h].point.nodes & self._under[g]
            ]
            others = {h: stops[h] for h in stops if h != g}
            for first in range(0, len(kept[g]), AT_ONCE):
                some = kept[g][first : first + AT_ONCE]
                marks = torch.stack([group.chosen([i]) for i in some])
                live = [
                    (GradientEdge(*edge), gs)
                    for (edge, _), gs in zip(group.point.edges, arrived[g], strict=True)
                    if gs is not None
                ]
                seeds = [gs * marks.to(gs) for _, gs in live]
                batched = len(some) > 1
                ends, found = self._pass(
                    [edge for edge, _ in live], seeds if batched else [s[0] for s in seeds], lower, others, batched
                )
                for n, i in enumerate(some):
                    one = [e[n] if batched and e is not None else e for e in ends]
                    parts = [[x[n] if batched and x is not None else x for x in xs] for xs in found]
                    yield (g, i), *self._read(one, parts, kept, lower)

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
        self, outputs: Any, seeds: Any, groups: Sequence[int], stops: dict[int, Filter], batched: bool = False
    ) -> tuple[list[Any], list[list[Any]]]:
        """`G` at the ends and at the points of some groups; relevance goes no further at the stops."""
        ends = self._state.reader.ends
        edges: list[Any] = [GradientEdge(*edge) for g in groups for edge, _ in self.groups[g].point.edges]
        self._state.run.begin_pass(1, False)
        wanted: list[Any] = [*ends, *edges]
        with _stopped([(self.groups[g].point, stop) for g, stop in stops.items()]):
            found = torch.autograd.grad(
                outputs, wanted, seeds, retain_graph=True, allow_unused=True, is_grads_batched=batched
            )
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

    def _position(self, group: Group, number: int) -> int | None:
        """The position of a node in the sequence; None if it has none."""
        axis = 1 if group.units.path.endswith(".heads") else 0
        if not self._ids and len(group.point.shape) != 3 + (axis == 1):
            return None
        if axis not in group.axes or group.point.shape[1 + axis] != self._length:
            index = group.units.index
            first = index[0] if isinstance(index, tuple) and index else index
            if axis == 0 and isinstance(first, int) and group.point.shape[1] == self._length:
                return first % self._length
            return None
        return group.index(number)[group.axes.index(axis)]


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
def _stopped(stops: Sequence[tuple[Point, Filter]]) -> Iterator[None]:
    """While this lasts, relevance goes no further at some units."""
    with Undo() as undo:
        for point, stop in stops:
            for edge, _ in point.edges:

                def close(gradients: Any, edge: Any = edge, stop: Filter = stop) -> Any:
                    return tuple(stop(g) if n == edge[1] and g is not None else g for n, g in enumerate(gradients))

                undo.later(edge[0].register_prehook(close).remove)
        yield
