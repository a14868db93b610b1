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


def sensitivity_n(score: Score, x: Tensor, relevance: Tensor, subsets: Sequence[Sequence[bool]]) -> float:
    """The correlation of subsets' relevance with what their removal takes away; what is removed becomes 0."""
    sums, drops = [], []
    for gone in subsets:
        changed = x.clone()
        total = 0.0
        for unit, away in enumerate(gone):
            if away:
                changed[unit] = 0.0
                total += float(relevance[unit])
        sums.append(total)
        drops.append(score(x) - score(changed))
    return correlation(sums, drops)


def norm(values: Sequence[float]) -> float:
    """Euclid's."""
    return math.sqrt(sum(v * v for v in values))


def stability(
    explain: Callable[[Tensor], Tensor], outputs: Callable[[Tensor], Tensor], x: Tensor, near: Sequence[Tensor]
) -> dict[str, float]:
    """How much the map of `x` changes at the inputs `near`. Yeh et al. 2019, equation 2; Agarwal et al. 2022, 1 and 3."""
    own, before = explain(x).tolist(), outputs(x).tolist()
    changes, by_input, by_output = [], [], []
    for other in near:
        there, after = explain(other).tolist(), outputs(other).tolist()
        changes.append(norm([a - b for a, b in zip(own, there, strict=True)]))
        if before.index(max(before)) != after.index(max(after)):
            continue
        relative = norm([(a - b) / a for a, b in zip(own, there, strict=True)])
        moved = norm([(a - b) / a for a, b in zip(x.tolist(), other.tolist(), strict=True)])
        by_input.append(relative / max(moved, 1e-6))
        by_output.append(relative / max(norm([a - b for a, b in zip(before, after, strict=True)]), 1e-6))
    return {
        "max_sensitivity": max(changes),
        "average_sensitivity": sum(changes) / len(changes),
        "relative_sensitivity": max(changes) / norm(own),
        "input_stability": max(by_input, default=math.nan),
        "output_stability": max(by_output, default=math.nan),
    }


def soft_removal(score: Score, x: Tensor, relevance: Tensor, noise: Sequence[Sequence[float]], keep: bool) -> float:
    """The mean loss when each entry is dropped (or, with `keep`, kept) with its relevance, scaled to 0 to 1, as chance."""
    low, high = min(relevance.tolist()), max(relevance.tolist())
    losses = []
    for draw in noise:
        changed = x.clone()
        for entry, number in enumerate(draw):
            chance = (float(relevance[entry]) - low) / (high - low)
            if number < (1 - chance if keep else chance):
                changed[entry] = 0.0
        losses.append(score(x) - score(changed))
    return sum(losses) / len(losses)


def randomised(maps: Sequence[Sequence[float]], similarity: Callable[..., float]) -> tuple[float, float]:
    """MPRT and eMPRT of the map of the model and those after 1, 2, ... layers are randomised.

    Hedström et al. 2023: the mean similarity, and the rise of entropy from the first to the last as a share of the first.
    """
    own, *others = maps
    alike = [similarity(own, other) for other in others]
    return sum(alike) / len(alike), (entropy(others[-1]) - entropy(own)) / entropy(own)


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's, where no two values are equal."""

    def places(values: Sequence[float]) -> list[float]:
        return [float(sum(other < value for other in values)) for value in values]

    return correlation(places(a), places(b))
