"""Statistics of paired comparisons. Samples are the unit of repetition: all methods saw the same ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from relprop.evaluation.generators import generator
from relprop.optional import library

_RESAMPLES = 2000


@dataclass(frozen=True)
class Difference:
    """How one method differs from a reference on the same samples; above 0 it is better.

    Attributes:
        method: the method.
        reference: what it is compared with.
        score: the number that is compared.
        mean: the mean difference.
        error: its standard error; NaN with one sample.
        low: the lower end of the 95 % interval by bootstrap.
        high: its upper end.
        p: of Wilcoxon's signed-rank test, corrected by Holm over methods.
        samples: the number of samples on which both have a number.
    """

    method: str
    reference: str
    score: str
    mean: float
    error: float
    low: float
    high: float
    p: float
    samples: int

    @property
    def beyond(self) -> float:
        """How many standard errors lie between the two; 0 where they are equal."""
        if self.mean == 0:
            return 0.0
        return self.mean / self.error if self.error > 0 else math.copysign(math.inf, self.mean)


def differences(
    values: Tensor, names: Sequence[str], reference: str, score: str, better: int, seed: int = 0
) -> list[Difference]:
    """The paired differences of all methods to one. `values` is (M, N); NaN counts for nothing.

    Needs SciPy for the test.
    """
    base = values[names.index(reference)]
    sign = -1.0 if better < 0 else 1.0
    found = []
    for name, row in zip(names, values, strict=True):
        if name == reference:
            continue
        gaps = sign * (row - base)
        gaps = gaps[~gaps.isnan()]
        low, high = interval(gaps, seed)
        found.append((name, gaps, low, high, wilcoxon(gaps)))
    corrected = holm([p for *_, p in found])
    return [
        Difference(
            name, reference, score, mean(gaps), standard_error(gaps), low, high, p, len(gaps)
        )
        for (name, gaps, low, high, _), p in zip(found, corrected, strict=True)
    ]  # fmt: skip


def mean(values: Tensor) -> float:
    """The mean; NaN of nothing."""
    return float(values.mean()) if len(values) else math.nan


def standard_error(values: Tensor) -> float:
    """The standard error of the mean; NaN with fewer than two values."""
    return float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan


def interval(values: Tensor, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean, by bootstrap over samples (percentiles)."""
    if len(values) < 2:
        return math.nan, math.nan
    picked = torch.randint(len(values), (_RESAMPLES, len(values)), generator=generator(seed, "bootstrap"))
    means = values[picked].mean(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=means.dtype)).tolist()
    return low, high


def wilcoxon(values: Tensor) -> float:
    """The p-value of Wilcoxon's signed-rank test; 1 where all differences are 0, NaN without differences."""
    if not len(values):
        return math.nan
    if not bool(values.any()):
        return 1.0
    stats = library("scipy.stats", "comparisons need SciPy", "evaluation")
    method = "exact" if len(values) <= 50 and not bool((values == 0).any()) else "asymptotic"
    return float(stats.wilcoxon(values.numpy(), zero_method="pratt", method=method).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979). NaN stays NaN."""
    known = sorted((p, n) for n, p in enumerate(values) if p == p)
    found, largest = list(values), 0.0
    for place, (p, n) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - place)))
        found[n] = largest
    return found


def best_of(values: Tensor, names: Sequence[str], better: int) -> list[str]:
    """The methods that are best within error: not two standard errors of the paired difference behind the leader."""
    if not better:
        return []
    sign = -1.0 if better < 0 else 1.0
    means = torch.tensor([mean(row[~row.isnan()]) * sign for row in values])
    if bool(means.isnan().all()):
        return []
    leader = int(means.nan_to_num(-math.inf).argmax())
    found = []
    for name, row in zip(names, values, strict=True):
        gaps = sign * (values[leader] - row)
        gaps = gaps[~gaps.isnan()]
        if not len(gaps):
            continue
        gap, error = mean(gaps), standard_error(gaps)
        if gap <= 0 or (error == error and gap <= 2 * error):
            found.append(name)
    return found


def ranks(values: Tensor) -> Tensor:
    """Ranks from 1 along the last axis; equal values share the mean of their ranks."""
    ordered, order = values.sort(-1)
    places = torch.arange(1, values.shape[-1] + 1, dtype=torch.float64, device=values.device).expand(values.shape)
    found = torch.empty(values.shape, dtype=torch.float64, device=values.device)
    flat, rows = ordered.reshape(-1, values.shape[-1]), []
    for row, place in zip(flat, places.reshape(flat.shape), strict=True):
        _, inverse, counts = row.unique_consecutive(return_inverse=True, return_counts=True)
        sums = torch.zeros(len(counts), dtype=torch.float64, device=values.device).scatter_add_(0, inverse, place)
        rows.append((sums / counts)[inverse])
    return found.scatter_(-1, order, torch.stack(rows).reshape(values.shape))


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """The correlation along the last axis; NaN where one of the two is constant."""
    a, b = a.double() - a.double().mean(-1, keepdim=True), b.double() - b.double().mean(-1, keepdim=True)
    product = (a * b).sum(-1)
    size = ((a**2).sum(-1) * (b**2).sum(-1)).sqrt()
    return torch.where(size > 0, product / size, float("nan")).clamp(-1, 1)


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """The rank correlation along the last axis."""
    return pearson(ranks(a), ranks(b))
