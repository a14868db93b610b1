"""Naive definitions of what measures explanations: loops over units, one sample at a time, in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Score = Callable[[Tensor], float]


def flipped(score: Score, x: Tensor, reference: Tensor, order: Sequence[int]) -> list[float]:
    """The score after 0, 1, ... entries of `order` are replaced by those of `reference`."""
    x = x.clone()
    found = [score(x)]
    for place in order:
        x[place] = reference[place]
        found.append(score(x))
    return found


def area(curve: Sequence[float]) -> float:
    """By trapezoids, over a width of 1."""
    return sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / (len(curve) - 1)


def abpc(score: Score, x: Tensor, reference: Tensor, relevance: Tensor) -> float:
    """Least relevant first less most relevant first."""
    order = relevance.argsort(descending=True).tolist()
    return area(flipped(score, x, reference, order[::-1])) - area(flipped(score, x, reference, order))


def abpc_of_linear(contributions: Tensor) -> float:
    """`sum_i (n + 1 - 2 i) c_(i) / n`, with the contributions sorted down."""
    n = len(contributions)
    ordered = contributions.sort(descending=True).values.tolist()
    return sum((n + 1 - 2 * i) * c for i, c in enumerate(ordered, 1)) / n


def all_areas(score: Score, x: Tensor, reference: Tensor) -> list[float]:
    """The area under the flipping curve of every order."""
    return [area(flipped(score, x, reference, order)) for order in itertools.permutations(range(len(x)))]


def imputed(x: Tensor, gone: Tensor) -> Tensor:
    """Missing pixels (H, W) as weighted means of their neighbours in the picture, by a dense solver."""
    weights = {
        (a, b): (1 / 6 if a == 0 or b == 0 else 1 / 12) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a, b) != (0, 0)
    }
    places = [tuple(place) for place in gone.nonzero().tolist()]
    matrix = torch.zeros(len(places), len(places), dtype=torch.float64)
    right = torch.zeros(len(places), dtype=torch.float64)
    for n, (i, j) in enumerate(places):
        for (a, b), weight in weights.items():
            other = i + a, j + b
            if not (0 <= other[0] < x.shape[0] and 0 <= other[1] < x.shape[1]):
                continue
            matrix[n, n] += weight
            if gone[other]:
                matrix[n, places.index(other)] -= weight
            else:
                right[n] += weight * x[other]
    found = x.clone()
    for place, value in zip(places, torch.linalg.solve(matrix, right), strict=True):
        found[place] = value
    return found


def correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Pearson's."""
    n = len(a)
    ma, mb = sum(a) / n, sum(b) / n
    product = sum((p - ma) * (q - mb) for p, q in zip(a, b, strict=True))
    return product / math.sqrt(sum((p - ma) ** 2 for p in a) * sum((q - mb) ** 2 for q in b))


def entropy(values: Sequence[float]) -> float:
    """Of absolute values as shares."""
    total = sum(map(abs, values))
    return -sum(abs(v) / total * math.log(abs(v) / total) for v in values if v)


def gini(values: Sequence[float]) -> float:
    """Mean absolute difference of all pairs over twice the mean."""
    sizes = [abs(v) for v in values]
    return sum(abs(a - b) for a in sizes for b in sizes) / (2 * len(sizes) * sum(sizes))
