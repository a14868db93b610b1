"""The backward passes of chains from one score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from relprop.attribution.books import per_sample
from relprop.attribution.chains import GateChain, Planner, PointGate, off_the_way
from relprop.attribution.points import Point
from relprop.engine import Run
from relprop.engine.checkpoint import recomputing
from relprop.engine.undo import Undo
from relprop.errors import InputError


@dataclass
class Outcome:
    """What the chains of one condition give.

    Attributes:
        ends: `G` where relevance ends, in order.
        handed: the relevance that passed the units, per sample.
        layers: the relevance of hidden layers, by path.
        kept: what each operation absorbed, (operations, N); empty without a recorder.
        ended: what ended in the inputs by the recorder, (N,).
    """

    ends: list[Tensor | None]
    handed: Tensor
    layers: dict[str, list[Tensor]] = field(default_factory=dict)
    kept: Tensor | None = None
    ended: Tensor | None = None

    def arrive(self, gradients: Sequence[Tensor | None]) -> None:
        """Adds `G` where relevance ends."""
        for n, g in enumerate(gradients):
            if g is not None:
                known = self.ends[n]
                self.ends[n] = g if known is None else known + g

    def hand(self, started: list[tuple[Any, Tensor]], dropped: list[tuple[Any, Tensor]]) -> None:
        """Adds the relevance that passed the last units, less what was stopped on the way."""
        none = torch.zeros_like(self.handed)
        self.handed += sum((amount for _, amount in started), none)
        self.handed -= sum((amount for _, amount in dropped), none)

    def enter(self, kept: Tensor, ended: Tensor) -> None:
        """Adds what the recorder read."""
        self.kept = kept if self.kept is None else self.kept + kept
        self.ended = ended if self.ended is None else self.ended + ended

    def add(self, path: str, number: int, relevance: Tensor) -> None:
        """Adds the relevance of a layer's output."""
        self.layers[path][number] = self.layers[path][number] + relevance


