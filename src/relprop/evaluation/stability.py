"""How much maps move when the input moves a little. Index letters: M methods, N samples, D draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.evaluation.metric import Metric, Running, SampleWork, positive
from relprop.evaluation.score_columns import Column

_LEAST = 1e-6
"""Denominators are at least this large."""


@dataclass(frozen=True)
class Stability(Metric):
    """Maximum and average sensitivity, and relative stability to inputs and outputs.

    Inputs are drawn from a ball of the maximum norm; every second one is a corner of it. Sensitivity is the Euclidean
    norm of the map's change, and its share in the norm of the map. Relative stability is the largest ratio of relative
    changes, of map to input or output, among those inputs that the model gives the same class.

    Args:
        radius: of the ball; None takes a hundredth of the range of each sample.
        draws: how many inputs for each sample.

    References:
        Yeh et al. 2019, "On the (in)fidelity and sensitivity of explanations", NeurIPS.
        Agarwal et al. 2022, "Rethinking stability for attribution-based explanations", ICLR workshop.
    """

    name: ClassVar[str] = "stability"

    radius: float | None = None
    draws: int = 8

    def check(self, work: SampleWork) -> None:
        """Refuses ids, which cannot move a little."""
        positive("draws", self.draws)
        if not work.subject.main.is_floating_point():
            raise InputError("stability moves inputs a little, which ids cannot: pass inputs_embeds in place of ids.")
        if self.radius is not None and not self.radius > 0:
            raise InputError(f"radius must be above 0; got {self.radius!r}.")

    def run(self, work: SampleWork) -> Running:
        """All of them from the same inputs."""
        yield []
        near = torch.cat([self._near(work, n) for n in range(work.samples)])  # (N D, ...)
        samples = [n for n in range(work.samples) for _ in range(self.draws)]
        moved, same = _outputs(work, near, samples)
        given = work.subject.main.repeat_interleave(self.draws, 0)
        by_input = _relative(given, near)
        columns = {score: work.empty() for score in _SCORES}
        for row, (method, own) in enumerate(zip(work.methods, work.maps, strict=True)):
            if method.kind == "map":
                continue
            maps = method.explain(work.subject, samples, work.seed, work.size, main=near)
            before = own.repeat_interleave(self.draws, 0)
            change = (maps - before).flatten(1).norm(dim=1).reshape(work.samples, -1).cpu()
            size = own.flatten(1).norm(dim=1).cpu()
            largest, average = change.amax(1), change.mean(1)
            columns["max_sensitivity"][row], columns["average_sensitivity"][row] = largest, average
            columns["relative_sensitivity"][row] = torch.where(size > 0, largest / size, float("nan"))
            by_map = _relative(before, maps)
            for score, other in (("input_stability", by_input), ("output_stability", moved)):
                ratio = (by_map / other.clamp(min=_LEAST)).masked_fill(~same, float("-inf"))
                worst = ratio.reshape(work.samples, -1).amax(1).cpu()
                columns[score][row] = torch.where(worst.isinf(), float("nan"), worst)
        return [Column(self.name, score, values, -1) for score, values in columns.items()]

    def _near(self, work: SampleWork, n: int) -> Tensor:
        x = work.subject.main[n]
        chance = work.generator(self.name, n)
        radius = self.radius if self.radius is not None else 0.01 * float(x.max() - x.min())
        noise = 2 * torch.rand((self.draws, *x.shape), generator=chance, dtype=torch.float64) - 1
        noise[::2] = torch.where(noise[::2] < 0, -1.0, 1.0)
        return x + (radius * noise).to(x)


_SCORES = ("max_sensitivity", "average_sensitivity", "relative_sensitivity", "input_stability", "output_stability")


def _relative(before: Tensor, after: Tensor) -> Tensor:
    """The norm of the relative change of each entry, (N D,)."""
    base = torch.where(before.abs() < _LEAST, torch.where(before < 0, -_LEAST, _LEAST), before).double()
    return ((before.double() - after.double()) / base).flatten(1).norm(dim=1)


def _outputs(work: SampleWork, near: Tensor, samples: list[int]) -> tuple[Tensor, Tensor]:
    """The norm of the output's change, and whether the class is the same, (N D,)."""
    device, subject = near.device, work.subject

    def both(start: int, stop: int) -> tuple[Tensor, Tensor]:
        rows = torch.tensor(samples[start:stop], device=device)
        after = subject.output(subject.rows(rows, near[start:stop])).flatten(1).double()
        before = subject.output(subject.rows(rows)).flatten(1).double()
        return (after - before).norm(dim=1), after.argmax(1) == before.argmax(1)

    found = list(work.size.batches(len(samples), both))
    return torch.cat([change for change, _ in found]), torch.cat([same for _, same in found])
