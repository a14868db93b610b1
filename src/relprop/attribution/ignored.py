"""Inputs that get no relevance at all although the score depends on them.

What the rules hold constant gets no relevance: a divisor, an exponent, a gate. An input that acts only there has relevance 0
everywhere, as one that does not matter. To tell the two apart, the model runs once more with that input changed a little.
Where no input got anything, the residual says so: it is the whole score.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.against import score_of
from relprop.attribution.forward import ForwardJob, detached, devices_of
from relprop.attribution.seeds import Start
from relprop.attribution.targets import select_output
from relprop.engine.chance import undisturbed
from relprop.trees import leaves, map_tree

_CHANGE = 0.01
"""By how much of its size an input is changed."""
_DIGITS = 100
"""How many times the rounding a score must change by."""


class Ignored:
    """The inputs of one call, and what the model returns where one of them is changed. It runs only when it is asked."""

    def __init__(self, job: ForwardJob) -> None:
        self._job = job
        self._paths = [path for path, _ in leaves(job.inputs)]
        self._outputs: dict[int | None, Any] = {}

    def notices(
        self, start: Start, numbers: Sequence[int], gradients: Sequence[Tensor | None], sizes: Sequence[float],
        said: Sequence[str],
    ) -> list[str]:  # fmt: skip
        """The notices on inputs whose relevance is 0 everywhere, and on which the score depends all the same.

        Args:
            start: the score.
            numbers: the numbers, in the flattened inputs, of those that carry relevance.
            gradients: `G` of these inputs; None where none arrived.
            sizes: the largest size of relevance of each input, flattened.
            said: the notices so far. An input that one of them names is not named again.
        """
        found = []
        for number, g in zip(numbers, gradients, strict=False):
            path = self._paths[number]
            if sizes[number] or any(path in notice for notice in said):
                continue
            if g is not None and (not any(sizes) or bool(g.any())):
                continue  # nothing arrived anywhere, or the input is 0
            if self._changes(start, number):
                found.append(
                    f"{path} has relevance 0 everywhere, although the score depends on it. What acts only through what the "
                    "rules hold constant, such as a divisor, an exponent or a gate, gets none: composite='gradient' tells how "
                    "the score changes with it."
                )
        return found

    def _changes(self, start: Start, number: int) -> bool:
        """Whether the score changes with an input. If that cannot be told, nothing is said."""
        job, labels = self._job, self._job.plan.labels
        with undisturbed(devices_of(job.inputs), job.run.chance.generators.values()), torch.no_grad():
            try:
                before, after = (
                    score_of(self._output(n), start.target, labels).detach().double() for n in (None, number)
                )
            except Exception:  # such as that of a full cache
                return False
        if before.shape != after.shape:
            return False
        rounding = _DIGITS * torch.finfo(start.score.dtype).eps * torch.maximum(before.abs(), after.abs())
        return bool(((after - before).abs() > rounding).any())  # what is not finite is not larger

    def _output(self, changed: int | None) -> Any:
        if changed not in self._outputs:
            job, count = self._job, itertools.count()
            inputs = map_tree(lambda t: _changed(t) if next(count) == changed else t.clone(), detached(job.inputs))
            args, kwargs = job.plan.arguments(inputs)
            self._outputs[changed] = select_output(job.model(*args, **kwargs), job.plan.settings.select)
        return self._outputs[changed]


def _changed(t: Tensor) -> Tensor:
    """A tensor with its entries changed a little, each in another way."""
    made = torch.Generator().manual_seed(t.numel())
    noise = torch.randn(t.shape, generator=made, dtype=torch.float64).to(t.device, t.dtype)
    return t + _CHANGE * noise * t.abs().amax()
