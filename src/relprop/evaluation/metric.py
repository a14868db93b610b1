"""What a metric sees of some samples: maps, orders of units, replacements, generators, and methods to ask again.

Index letters: M methods, N samples, U units.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.evaluation.asks import Ask
from relprop.evaluation.generators import generator
from relprop.evaluation.memory import BatchSize
from relprop.evaluation.methods import Method
from relprop.evaluation.replacements import Replacement
from relprop.evaluation.score_columns import Column
from relprop.evaluation.subject import Subject
from relprop.evaluation.units import UnitMap


@dataclass(eq=False)
class SampleWork:
    """Some samples with their maps.

    Attributes:
        subject: the model and the samples.
        units: what is removed as one.
        methods: the methods.
        maps: the relevance of the main input, by method; each (N, ...), float64.
        relevance: the relevance of units, (M, N, U), float64.
        replacements: what takes the place of removed units.
        truth: what the target lies in, boolean, in the shape of the main input; or None.
        seed: the seed of all generators.
        size: samples to explain at once.
        cautions: what the reader should know of the results.
    """

    subject: Subject
    units: UnitMap
    methods: Sequence[Method]
    maps: list[Tensor]
    relevance: Tensor
    replacements: Sequence[Replacement]
    truth: Tensor | None
    seed: int
    size: BatchSize
    cautions: list[str] = field(default_factory=list)
    _ranks: Tensor | None = None

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.subject)

    @property
    def counts(self) -> Tensor:
        """The number of units of each sample, (N,)."""
        return self.units.counts.expand(self.samples)

    def generator(self, purpose: str, sample: int) -> torch.Generator:
        """A generator of a metric's own for a sample, which is the same whatever samples are beside it."""
        return generator(self.seed, purpose, self.subject.fingerprint(sample))

    def ranks(self) -> Tensor:
        """The place of each unit in the order of most relevant first, (M, N, U); 0 is removed first.

        Units of equal relevance come in a random order, the same for all methods. Units that a sample lacks come last.
        """
        if self._ranks is None:
            count = self.units.count
            values = self.relevance.masked_fill(~self.units.present(self.samples), float("-inf"))
            shuffled = torch.arange(count).repeat(self.samples, 1)
            for n in _tied(values):
                shuffled[n] = torch.randperm(count, generator=self.generator("ties", n))
            shuffled = shuffled.to(self.relevance.device)
            mixed = values.gather(2, shuffled.expand_as(values))
            order = shuffled.expand_as(values).gather(2, mixed.argsort(dim=2, descending=True, stable=True))
            places = torch.arange(count, device=order.device).expand_as(order)
            self._ranks = torch.empty_like(order).scatter_(2, order, places)
        return self._ranks

    def reversed_ranks(self) -> Tensor:
        """The place of each unit in the order of least relevant first: exactly the other order read backwards."""
        backwards = self.counts.to(self.relevance.device)[:, None] - 1 - self.ranks()
        return torch.where(backwards < 0, self.ranks(), backwards)

    def of_all(self) -> Tensor:
        """The numbers of the samples, on the device."""
        return torch.arange(self.samples, device=self.relevance.device)

    def empty(self) -> Tensor:
        """NaN for each method and sample."""
        return torch.full((len(self.methods), self.samples), float("nan"), dtype=torch.float64)


def _tied(values: Tensor) -> list[int]:
    """The samples in which a method gives two units the same relevance, (M, N, U)."""
    ordered = values.sort(2).values
    same = (ordered[..., 1:] == ordered[..., :-1]) & ordered[..., 1:].isfinite()
    return same.any(2).any(0).nonzero()[:, 0].tolist()


Running = Generator[Sequence[Ask], list[Tensor], list[Column]]
"""A metric at work: it yields what it asks for, is sent the scores, and returns its columns."""


@dataclass(frozen=True)
class Metric:
    """The base of metrics. A subclass has a `name`, and `run`."""

    name: ClassVar[str] = ""
    replaces: ClassVar[bool] = False

    def run(self, work: SampleWork) -> Running:
        """Yields what it asks for, as lists of `Ask`; is sent the scores of each; returns its columns."""
        raise NotImplementedError

    def check(self, work: SampleWork) -> None:
        """Refuses samples on which it has no meaning."""

    def fingerprint(self) -> str:
        """What it is, in words."""
        return repr(self)


def positive(name: str, value: Any, least: int = 1) -> None:
    """Refuses a number of things that is none.

    Raises:
        InputError: it is not an int, or too small.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be an int of at least {least}; got {value!r}.")
