"""How long an attribution takes, as a multiple of one forward and one input gradient.

The contestants take turns, and each is timed right after a gradient of its own: a machine that is slow for a
while is slow for both. The ratio reported is the median over the rounds; the gradient's own row tells how far
to trust it.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.contestants import YARDSTICK, Contestant, score


@dataclass
class Timing:
    """Seconds per round of one contestant, and of the gradient just before it."""

    seconds: list[float] = field(default_factory=list)
    yardstick: list[float] = field(default_factory=list)
    magnitude: float | None = None
    error: str | None = None

    @property
    def ratios(self) -> list[float]:
        return [own / gradient for own, gradient in zip(self.seconds, self.yardstick, strict=True)]

    def summary(self) -> dict[str, object]:
        """What the table and the JSON file show of it."""
        if self.error is not None:
            return {"error": self.error}
        ratios = self.ratios
        return {
            "seconds": median(self.seconds),
            "time": median(ratios),
            "time_range": [min(ratios), max(ratios)],
            "magnitude": self.magnitude,
        }


def measure(
    contestants: dict[str, Contestant], model: nn.Module, x: Tensor, target: Tensor, rounds: int, clock: str = "wall"
) -> dict[str, Timing]:
    """One warm-up round, then `rounds` measured ones. A contestant that fails once is out."""
    timings = {name: Timing() for name in contestants}
    yardstick = contestants[YARDSTICK]
    with torch.no_grad():
        scores = score(model(x), target)
    for name, contestant in contestants.items():
        try:
            attribution = contestant.run(contestant.prepare(model), x, target)
        except Exception as error:  # other people's code: whatever it raises is the result
            timings[name].error = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            timings[name].magnitude = magnitude(attribution, scores)
    for _ in range(rounds):
        for name, contestant in contestants.items():
            if timings[name].error is None:
                timings[name].yardstick.append(seconds(yardstick, model, x, target, clock))
                timings[name].seconds.append(seconds(contestant, model, x, target, clock))
    return timings


CLOCKS = {"wall": time.perf_counter, "process": time.process_time}
"""What counts as time. On a machine that others use, the wall clock measures them too; the process's own time, on a
CPU with one thread, does not."""


def seconds(contestant: Contestant, model: nn.Module, x: Tensor, target: Tensor, clock_name: str) -> float:
    model = contestant.prepare(model)
    gc.collect()  # garbage of the one before must not be collected in the time of this one
    clock = CLOCKS[clock_name]
    synchronise(x)
    start = clock()
    contestant.run(model, x, target)
    synchronise(x)
    return clock() - start


def synchronise(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def magnitude(attribution: Tensor, scores: Tensor) -> float:
    """Sum of |R| over |score|: a fast answer of 1e30 or NaN is none. Below 1, biases had their share."""
    return (attribution.flatten(1).abs().sum(1) / scores.abs()).mean().item()
