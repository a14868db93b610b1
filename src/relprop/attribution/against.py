"""Relevance patching: the difference between two inputs' activations, times `G` of the first (Jafari et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from relprop.attribution.books import Gradients
from relprop.attribution.forward import Answer, ForwardJob, detached, forward, start_inputs
from relprop.attribution.points import Point
from relprop.attribution.reading import Reader
from relprop.attribution.targets import EntryTarget, scores
from relprop.engine.checkpoint import recomputing
from relprop.engine.undo import Undo
from relprop.errors import InputError
from relprop.results.logit import without_logits
from relprop.trees import leaves


@dataclass(frozen=True)
class Other:
    """What the model computes for the other inputs.

    Attributes:
        carriers: the inputs that carry relevance, and the rows that ids looked up.
        points: the values at each edge of each tensor that passed the wanted layers, in order.
        output: the part of its output that is explained.
    """

    carriers: list[Tensor]
    points: list[list[Tensor]]
    output: Any


def check_against(inputs: Any, against: Any) -> None:
    """Refuses other inputs that are not of the structure, shape and dtype of the first.

    Raises:
        InputError: they differ.
    """
    one, other = leaves(inputs), leaves(against)
    paths = [path for path, _ in one], [path for path, _ in other]
    if paths[0] != paths[1]:
        raise InputError(
            f"against must have the structure of the inputs: {', '.join(paths[0])}; got {', '.join(paths[1])}."
        )
    for (path, a), (_, b) in zip(one, other, strict=True):
        if isinstance(a, Tensor) != isinstance(b, Tensor):
            raise InputError(f"against must be what the inputs are; {path} is a {type(b).__name__}.")
        if isinstance(a, Tensor) and (a.shape != b.shape or a.dtype != b.dtype or a.device != b.device):
            raise InputError(
                f"against must have the shape, dtype and device of the inputs: {path} has {tuple(a.shape)} and {a.dtype} on "
                f"{a.device}; got {tuple(b.shape)} and {b.dtype} on {b.device}. For texts, take pairs of equally many tokens."
            )


def other_of(job: ForwardJob, against: Any, final: Any) -> Other:
    """Runs the model on the other inputs, and keeps what is compared."""
    with Undo() as undo:
        undo.later(job.run.close)
        assert job.watch is not None
        undo.later(job.watch.close)
        found: Answer = forward(job, start_inputs(job.run, against), [lambda output: torch.zeros(())], final)
        carriers = [*(leaf for _, leaf in job.run.inputs.starts), *(lookup.rows for lookup in job.run.inputs.lookups)]
        points = [[value for _, value in point.edges] for point in _points(job)]
        return Other([t.detach() for t in carriers], points, detached(found.output))


def _points(job: ForwardJob) -> list[Point]:
    assert job.watch is not None
    return [point for runs in job.watch.seen.values() for run in runs for point in run]


class Differences(Reader):
    """Reads the difference of two inputs' activations times `G` of the first, in place of value times `G`."""

    def __init__(self, job: ForwardJob, answer: Answer, other: Other) -> None:
        super().__init__(job, answer)
        self._job, self._other = job, other
        self._points = _points(job)
        here = [tuple(t.shape) for t in self.carriers], [len(point.edges) for point in self._points]
        there = [tuple(t.shape) for t in other.carriers], [len(values) for values in other.points]
        if here != there:
            raise InputError(
                "the model takes other steps for the inputs and for those of against=, so their activations cannot be compared."
            )
        self._shift = {id(x): y - x.detach() for x, y in zip(self.carriers, other.carriers, strict=True)}
        self.multiplies = True

    @property
    def wanted(self) -> list[Any]:
        return [*self.ends, *(GradientEdge(*edge) for point in self._points for edge, _ in point.edges)]

    def layers(self, gradients: Gradients) -> dict[str, Any]:
        rest = iter(gradients[len(self.ends) :])
        found: dict[int, Tensor] = {}
        for point, values in zip(self._points, self._other.points, strict=True):
            total = torch.zeros(point.raw)
            for n, ((_, value), other) in enumerate(zip(point.edges, values, strict=True)):
                g = next(rest)
                total = total.to(value) if n == 0 else total
                total = total if g is None else total + (other - value) * g
            found[id(point)] = point.arranged(total)
        assert self._job.watch is not None
        named = {
            path: [found[id(p)] for some in runs for p in some] for (path, _), runs in self._job.watch.seen.items()
        }
        return {path: some[0] if len(some) == 1 else some for path, some in named.items()}

    def _read(self, x: Tensor, g: Tensor | None) -> Tensor:
        shift = self._shift.get(id(x))
        return torch.zeros_like(x) if g is None or shift is None else shift * g


def effect(other: Other, start: Any, labels: Sequence[str] | None) -> Tensor:
    """The score of the other inputs minus that of the first."""
    return (score_of(other.output, start.target, labels) - start.score).detach()


def score_of(output: Any, target: Any, labels: Sequence[str] | None) -> Tensor:
    """The score of a target, as it was understood, in another output of the model."""
    if isinstance(target, EntryTarget):
        return target(output)
    score, _ = scores(output, without_logits(target), labels)
    return score.reshape(-1)


def gradients_of(job: ForwardJob, start: Any, wanted: list[Any]) -> Gradients:
    """`G` of the wanted tensors from one score."""
    job.run.begin_pass(len(start.handed), False)
    with recomputing(job.run):
        return torch.autograd.grad(start.score, wanted, start.gradient, retain_graph=True, allow_unused=True)
