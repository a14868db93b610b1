"""Linear functions of an exponential, as graphs of steps that can be run again on another exponential.

A tensor may be used several times, as a buffer that is written part by part. So each step is run once, however many paths
lead to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.engine.traits import REDUCES
from relprop.numerics import aside

_DEEPEST = 2000
"""How many steps in a row are followed."""
Step = Callable[[list[Tensor]], Tensor]


class Exponential:
    """A linear function of `exp(scores)`.

    Attributes:
        scores: the exponent.
        parts: what it is made of by one step; empty for the exponential itself.
        summed: whether a step summed entries.
    """

    __slots__ = ("_step", "depth", "parts", "scores", "summed")

    def __init__(
        self, scores: Tensor, parts: tuple[Exponential, ...] = (), step: Step | None = None, summed: bool = False
    ) -> None:
        self.scores, self.parts, self._step = scores, parts, step
        self.summed: bool = summed or any(part.summed for part in parts)
        self.depth: int = 1 + max((part.depth for part in parts), default=0)

    def then(self, step: Callable[[Tensor], Tensor], summed: bool = False) -> Exponential | None:
        """What one more step makes of it. The step must not write into its operand."""
        return joined((self,), lambda parts: step(parts[0]), summed)

    def again(self, e: Tensor) -> Tensor:
        """The same steps from another exponential."""
        known: dict[int, Tensor] = {}
        todo: list[Exponential] = [self]
        while todo:
            one = todo[-1]
            missing = [part for part in one.parts if id(part) not in known]
            if missing:
                todo += missing
                continue
            todo.pop()
            if id(one) not in known:
                known[id(one)] = e if one._step is None else one._step([known[id(part)] for part in one.parts])
        return known[id(self)]


def joined(parts: tuple[Exponential, ...], step: Step, summed: bool = False) -> Exponential | None:
    """What a step makes of several functions of one exponential; None if there are several, or too many steps."""
    if any(part.scores is not parts[0].scores or part.depth > _DEEPEST for part in parts):
        return None
    return Exponential(parts[0].scores, parts, step, summed)


def after(known: Exponential, step: Callable[[Tensor], Tensor], traits: frozenset[str]) -> Exponential | None:
    """What an operation makes of it."""
    return known.then(step, REDUCES in traits)


def added(
    known: list[Exponential], total: Callable[[list[Tensor]], Tensor], summands: list[Tensor]
) -> Exponential | None:
    """A sum of parts of one exponential. A difference of them is below no softmax."""
    with aside(), torch.no_grad():
        for n in range(len(summands)):
            alone = total([part.detach() if m == n else torch.zeros_like(part) for m, part in enumerate(summands)])
            if bool((alone < 0).any()):
                return None
    return joined(tuple(known), total, True)


def joined_parts(known: list[Any], join: Callable[[Any], Tensor]) -> Exponential | None:
    """Parts that are joined, some of which may be constants."""
    places = [n for n, part in enumerate(known) if isinstance(part, Exponential)]

    def step(parts: list[Tensor]) -> Tensor:
        given = dict(zip(places, parts, strict=True))
        return join([given.get(n, part) for n, part in enumerate(known)])

    return joined(tuple(known[n] for n in places), step)