class Passes:
    """The backward passes of chains from one score. Chains that begin alike share what they have in common.

    Args:
        run: the run.
        start: the scores, their seeds, and the relevance handed to them.
        ends: the tensors in which relevance ends.
        layers: the points of the layers whose relevance is wanted, by path.
        planner: knows what lies below what.
        chains: all chains that will be asked for.
    """

    def __init__(
        self,
        run: Run,
        start: Any,
        ends: list[Tensor],
        layers: dict[str, list[Point]],
        planner: Planner,
        chains: list[GateChain],
    ) -> None:
        self._run, self._start, self._ends, self._layers, self._planner = run, start, ends, layers, planner
        self._next: dict[Any, list[PointGate]] = {}
        self._memo: dict[Any, dict[Any, Tensor | None]] = {}
        for chain in chains:
            for n, gate in enumerate(chain.gates):
                waiting = self._next.setdefault(self._key(chain, n), [])
                if not any(gate.point is other.point for other in waiting):
                    waiting.append(gate)

    def _key(self, chain: GateChain, length: int) -> Any:
        rows = None if chain.rows is None else id(chain)
        return (
            rows,
            tuple(id(g.filter) for g in chain.keeps),
            tuple((id(g.point), id(g.filter)) for g in chain.gates[:length]),
        )

    def outcome(self, chains: Sequence[GateChain], seeds: Tensor, handed: Tensor, samples: int) -> Outcome:
        """The sum over the chains of one condition."""
        layers = {path: [_nothing(point) for point in points] for path, points in self._layers.items()}
        found = Outcome([None] * len(self._ends), torch.zeros(samples, dtype=torch.float64), layers)
        self._run.begin_pass(samples, False)
        for chain in chains:
            self._add(found, chain, seeds, handed, samples)
        return found

    def forget(self) -> None:
        """Drops what chains shared, before another seed."""
        self._memo.clear()

    def _add(self, found: Outcome, chain: GateChain, seeds: Tensor, handed: Tensor, samples: int) -> None:
        if chain.rows is not None:
            rows = chain.rows.to(seeds.device)
            seeds, handed = seeds * rows, handed * rows
        outputs: list[Any] = [self._start.score]
        given: list[Tensor | None] = [seeds]
        started: list[tuple[Any, Tensor]] = [(self._start.edge, handed.detach().double().cpu())]
        stages: list[dict[Any, Tensor | None]] = []
        for n, gate in enumerate(chain.gates):
            stage = self._stage(chain, n, outputs, given)
            stages.append(stage)
            arrived = [stage.get(edge) for edge, _ in gate.point.edges]
            if all(g is None for g in arrived):
                raise InputError(
                    off_the_way(gate.said)
                    if n == 0
                    else f"no path passes both '{chain.gates[n - 1].said}' and '{gate.said}'."
                )
            given, outputs = gate.passed(arrived), [GradientEdge(*edge) for edge, _ in gate.point.edges]
            started = [
                (edge, per_sample([r], samples).cpu())
                for n, (edge, _) in enumerate(gate.point.edges)
                if (r := gate.point.relevance([g if m == n else None for m, g in enumerate(given)])) is not None
            ]
        dropped: list[tuple[Any, Tensor]] = []
        if self._run.trace.recorder is not None:
            self._run.trace.recorder.forget()
        last = self._pass(outputs, given, chain.keeps, [*self._end_edges(), *self._layer_edges()], dropped, samples)
        found.arrive(last[: len(self._ends)])
        stages.append(dict(zip(self._layer_edges(), last[len(self._ends) :], strict=True)))
        found.hand(started, dropped)
        if self._run.trace.recorder is not None:
            found.enter(*self._run.trace.recorder.balance_of(started, dropped))
        self._read(found, chain, stages)

    def _stage(
        self, chain: GateChain, n: int, outputs: list[Any], given: list[Tensor | None]
    ) -> dict[Any, Tensor | None]:
        """`G` at the next gates, and at the layers above them."""
        key = self._key(chain, n)
        if key not in self._memo:
            edges = [edge for gate in self._next[key] for edge, _ in gate.point.edges]
            if self._layers:
                lower = set().union(*(self._planner.under(gate.point) for gate in self._next[key]))
                edges += [edge for edge in self._layer_edges() if edge[0] not in lower and edge not in edges]
            found = self._pass(outputs, given, chain.keeps, edges, [], 1)
            self._memo[key] = dict(zip(edges, found, strict=True))
        return self._memo[key]

    def _end_edges(self) -> list[Any]:
        return list(self._ends)

    def _layer_edges(self) -> list[Any]:
        return list(dict.fromkeys(edge for points in self._layers.values() for p in points for edge, _ in p.edges))

    def _pass(
        self,
        outputs: list[Any],
        given: list[Tensor | None],
        keeps: Sequence[PointGate],
        wanted: list[Any],
        dropped: list[Any],
        samples: int,
    ) -> list[Tensor | None]:
        some = [(o, g) for o, g in zip(outputs, given, strict=True) if g is not None]
        wanted = [w if isinstance(w, Tensor) else GradientEdge(*w) for w in wanted]
        if not wanted:
            return []
        with recomputing(self._run), closed(self._run, keeps, dropped, samples):
            return list(
                torch.autograd.grad(
                    [o for o, _ in some], wanted, [g for _, g in some], retain_graph=True, allow_unused=True
                )
            )

    def _read(self, found: Outcome, chain: GateChain, stages: list[dict[Any, Tensor | None]]) -> None:
        """Adds the relevance of the layers: above a gate what arrives there, at a gate and below what passes it."""
        for path, points in self._layers.items():
            for number, point in enumerate(points):
                gradients = self._at(chain, stages, point)
                relevance = None if gradients is None else point.relevance(gradients)
                if relevance is not None:
                    found.add(path, number, relevance)

    def _at(self, chain: GateChain, stages: list[dict[Any, Tensor | None]], point: Point) -> list[Tensor | None] | None:
        level, edges = 0, [edge for edge, _ in point.edges]
        for n, gate in enumerate(chain.gates):
            if point.nodes & gate.point.nodes:
                return gate.passed([stages[n].get(edge) for edge in edges])
            if point.nodes & self._planner.under(gate.point):
                level = n + 1
            elif not gate.point.nodes & self._planner.under(point):
                return None  # beside a gate
        found = [stages[level].get(edge) for edge in edges]
        for keep in chain.keeps:
            if point.nodes & keep.point.nodes:
                found = keep.passed(found)
        return found


def _nothing(point: Point) -> Tensor:
    """No relevance, in a point's shape."""
    if not point.edges:
        return torch.zeros(point.shape)
    value = point.edges[0][1]
    return torch.zeros(point.shape, dtype=value.dtype, device=value.device)


@contextmanager
def closed(run: Run, keeps: Sequence[PointGate], dropped: list[Any], samples: int) -> Iterator[None]:
    """While this lasts, relevance is stopped at some units; what is stopped is noted."""
    with Undo() as undo:
        for gate in keeps:
            for number, (edge, _) in enumerate(gate.point.edges):
                hook = edge[0].register_prehook(
                    lambda gs, gate=gate, number=number: _stop(run, gate, number, gs, dropped, samples)
                )
                undo.later(hook.remove)
        yield


def _stop(run: Run, gate: PointGate, number: int, gradients: Any, dropped: list[Any], samples: int) -> Any:
    edge = gate.point.edges[number][0]
    g = gradients[edge[1]]
    if g is None:
        return gradients
    passed = gate.filter(g)
    lost = gate.point.relevance([g - passed if n == number else None for n in range(len(gate.point.edges))])
    if lost is not None:
        dropped.append((edge, per_sample([lost.detach()], samples).cpu()))
    return tuple(passed if n == edge[1] else one for n, one in enumerate(gradients))
