"""Relevance of hidden layers: how much each layer has, and which of its channels have it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike

from relprop.errors import InputError
from relprop.rendering import colours
from relprop.rendering.colours import RED_BLUE, Floats, Palette
from relprop.rendering.drawing import Drawing
from relprop.rendering.fonts import LABELS, fit, width
from relprop.rendering.marks import FAINT, INK, SIZE, SMALL, Line, Mark, Rect, Text
from relprop.rendering.scale import number, to_array
from relprop.rendering.table import bars

_ROW, _BAR = 26, 17


def channel_bars(relevance: torch.Tensor | ArrayLike, *, most: int = 15, palette: Palette | str = RED_BLUE) -> Drawing:
    """Draws the relevance of a layer's channels: `(C, ...)` of one sample, summed over all other axes."""
    values = to_array(relevance)
    if values.ndim == 0 or not values.size:
        raise InputError(f"relevance has the shape {values.shape}; a layer is (C, ...).")
    sums = values.reshape(len(values), -1).sum(1)
    return bars(sums, [f"channel {c}" for c in range(len(sums))], most=most, palette=palette)


def layer_bars(
    layers: Mapping[str, torch.Tensor | ArrayLike],
    score: float | None = None,
    *,
    palette: Palette | str = RED_BLUE,
    wide: float = 420,
) -> Drawing:
    """Draws the positive and negative relevance of each layer, and their sum as a mark, which shows where it is lost.

    Args:
        layers: relevance of one sample by layer, in the order in which they are drawn.
        score: the explained score, drawn as a line. The marks would stay on it if nothing were absorbed.
        palette: the colours, or their name.
        wide: pixels from the smallest to the largest value.
    """
    if not layers:
        raise InputError("there are no layers to draw: ask for some with attribute(..., layers=[...]).")
    parts = {name: _parts(to_array(values)) for name, values in layers.items()}
    low = min([0.0, score or 0.0, *(negative for _, negative in parts.values())])
    high = max([0.0, score or 0.0, *(positive for positive, _ in parts.values())])
    span = (high - low) or 1.0
    left = min(max(width(name, SIZE) for name in parts), LABELS) + 12

    def place_of(value: float) -> float:
        return left + wide * (value - low) / span

    marks: list[Mark] = []
    for place, (name, (positive, negative)) in enumerate(parts.items()):
        y = place * _ROW
        total = positive + negative
        said = f"{name}: positive {number(positive)}, negative {number(negative)}, sum {number(total)}"
        marks.append(Text(left - 8, y + 4, fit(name, left - 8, SIZE), SIZE, INK, "end"))
        for value in (positive, negative):
            x = min(place_of(0.0), place_of(value))
            long = abs(place_of(value) - place_of(0.0))
            if long:
                fill = colours.hexadecimal(0.6 if value > 0 else -0.6, palette)
                marks.append(Rect(x, y + 2, long, _BAR, fill, None, said))
        at = place_of(total)
        marks.append(Rect(at - 1.5, y, 3, _BAR + 4, INK, None, said))
    bottom = len(parts) * _ROW
    marks.append(Line(((place_of(0.0), 0), (place_of(0.0), bottom)), INK))
    marks.append(Text(place_of(0.0), bottom + 3, "0", SMALL, FAINT, "middle"))
    if score is not None and abs(place_of(score) - place_of(0.0)) > 1:
        marks.append(Line(((place_of(score), 0), (place_of(score), bottom)), FAINT, 1, dashed=True))
        anchor = "end" if place_of(score) > left + wide - 40 else "middle"
        marks.append(Text(place_of(score), bottom + 3, f"score {number(score)}", SMALL, FAINT, anchor))
    about = "Relevance of layers: " + ", ".join(f"{n} {number(p + q)}" for n, (p, q) in list(parts.items())[:12]) + "."
    return Drawing(left + wide + 8, bottom + 18, tuple(marks), about)


def _parts(values: Floats) -> tuple[float, float]:
    """The sums of positive and of negative relevance."""
    finite = values[np.isfinite(values)]
    return float(finite[finite > 0].sum()), float(finite[finite < 0].sum())
