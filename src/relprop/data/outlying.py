"""Which of some numbers are too large to belong to the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEVEL = 0.01
"""How often a number is called so in a sample of normal numbers, where none is."""
FEWEST = 5
"""Of so many numbers one may lie outside, and of more of them as large a share: the others must tell what is usual."""


def outlying(values: Sequence[float], level: float = LEVEL) -> np.ndarray:
    """The generalised extreme Studentized deviate test for several outliers (Rosner 1983), of large values alone.

    The largest is compared with the mean and deviation of all, then the next with those of the rest, and so on. All that
    come before the last one that is too large lie outside, so that two that are large alike do not hide each other.

    Args:
        values: the numbers.
        level: how often any is found where all are of one normal distribution.

    Returns:
        Whether each lies outside. Of fewer than `FEWEST` numbers none does.
    """
    from scipy.special import stdtrit

    given = np.asarray(values, np.float64)
    order = np.argsort(-given, kind="stable")
    count = 0
    for removed in range(len(given) // FEWEST):
        rest = given[order[removed:]]
        n = len(rest)
        deviation = rest.std(ddof=1)
        if not deviation > 0:
            break
        t = stdtrit(n - 2, 1 - level / n)
        if (rest[0] - rest.mean()) / deviation > t * (n - 1) / np.sqrt(n * (n - 2 + t * t)):
            count = removed + 1
    found = np.zeros(len(given), bool)
    found[order[:count]] = True
    return found
