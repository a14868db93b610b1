"""Relevance of named features: bars, and a waterfall that ends at the score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from relprop.errors import InputError
from relprop.rendering import colours
from relprop.rendering.colours import RED_BLUE, Floats, Palette
from relprop.rendering.drawing import Drawing
from relprop.rendering.fonts import LABELS, fit, width
from relprop.rendering.marks import FAINT, INK, LINE, SIZE, SMALL, Line, Mark, Rect, Text
from relprop.rendering.scale import number, to_array

UNKNOWN = "kept inside the network"
"""What is said of a residual whose causes were not asked for: biases, softmax and others may have kept it."""
_ROW = 22
_BAR = 15
# The strength of the bars' colour: their length shows the size, their colour only the sign.
_STRENGTH = 0.75


def bars(
    relevance: torch.Tensor | ArrayLike,
    names: Sequence[str] = (),
    features: torch.Tensor | ArrayLike | Sequence[object] | None = None,
    *,
    most: int = 20,
    palette: Palette | str = RED_BLUE,
    wide: float = 420,
    ends: tuple[float, float] | None = None,
) -> Drawing:
    """Draws a bar for each feature, the largest first. One more bar, in outline, is the sum of those left out.

    Args:
        relevance: `(F,)`, the relevance of each feature.
        names: the names of the features.
        features: their values, written next to the names.
        most: the number of features to draw.
        palette: the colours, or their name.
        wide: the width of the bars with their numbers, in pixels.
        ends: the smallest and the largest value of the scale, for several drawings on one scale; see `bar_ends`.

    Raises:
        InputError: the shapes or names do not match, or there is no such palette.
    """
    values, labels = _named(relevance, names, features)
    entries = _largest(values, labels, most)
    drawn = _in_bars(entries, len(values))
    low, high = _range(entry[1] for entry in drawn) if ends is None else ends
    span = (high - low) or 1.0
    others = len(entries) - 1 if len(entries) < len(values) else len(entries)
    left, room = _label_room(entries), wide - 56.0
    marks: list[Mark] = []
    # The number of a bar stands at its end: negative bars need room on the left.
    start = left + (56.0 if low < 0 else 0.0)
    if low < 0 < high:
        room -= 56.0
    zero = start + room * -low / span
    for place, (label, value) in enumerate(entries):
        y = place * _ROW
        marks.append(Text(left - 8, y + 3, fit(label, left - 8, SIZE), SIZE, INK if place < others else FAINT, "end"))
        if not np.isfinite(value) or place >= len(drawn):
            said = f"{number(value)}, not drawn to scale" if np.isfinite(value) else "not finite"
            marks.append(Text(zero + 5, y + 4, said, SMALL, FAINT))
            continue
        long = room * abs(value) / span
        x = zero if value >= 0 else zero - long
        marks.append(_bar(x, y + 2, long, value, palette, f"{label}: {number(value)}", of_feature=place < others))
        marks.append(
            Text(zero + long + 5, y + 4, number(value), SMALL, FAINT)
            if value >= 0
            else Text(zero - long - 5, y + 4, number(value), SMALL, FAINT, "end")
        )
    bottom = len(entries) * _ROW
    marks.append(Line(((zero, 0), (zero, bottom)), INK))
    return Drawing(left + wide, bottom + 2, tuple(marks), _described(entries))


def waterfall(
    relevance: torch.Tensor | ArrayLike,
    score: float,
    residual: float | dict[str, float] | None = None,
    names: Sequence[str] = (),
    features: torch.Tensor | ArrayLike | Sequence[object] | None = None,
    *,
    most: int = 12,
    palette: Palette | str = RED_BLUE,
    wide: float = 420,
    ends: tuple[float, float] | None = None,
) -> Drawing:
    """Draws how the features' relevance and the residual add up to the score.

    Args:
        relevance: `(F,)`, the relevance of each feature.
        score: the score, where the bars must end.
        residual: what was absorbed on the way, as one number or by cause; None is the score minus the relevance.
        names: the names of the features.
        features: their values, written next to the names.
        most: the number of features to draw; the sum of the rest is one step.
        palette: the colours, or their name.
        wide: the width of the bars with their numbers, in pixels.
        ends: the smallest and the largest value of the scale, for several drawings on one scale; see `bar_ends`.

    Raises:
        InputError: relevance and residual do not add up to the score or are not finite, the shapes or names do not
            match, or there is no such palette.
    """
    values, labels = _named(relevance, names, features)
    if not np.isfinite(values).all() or not np.isfinite(score):
        raise InputError(
            "relevance or the score holds NaN or infinite values: nothing adds up to that. Draw bars instead."
        )
    total = float(values.sum())
    rest = score - total if residual is None else residual
    absorbed = dict(rest) if isinstance(rest, dict) else {UNKNOWN: float(rest)}
    # The caller summed float32 values, in an unknown order.
    room_for_error = 1e-3 * max(abs(score), float(np.abs(values).sum()), 1e-12)
    if abs(total + sum(absorbed.values()) - score) > room_for_error:
        raise InputError(
            f"relevance {number(total)} and residual {number(sum(absorbed.values()))} do not add up to the score "
            f"{number(score)}: the bars would not end there."
        )
    of_features, entries = _steps(values, labels, score, absorbed, most)
    sums = np.cumsum([0.0, *(value for _, value in entries)])
    low, high = _range(sums) if ends is None else ends
    span = (high - low) or 1.0
    others = len(of_features) - 1 if len(of_features) < len(values) else len(of_features)
    rows = [*entries, ("score", score)]
    left, room = _label_room(rows), wide - 70.0

    def place_of(value: float) -> float:
        return left + room * (value - low) / span

    marks: list[Mark] = []
    for place, (label, value) in enumerate(rows):
        y = place * _ROW
        last = place == len(entries)
        begin, end = (0.0, score) if last else (float(sums[place]), float(sums[place + 1]))
        x0, x1 = sorted((place_of(begin), place_of(end)))
        is_feature = place < others or last
        marks.append(Text(left - 8, y + 3, fit(label, left - 8, SIZE), SIZE, INK if is_feature else FAINT, "end"))
        hover = f"{label}: {number(value)}"
        if place < len(of_features):
            marks.append(_bar(x0, y + 2, x1 - x0, value, palette, hover, of_feature=place < others))
        else:
            marks.append(Rect(x0, y + 2, max(x1 - x0, 0.5), _BAR, INK if last else "#b4b4b4", None, hover))
        said = number(value) if last or value < 0 else f"+{number(value)}"
        marks.append(Text(x1 + 5, y + 4, said, SMALL, FAINT))
        if not last:
            marks.append(Line(((place_of(end), y + 2 + _BAR), (place_of(end), y + _ROW + 2)), FAINT))
    bottom = len(rows) * _ROW
    marks.append(Line(((place_of(0.0), 0), (place_of(0.0), bottom)), LINE))
    about = f"Waterfall from 0 to the score {number(score)}. {_described(entries)}"
    return Drawing(left + wide, bottom + 2, tuple(marks), about)


def bar_ends(
    relevance: torch.Tensor | ArrayLike,
    score: float | None = None,
    residual: dict[str, float] | None = None,
    *,
    most: int | None = None,
) -> tuple[float, float]:
    """The smallest and the largest value on the scale of `bars`, or with a score and a residual of `waterfall`.

    Args:
        relevance: `(F,)`, the relevance of each feature.
        score: the score.
        residual: what was absorbed, by cause.
        most: the number of features that are drawn: by default 20 in bars and 12 in a waterfall.
    """
    values, labels = _named(relevance, (), None)
    if score is None:
        return _range(value for _, value in _in_bars(_largest(values, labels, most or 20), len(values)))
    _, entries = _steps(values, labels, score, residual or {}, most or 12)
    return _range(np.cumsum([0.0, *(value for _, value in entries)]))


def _in_bars(entries: list[tuple[str, float]], count: int) -> list[tuple[str, float]]:
    """The entries that get a bar. The sum of the others may exceed every bar: it gets one only if that leaves room."""
    return entries[:-1] if len(entries) < count and abs(entries[-1][1]) > 2 * abs(entries[0][1]) else entries


def _steps(
    values: Floats, labels: list[str], score: float, absorbed: dict[str, float], most: int
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """The steps of a waterfall: those of features, and all. A step narrower than a pixel is left out."""
    of_features = _largest(values, labels, most)
    least = 1e-3 * max(abs(score), *map(abs, absorbed.values()), 1e-300)
    return of_features, of_features + [(label, value) for label, value in absorbed.items() if abs(value) > least]


def _range(values: Iterable[float]) -> tuple[float, float]:
    """The smallest and the largest finite value, and 0."""
    finite = [float(value) for value in values if np.isfinite(value)]
    return min([0.0, *finite]), max([0.0, *finite])


def _bar(
    x: float, y: float, long: float, value: float, palette: Palette | str, title: str, *, of_feature: bool
) -> Rect:
    """A bar. The sum of others is pale and has an outline, so that it does not look like a feature."""
    fill = _colour(value, palette) if of_feature else colours.hexadecimal(0.15 * float(np.sign(value)), palette)
    return Rect(x, y, max(long, 0.5), _BAR, fill, None if of_feature else _colour(value, palette), title)


def _named(relevance: torch.Tensor | ArrayLike, names: Sequence[str], features: object) -> tuple[Floats, list[str]]:
    values = to_array(relevance)
    if values.ndim != 1 or not values.size:
        raise InputError(f"relevance has the shape {values.shape}; features are (F,).")
    labels = [str(name) for name in names] or [f"feature {i}" for i in range(len(values))]
    if len(labels) != len(values):
        raise InputError(f"{len(labels)} names for {len(values)} features.")
    if features is None:
        return values, labels
    given = features.detach().cpu().tolist() if isinstance(features, torch.Tensor) else list(features)  # type: ignore[call-overload]
    if len(given) != len(values):
        raise InputError(f"{len(given)} values for {len(values)} features.")
    said = [f"{value:.4g}" if isinstance(value, (int, float)) else str(value) for value in given]
    return values, [f"{label} = {value}" for label, value in zip(labels, said, strict=True)]


def _largest(values: Floats, labels: list[str], most: int) -> list[tuple[str, float]]:
    order = np.argsort(-np.abs(np.nan_to_num(values, nan=np.inf)), kind="stable")
    # One more feature takes no more room than the line "1 others" would.
    count = len(order) if len(order) <= most + 1 else most
    entries = [(labels[i], float(values[i])) for i in order[:count]]
    if count < len(order):
        entries.append((f"(sum of {len(order) - count} others)", float(np.nansum(values[order[count:]]))))
    return entries


def _label_room(entries: Sequence[tuple[str, float]]) -> float:
    return min(max(width(label, SIZE) for label, _ in entries), LABELS) + 12


def _colour(value: float, palette: Palette | str) -> str:
    return colours.hexadecimal(_STRENGTH * float(np.sign(value)), palette)


def _described(entries: Sequence[tuple[str, float]]) -> str:
    return "Relevance of features: " + ", ".join(f"{label} {number(value)}" for label, value in entries[:8]) + "."
