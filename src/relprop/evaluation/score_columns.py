"""The numbers of a metric: one per method and sample. Index letters: M methods, N samples, K points of a curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Column:
    """One number per method and sample.

    Attributes:
        metric: the name of the metric.
        score: the name of the number.
        values: the numbers, (M, N), float64; NaN where there is none.
        better: 1 if more is better, -1 if less is, 0 if it ranks nothing.
        replacement: what took the place of removed units, in words; "" if nothing did.
        curve: the curve that it is the area of, (M, N, K); or None.
        at: the share of units that is removed at each point of the curve, (K,).
    """

    metric: str
    score: str
    values: Tensor
    better: int
    replacement: str = ""
    curve: Tensor | None = None
    at: Tensor | None = None

    @property
    def name(self) -> str:
        """Its name in tables."""
        return f"{self.score} [{self.replacement}]" if self.replacement else self.score


def joined(parts: Sequence[Sequence[Column]]) -> list[Column]:
    """The columns of all samples, from those of some of them."""
    found = []
    for row in zip(*parts, strict=True):
        first = row[0]
        curves = [each.curve for each in row if each.curve is not None]
        points = {curve.shape[-1] for curve in curves}
        fits = len(curves) == len(row) and len(points) == 1
        found.append(
            Column(
                first.metric,
                first.score,
                torch.cat([each.values for each in row], 1),
                first.better,
                first.replacement,
                torch.cat(curves, 1) if fits else None,
                first.at if fits else None,
            )
        )
    return found


@dataclass(frozen=True)
class Cost:
    """What a method cost per sample.

    Attributes:
        forwards: samples that went through the model forward.
        backwards: samples that went backward.
    """

    forwards: float
    backwards: float

    @property
    def passes(self) -> float:
        """Both together."""
        return self.forwards + self.backwards


class Measured(Protocol):
    """What drawings and tables need of an evaluation."""

    methods: list[str]
    free: list[str]
    columns: list[Column]
    cost: dict[str, Cost]
    units: str
    of: str
    relevance: Tensor | None
    layout: Tensor | None

    @property
    def asked(self) -> list[str]:
        """The methods that were asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, score: str) -> Tensor: ...

    def find(self, score: str) -> list[Column]:
        """All columns of a score."""

    def main(self) -> str:
        """The score that ranks methods first."""

    def best(self, score: str | None = None) -> list[str]:
        """The methods that are best within error."""

    def disagreements(self, count: int = 3) -> list[int]:
        """The samples on which the methods' maps agree least."""

    def warnings(self) -> list[str]:
        """What speaks against trusting the numbers."""
