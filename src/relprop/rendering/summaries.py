"""Relevance over a data set: the importance of features as bars, a beeswarm, and a map of samples by features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from relprop.errors import InputError
from relprop.rendering import colours
from relprop.rendering.colours import RED_BLUE, Floats, Palette
from relprop.rendering.drawing import Drawing, wrapped
from relprop.rendering.fonts import LABELS, fit, width
from relprop.rendering.image import Heatmap
from relprop.rendering.legend import colour_bar
from relprop.rendering.marks import FAINT, INK, LINE, SIZE, SMALL, Line, Mark, Picture, Rect, Text
from relprop.rendering.scale import Scale, number, to_array

_ROW, _BAR = 22, 13
_SWARM = 30
"""The height of a row of a beeswarm."""
_DOT = 3
"""The side of a dot, in pixels of a picture that is drawn at twice its size."""
_TALLEST = 420
_LOW, _HIGH, _MIDDLE = np.array([52, 70, 160]), np.array([214, 110, 14]), np.array([150, 140, 150])
"""The colours of small, large and middle values of a feature. They are none of the colours of signs."""


def importance(
    names: Sequence[str],
    size: ArrayLike,
    mean: ArrayLike,
    *,
    most: int = 20,
    palette: Palette | str = RED_BLUE,
    wide: float = 420,
    longest: float | None = None,
) -> Drawing:
    """Draws the mean absolute relevance of features as bars, the largest first, and their mean relevance as a mark.

    Args:
        names: the names of the features.
        size: the mean absolute relevance of each.
        mean: the mean relevance of each. A bar has the colour of its sign.
        most: the number of features to draw. A line below says how much the others have.
        palette: the colours, or their name.
        wide: the width of the bars with their numbers, in pixels.
        longest: the size that gets the longest bar; None takes the largest. Charts that are compared share it.

    Raises:
        InputError: names and numbers differ in length, or there are none.
    """
    sizes, means = to_array(size).ravel(), to_array(mean).ravel()
    if not len(sizes) or len(sizes) != len(names) or len(means) != len(names):
        raise InputError(f"{len(names)} names for {len(sizes)} sizes and {len(means)} means of relevance.")
    order = np.argsort(-np.nan_to_num(sizes), kind="stable")
    shown, others = order[:most], order[most:]
    left = min(max(width(names[i], SIZE) for i in shown), LABELS) + 12
    room = wide - 120.0
    full = longest or float(np.nanmax(sizes)) or 1.0
    marks: list[Mark] = []
    for place, i in enumerate(shown):
        y, value, signed = place * _ROW, float(sizes[i]), float(means[i])
        said = f"{names[i]}: mean |R| {number(value)}, mean R {number(signed)}"
        marks.append(Text(left - 8, y + 3, fit(names[i], left - 8, SIZE), SIZE, INK, "end"))
        fill = colours.hexadecimal(0.75 if signed >= 0 else -0.75, palette)
        marks.append(Rect(left, y + 3, max(room * value / full, 0.5), _BAR, fill, None, said))
        at = left + room * min(abs(signed) / full, 1.0)
        marks.append(Line(((at, y + 1), (at, y + _BAR + 5)), INK, 2))
        marks.append(Text(left + room * value / full + 8, y + 4, f"{number(value)} ({signed:+.3g})", SMALL, FAINT))
    bottom = len(shown) * _ROW
    marks.append(Line(((left, 0), (left, bottom)), INK))
    legend = "bar: mean |R|; mark and colour: mean R and its sign"
    if len(others):
        legend = f"{len(others)} more have {number(float(np.nansum(sizes[others])))} together; {legend}"
    marks.append(Text(0, bottom + 6, fit(legend, left + wide, SMALL), SMALL, FAINT))
    first = ", ".join(f"{names[i]} {number(float(sizes[i]))}" for i in shown[:8])
    return Drawing(left + wide, bottom + 22, tuple(marks), f"Mean absolute relevance: {first}.")


def beeswarm(
    relevance: ArrayLike,
    features: ArrayLike | None,
    names: Sequence[str],
    *,
    most: int = 12,
    palette: Palette | str = RED_BLUE,
    wide: float = 460,
) -> Drawing:
    """Draws a dot for each sample and feature: its place is the relevance, its colour the value of the feature.

    Args:
        relevance: `(N, F)`.
        features: the values of the features, `(N, F)`; None draws grey dots.
        names: the names of the features.
        most: the number of features to draw, those with the largest mean absolute relevance first.
        palette: the colours of the two sides of the axis.
        wide: the width of the dots' field, in pixels.

    Raises:
        InputError: the shapes do not match.
    """
    values = to_array(relevance)
    given = None if features is None else to_array(features)
    if values.ndim != 2 or values.shape[1] != len(names) or (given is not None and given.shape != values.shape):
        raise InputError(f"a beeswarm is drawn of relevance (N, F) with a name per feature; got {values.shape}.")
    values = np.where(np.isfinite(values), values, 0.0)
    order = np.argsort(-np.abs(values).mean(0), kind="stable")[:most]
    drawn = values[:, order]
    low, high = min(float(drawn.min(initial=0.0)), 0.0), max(float(drawn.max(initial=0.0)), 0.0)
    span = (high - low) or 1.0
    left = min(max(width(names[i], SIZE) for i in order), LABELS) + 12
    zero = left + wide * -low / span
    marks: list[Mark] = []
    for place, i in enumerate(order):
        y = place * _SWARM
        marks.append(Line(((left, y + _SWARM / 2), (left + wide, y + _SWARM / 2)), LINE))
        marks.append(Text(left - 8, y + _SWARM / 2 - 7, fit(names[i], left - 8, SIZE), SIZE, INK, "end"))
        said = f"{names[i]}: mean |R| {number(float(np.abs(values[:, i]).mean()))}, from {number(float(values[:, i].min()))} to {number(float(values[:, i].max()))}"
        dots = _dots((values[:, i] - low) / span, None if given is None else given[:, i], int(wide))
        marks.append(Picture(left - _DOT, y, wide + 2 * _DOT, _SWARM, dots, True, said))
    bottom = float(len(order) * _SWARM)
    marks.append(Line(((zero, 0), (zero, bottom)), INK))
    for value, anchor in ((low, "start"), (0.0, "middle"), (high, "end")):
        away = abs(value) / span * wide > 40
        if away or anchor == "middle":
            marks.append(Text(left + wide * (value - low) / span, bottom + 4, number(value), SMALL, FAINT, anchor))
    marks.append(Text(left + wide / 2, bottom + 18, "relevance of one sample", SMALL, FAINT, "middle"))
    if given is not None:
        marks += _legend(left + wide + 16, bottom)
    about = f"Relevance of {len(values)} samples by feature: {', '.join(names[i] for i in order[:12])}."
    return Drawing(left + wide + (64 if given is not None else 10), bottom + 34, tuple(marks), about)


def sample_map(
    relevance: ArrayLike,
    names: Sequence[str],
    *,
    most: int = 30,
    scale: Scale | None = None,
    percentile: float | None = None,
    palette: Palette | str = RED_BLUE,
) -> Drawing:
    """Draws relevance as a map with a line for each sample and a column for each feature.

    Args:
        relevance: `(N, F)`, the samples in the order in which they are drawn.
        names: the names of the features.
        most: the number of features to draw, those with the largest mean absolute relevance first.
        scale: the scale; None makes one.
        percentile: its end, as a percentile of absolute relevance.
        palette: the colours, or their name.

    Raises:
        InputError: the shapes do not match.
    """
    values = to_array(relevance)
    if values.ndim != 2 or values.shape[1] != len(names) or not values.size:
        raise InputError(f"a map of samples is drawn of relevance (N, F) with a name per feature; got {values.shape}.")
    order = np.argsort(-np.abs(np.nan_to_num(values)).mean(0), kind="stable")[:most]
    shown = values[:, order]
    each = -(-len(shown) // _TALLEST)  # samples per line, where there are more samples than pixels
    if each > 1:
        shown = np.array([shown[at : at + each].mean(0) for at in range(0, len(shown), each)])
    heatmap = Heatmap.of(shown, percentile=percentile, limit=scale, palette=palette)
    column = max(14.0, min(40.0, 560.0 / len(order)))
    line = max(1.0, min(18.0, _TALLEST / len(shown)))
    left, wide, tall = 40.0, column * len(order), line * len(shown)
    marks: list[Mark] = [
        Rect(left - 1, -1, wide + 2, tall + 2, None, LINE),
        Picture(left, 0, wide, tall, heatmap.image()),
        Text(left - 6, 0, "0", SMALL, FAINT, "end"),
        Text(left - 6, tall - SMALL, str(len(values) - 1), SMALL, FAINT, "end"),
    ]
    if len(shown) * len(order) <= 2000:
        for (n, f), value in np.ndenumerate(shown):
            said = f"sample {n}, {names[order[f]]}: {number(float(value))}"
            marks.append(Rect(left + f * column, n * line, column, line, None, None, said))
    longest = min(max(width(names[i], SMALL) for i in order), LABELS / 1.5)
    for f, i in enumerate(order):
        name = fit(names[i], longest, SMALL)
        x, y = left + f * column + column / 2 - 6, tall + width(name, SMALL) + 8
        marks.append(Text(x, y, name, SMALL, INK, upwards=True))
    top = tall + longest + 16
    marks += colour_bar(min(wide, 260.0), heatmap.scale, heatmap.palette).at(left, top)
    said = "a line is a sample" if each == 1 else f"a line is the mean of {each} samples"
    if len(order) < len(names):
        said = f"{said}; {len(names) - len(order)} features are left out"
    across = max(left + wide, left + 300) + 8
    top += 30
    for text in wrapped("; ".join(filter(None, [said, heatmap.note])), across - left, SMALL):
        marks.append(Text(left, top, text, SMALL, FAINT))
        top += SMALL + 4
    return Drawing(across, top + 4, tuple(marks), f"Relevance of {len(values)} samples by feature.")


def _dots(places: Floats, features: Floats | None, wide: int) -> Image.Image:
    """The dots of one feature, on a transparent picture of twice the size."""
    tall, across = 2 * _SWARM, 2 * (wide + 2 * _DOT)
    sheet = np.zeros((tall, across, 4), dtype=np.uint8)
    x = np.clip(np.round(places * (2 * wide)).astype(int) + _DOT, 0, across - 2 * _DOT)
    side = 2 * _DOT
    rank = np.zeros(len(x), dtype=int)  # the number of a dot among those of its column
    order = np.argsort(x // side, kind="stable")
    bins, starts = np.unique(x[order] // side, return_index=True)
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        rank[order[start:stop]] = np.arange(stop - start)
    most = int(np.bincount(rank.clip(0)).size) if len(bins) else 1
    step = min(float(side), (tall - side) / max(most, 1))
    offset = ((rank + 1) // 2) * np.where(rank % 2, -1, 1) * step
    y = np.clip(np.round(tall / 2 - _DOT + offset).astype(int), 0, tall - side)
    paint = np.broadcast_to(_MIDDLE, (len(x), 3)) if features is None else ramp(_ranks(features))
    for dx, dy in np.ndindex(side, side):
        if (dx - _DOT + 0.5) ** 2 + (dy - _DOT + 0.5) ** 2 <= _DOT**2:
            sheet[y + dy, x + dx, :3] = paint
            sheet[y + dy, x + dx, 3] = 255
    image = Image.new("RGB", (across, tall), "white")
    middle = tall // 2
    image.paste((200, 200, 200), (2 * _DOT, middle, across - 2 * _DOT, middle + 2))
    image.paste(Image.fromarray(sheet[:, :, :3]), (0, 0), Image.fromarray(sheet[:, :, 3]))
    return image


def _ranks(features: Floats) -> Floats:
    """Values of a feature from 0 to 1, by percentile, so that one extreme value does not hide the others."""
    finite = features[np.isfinite(features)]
    low, high = np.percentile(finite, [5, 95]) if len(finite) else (0.0, 0.0)
    return np.full(len(features), 0.5) if high <= low else np.clip((np.nan_to_num(features) - low) / (high - low), 0, 1)


def ramp(shares: Floats) -> np.ndarray:
    """Colours of values from 0 to 1, as bytes `(..., 3)`."""
    shares = np.asarray(shares, dtype=float)[..., None]
    below = _LOW + (_MIDDLE - _LOW) * np.minimum(shares * 2, 1)
    return np.round(below + (_HIGH - _MIDDLE) * np.maximum(shares * 2 - 1, 0)).astype(np.uint8)


def _legend(x: float, bottom: float) -> list[Mark]:
    """The colours of the features' values, beside a beeswarm."""
    tall = min(bottom - 30, 160.0)
    bar = Image.fromarray(ramp(np.linspace(1, 0, 64)[:, None]))
    return [
        Text(x, 0, "high", SMALL, FAINT), Picture(x, 16, 10, tall, bar, True), Text(x, 20 + tall, "low", SMALL, FAINT),
        Text(x + 14, 16 + tall / 2 + 40, "feature value", SMALL, FAINT, upwards=True),
    ]  # fmt: skip
