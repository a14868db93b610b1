"""Box sums over the pixels of a map, and the grid that a strided first layer leaves in one."""

from __future__ import annotations

import numpy as np

from relprop.errors import InputError
from relprop.rendering.colours import Floats

# Every second pixel holds that much more than its share where a first layer of 3 x 3 (1.33) or 7 x 7 (1.14) has stride
# 2; in maps without such a layer it is below 1.08.
_STANDS_OUT = 1.1
# In a smaller map it may be chance.
_SMALLEST = 32


def smoothed(values: Floats, side: int) -> Floats:
    """A map `(H, W)` whose pixels each spread their relevance evenly over a box of `side` x `side` around them.

    At the border the box is smaller, so that the total is the same. A value that is not finite stays where it is.

    Raises:
        InputError: the side is not an int from 1 to the smaller side of the map.
    """
    if not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= min(values.shape):
        raise InputError(
            f"smooth is {side!r}; it is the side of a box in pixels: an int from 1 (nothing is smoothed) to the smaller side "
            f"of the map, {min(values.shape)}."
        )
    finite = np.isfinite(values)
    spread = np.where(finite, values, 0.0)
    for axis in (0, 1):
        spread = np.moveaxis(_spread(np.moveaxis(spread, axis, 0), side), 0, axis)
    result: Floats = np.where(finite, spread, values)
    return result


def _spread(values: Floats, side: int) -> Floats:
    """Spreads each row over the `side` rows around it that exist."""
    n = len(values)
    place = np.arange(n)
    before, after = (side - 1) // 2, side // 2
    count = np.minimum(place + after, n - 1) - np.maximum(place - before, 0) + 1
    shares = values / count[:, None]
    total: Floats = np.zeros_like(values)
    for step in range(-before, after + 1):
        source = slice(max(0, -step), min(n, n - step))
        total[source.start + step : source.stop + step] += shares[source]
    return total


def dotted(values: Floats) -> bool:
    """Whether every second row and every second column stand out, as they do after a first layer of stride 2."""
    if min(values.shape) < _SMALLEST:
        return False
    sizes = np.where(np.isfinite(values), np.abs(values), 0.0)
    return all(_alternates(sizes, axis) for axis in (0, 1))


def _alternates(sizes: Floats, axis: int) -> bool:
    """Whether the same one of two neighbours stands out in both halves of the map."""
    found = []
    for half in np.array_split(sizes, 2, axis=1 - axis):
        lines = half.sum(1 - axis)
        pair = lines[: len(lines) // 2 * 2].reshape(-1, 2).sum(0)
        if 2 * pair.max() <= _STANDS_OUT * pair.sum():
            return False
        found.append(int(pair.argmax()))
    return found[0] == found[1]
