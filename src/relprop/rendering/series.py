"""Relevance of signals: each channel as a line over bands of its relevance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image

from relprop.errors import InputError
from relprop.rendering import colours
from relprop.rendering.colours import RED_BLUE, Floats, Palette
from relprop.rendering.drawing import Drawing
from relprop.rendering.fonts import fit, width
from relprop.rendering.legend import colour_bar
from relprop.rendering.marks import FAINT, INK, LINE, SMALL, Line, Mark, Picture, Rect, Text
from relprop.rendering.scale import Scale, note, number, scale_for, to_array

_MOST_CHANNELS = 16
_HOVERED = 400


def series(
    relevance: torch.Tensor | ArrayLike,
    signal: torch.Tensor | ArrayLike | None = None,
    *,
    names: Sequence[str] = (),
    rate: float | None = None,
    percentile: float | None = None,
    limit: float | Scale | None = None,
    palette: Palette | str = RED_BLUE,
    wide: float = 640,
    high: float | None = None,
    start: int = 0,
    bar: bool = True,
) -> Drawing:
    """Draws a signal over bands coloured by its relevance, with one scale for all channels.

    Args:
        relevance: `(T,)` or `(C, T)`. Of many channels, those with the most relevance are drawn.
        signal: the signal, of the same shape; None draws only the bands.
        names: the names of the channels.
        rate: samples per second, for an axis in seconds; None counts steps.
        percentile: end of the scale, as a percentile of absolute relevance.
        limit: end of the scale.
        palette: the colours, or their name.
        wide: the length of the time axis in pixels.
        high: the height of each channel in pixels; None makes it smaller for many channels.
        start: the number of the first step, where this is a part of a longer signal.
        bar: whether the scale is drawn below, with what is to be noted.

    Raises:
        InputError: the shapes or names do not match, or there is no such palette or scale.
    """
    values = _lines(relevance, "relevance")
    lines = None if signal is None else _lines(signal, "signal")
    if lines is not None and lines.shape != values.shape:
        raise InputError(f"relevance has the shape {values.shape}, the signal {lines.shape}: they must be the same.")
    labels = list(names) or ([f"channel {c}" for c in range(len(values))] if len(values) > 1 else [""])
    if len(labels) != len(values):
        raise InputError(f"{len(labels)} names for {len(values)} channels.")
    scale = scale_for([values], percentile=percentile, limit=limit)
    order = _strongest(values)
    said = note(values, scale)
    if len(order) < len(values):
        left_out = f"{len(values) - len(order)} of {len(values)} channels, those with the least relevance, are left out"
        said = f"{said}; {left_out}" if said else left_out
    high = high or float(np.clip(480 / len(order), 28, 120))
    left = min(max((width(labels[c], SMALL) for c in order), default=0.0), 140.0)
    left += 8 if left else 0
    marks: list[Mark] = []
    top = 0.0
    for channel in order:
        if labels[channel]:
            marks.append(Text(left - 6, top + high / 2 - 7, fit(labels[channel], 140, SMALL), SMALL, INK, "end"))
        marks += _bands(values[channel], scale(values[channel]), left, top, wide, high, palette, rate)
        if lines is not None:
            marks += _curve(lines[channel], left, top, wide, high)
        marks.append(Rect(left, top, wide, high, None, LINE))
        top += high + 4
    marks += axis(values.shape[1], rate, left, top, wide, start)
    if not bar:
        return Drawing(left + wide, top + 24, tuple(marks), _described(values, rate))
    shown = colour_bar(280, scale, palette)
    marks += shown.at(left, top + 24)
    if said:
        marks.append(Text(left + shown.width + 12, top + 24, fit(said, wide - shown.width - 12, SMALL), SMALL, FAINT))
    return Drawing(left + wide, top + 24 + shown.height, tuple(marks), _described(values, rate))


def axis(steps: int, rate: float | None, left: float, top: float, wide: float, start: int = 0) -> list[Mark]:
    """Ticks of a time axis at round numbers, in steps or seconds."""
    begin, end = (n / rate if rate else float(n) for n in (start, start + steps))
    rough = (end - begin) / 6
    power = 10.0 ** np.floor(np.log10(rough)) if rough > 0 else 1.0
    step = float(power * min((m for m in (1, 2, 5, 10) if m * power >= rough), default=10))
    marks: list[Mark] = []
    first = at = max(0.0, round(step * float(np.ceil(begin / step - 1e-9)), 10))
    while at <= end * (1 + 1e-9):
        x = left + wide * (at - begin) / (end - begin)
        marks.append(Line(((x, top), (x, top + 3)), FAINT))
        anchor = "start" if x < left + 12 else "end" if x > left + wide - 12 else "middle"
        marks.append(Text(x, top + 5, f"{at:g}" + (" s" if rate and at == first else ""), SMALL, FAINT, anchor))
        at = round(at + step, 10)
    return marks


def binned(values: Floats, most: int) -> tuple[Floats, int]:
    """At most `most` sums of neighbouring values, and the number of values in each."""
    each = -(-len(values) // most)
    padded = np.pad(values, (0, -len(values) % each))
    return padded.reshape(-1, each).sum(1), each


def _bands(
    values: Floats, scaled: Floats, left: float, top: float, wide: float, high: float, palette: Palette | str,
    rate: float | None,
) -> list[Mark]:  # fmt: skip
    marks: list[Mark] = [Picture(left, top, wide, high, Image.fromarray(colours.diverging(scaled[None], palette)))]
    parts = np.array_split(np.arange(len(values)), min(len(values), _HOVERED))
    step = wide / len(values)
    for part in parts:
        where = f"step {part[0]}" if len(part) == 1 else f"steps {part[0]}-{part[-1]}"
        if rate:
            where = f"{part[0] / rate:.3g} s"
        with np.errstate(invalid="ignore", over="ignore"):
            said = f"{where}: {number(float(values[part].sum()))}"
        marks.append(Rect(left + step * part[0], top, step * len(part), high, title=said))
    return marks


def _curve(line: Floats, left: float, top: float, wide: float, high: float) -> list[Mark]:
    finite = line[np.isfinite(line)]
    if not finite.size:
        return []
    low, span = float(finite.min()), float(finite.max() - finite.min())
    room = high - 8
    # A constant line runs through the middle.
    heights = top + 4 + room * (1 - ((line - low) / span if span > 0 else np.full(len(line), 0.5)))
    centres = left + wide * (np.arange(len(line)) + 0.5) / len(line)
    if len(line) > 4 * wide:
        return [Line(edge, INK) for edge in _outline(heights, left, wide)]
    marks: list[Mark] = []
    known = np.isfinite(heights)
    for run in np.split(np.arange(len(line)), np.flatnonzero(np.diff(known.astype(int))) + 1):
        if known[run[0]] and len(run) > 1:
            marks.append(Line(tuple((float(centres[i]), float(heights[i])) for i in run), INK, 1.5))
    return marks


def _outline(heights: Floats, left: float, wide: float) -> list[tuple[tuple[float, float], ...]]:
    """One line of the highest and one of the lowest values, for a signal with too many samples per pixel."""
    parts = [part[np.isfinite(part)] for part in np.array_split(heights, int(wide) // 2)]
    step = wide / len(parts)
    known = [(left + step * (i + 0.5), part) for i, part in enumerate(parts) if part.size]
    return [tuple((x, float(edge(part))) for x, part in known) for edge in (np.min, np.max)]


def _lines(values: torch.Tensor | ArrayLike, what: str) -> Floats:
    array = to_array(values)
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{what} has the shape {array.shape}; a signal is (T,) or (C, T).")
    return array


def _strongest(values: Floats) -> list[int]:
    """The channels to draw, in order: if there are too many, those with the most relevance."""
    sizes = np.nansum(np.abs(values), axis=1)
    return sorted(np.argsort(-sizes, kind="stable")[:_MOST_CHANNELS].tolist())


def _described(values: Floats, rate: float | None) -> str:
    finite = np.where(np.isfinite(values), values, 0.0)
    channel, step = np.unravel_index(int(np.abs(finite).argmax()), values.shape)
    when = f"{step / rate:.3g} s" if rate else f"step {step}"
    return (
        f"Signal of {values.shape[0]} channel{'s' * (len(values) > 1)} and {values.shape[1]} steps; strongest relevance "
        f"{number(float(finite[channel, step]))} in channel {channel} at {when}."
    )
