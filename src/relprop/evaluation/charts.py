"""Drawings of an evaluation: its table, curves with bands, and the maps of samples where methods disagree."""

from __future__ import annotations

from typing import Any

from PIL import Image
from torch import Tensor

from relprop.errors import InputError
from relprop.evaluation.score_columns import Column, Measured
from relprop.optional import library
from relprop.rendering.colours import RED_BLUE, diverging
from relprop.rendering.drawing import Drawing, column, row, titled, wrapped
from relprop.rendering.fonts import fit
from relprop.rendering.marks import FAINT, INK, LINE, SMALL, Line, Mark, Picture, Rect, Text
from relprop.rendering.scale import number
from relprop.rendering.view import Options, View

# Okabe and Ito's colours, which people with any colour vision tell apart; repeated lines are dashed.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#141414")
_WIDE, _HIGH = 360.0, 220.0
_NAME = 190.0
_SIDE = 116.0


def views(found: Measured, options: Options) -> list[View]:
    """A table of the main score, and a panel of curves for each score that has some."""
    score = found.main()
    values = found[score]
    entries = [(name, _mean(line)) for name, line in zip(found.methods, values, strict=True)]
    lines = (f"{len(found)} samples. Units: {found.units}. Scores: {found.of}.", *found.warnings())
    best = [name for name in found.methods if name in found.best()]
    title = f"{score}: best within error {', '.join(best)}" if best else score
    drawn = [View("table", 0, title, lines, lambda: _ranking(found, score), entries=entries)]
    curves = [each for each in found.columns if each.curve is not None]
    if curves:
        drawn.append(
            View(
                "series", 0, "Score while units are removed, mean ± standard error", (),
                lambda: column([row([_panel(found, each) for each in curves[n : n + 2]], 24) for n in range(0, len(curves), 2)]
                               + [_names(found.methods)]),
                entries=entries,
            )
        )  # fmt: skip
    if found.layout is not None and len(found.asked) > 1:
        drawn.append(
            View("image", 0, "Where the methods disagree most", (), lambda: _disagreeing(found), entries=entries)
        )
    return drawn


def _disagreeing(found: Measured) -> Drawing:
    """The maps of the samples on which they agree least, a row each; of each map the largest value is dark."""
    assert found.layout is not None and found.relevance is not None
    rows = []
    for sample in found.disagreements(2):
        maps = []
        for name in found.asked[:6]:
            units = found.relevance[found.methods.index(name), sample].double()
            values = units[found.layout.clamp(min=0)].masked_fill(found.layout < 0, 0.0)
            picture = Image.fromarray(diverging((values / (float(values.abs().max()) or 1.0)).numpy(), RED_BLUE))
            high = _SIDE * picture.height / picture.width
            marks = (Picture(0, 0, _SIDE, high, picture), Rect(0, 0, _SIDE, high, None, LINE))
            maps.append(titled(Drawing(_SIDE, high, marks), "", lines=[fit(name, _SIDE, SMALL + 1)]))
        rows.append(titled(row(maps, 12), "", lines=[f"sample {sample}"]))
    return column(rows, 14)


def _mean(values: Tensor) -> float:
    kept = values[~values.isnan()]
    return float(kept.mean()) if len(kept) else float("nan")


def _spread(values: Tensor) -> float:
    kept = values[~values.isnan()]
    return float(kept.std() / len(kept) ** 0.5) if len(kept) > 1 else 0.0


def _ranking(found: Measured, score: str) -> Drawing:
    """A line per method: the mean with two standard errors, and the passes it took."""
    values = found[score]
    means, errors = [_mean(one) for one in values], [_spread(one) for one in values]
    ends = [m + s * 2 * e for m, e in zip(means, errors, strict=True) for s in (-1, 1) if m == m] + [0.0]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0

    def at(value: float) -> float:
        return _NAME + (value - low) / span * _WIDE

    marks: list[Mark] = [Line(((at(0.0), 0), (at(0.0), 20.0 * len(means))), LINE)]
    best = found.best(score)
    for n, name in enumerate(found.methods):
        y = 20.0 * n + 10
        shown = f"({name})" if name in found.free else name
        marks.append(Text(0, y - 7, fit(shown, _NAME - 10, 13), 13, INK if name in best else FAINT))
        if means[n] != means[n]:
            continue
        ink = INK if name in best else FAINT
        marks.append(Line(((at(means[n] - 2 * errors[n]), y), (at(means[n] + 2 * errors[n]), y)), ink, 2))
        marks.append(
            Rect(at(means[n]) - 3, y - 3, 7, 7, ink, None, f"{name}: {number(means[n])} ± {number(errors[n])}")
        )
        cost = found.cost[name]
        said = f"{number(means[n])} ± {number(errors[n])}   {cost.passes:g} passes"
        marks.append(Text(_NAME + _WIDE + 14, y - 6, said, SMALL, FAINT))
    words = f"{score} of {len(found.methods)} methods; dark is best within two standard errors; whiskers are two standard errors."
    return Drawing(_NAME + _WIDE + 190, 20.0 * len(means) + 6, tuple(marks), words)


def _panel(found: Measured, each: Column) -> Drawing:
    """The mean curves of all methods."""
    assert each.curve is not None and each.at is not None
    means = each.curve.mean(1)
    errors = each.curve.std(1) / len(found) ** 0.5 if len(found) > 1 else means * 0
    low, high = float((means - errors).min()), float((means + errors).max())
    span = (high - low) or 1.0
    left = 44.0

    def point(x: float, y: float) -> tuple[float, float]:
        return left + x * (_WIDE - left), (1 - (y - low) / span) * _HIGH

    marks: list[Mark] = [
        Rect(left, 0, _WIDE - left, _HIGH, None, LINE),
        Text(left - 6, 0, number(high), SMALL, FAINT, "end"),
        Text(left - 6, _HIGH - SMALL, number(low), SMALL, FAINT, "end"),
        Text(left, _HIGH + 4, "none removed", SMALL, FAINT),
        Text(_WIDE, _HIGH + 4, "all removed", SMALL, FAINT, "end"),
    ]
    xs = each.at.tolist()
    for n in range(len(found.methods)):
        colour, again = COLOURS[n % len(COLOURS)], n >= len(COLOURS)
        for x, m, e in zip(xs, means[n].tolist(), errors[n].tolist(), strict=True):
            marks.append(Line((point(x, m - e), point(x, m + e)), colour, 1))
        marks.append(Line(tuple(point(x, m) for x, m in zip(xs, means[n].tolist(), strict=True)), colour, 2, again))
    words = {"morf": "most relevant first", "lerf": "least relevant first"}.get(each.score, each.score)
    title = f"{words}; removed units become {each.replacement}" if each.replacement else words
    return titled(Drawing(_WIDE, _HIGH + 20, tuple(marks), f"Curves: {title}."), "", lines=wrapped(title, _WIDE))


def _names(names: list[str]) -> Drawing:
    """Which colour is which method."""
    marks: list[Mark] = []
    for n, name in enumerate(names):
        x, y = (n % 4) * 185.0, (n // 4) * 18.0
        marks.append(Line(((x, y + 7), (x + 22, y + 7)), COLOURS[n % len(COLOURS)], 2, n >= len(COLOURS)))
        marks.append(Text(x + 28, y, fit(name, 150, 13), 13, INK))
    return Drawing(4 * 185.0, 18.0 * ((len(names) + 3) // 4), tuple(marks))


def plot(found: Measured, ax: Any, score: str | None) -> Any:
    """Draws one panel of curves on matplotlib axes."""
    pyplot = library("matplotlib.pyplot", "plots need matplotlib", "plot")
    chosen = found.find(score) if score is not None else found.columns
    each = next((one for one in chosen if one.curve is not None), None)
    if each is None or each.curve is None or each.at is None:
        raise InputError("there is no curve to draw: flipping has some, as 'morf' and 'lerf'.")
    axes = pyplot.gca() if ax is None else ax
    at = each.at.numpy()
    for n, name in enumerate(found.methods):
        mean = each.curve[n].mean(0).numpy()
        spread = (each.curve[n].std(0) / len(found) ** 0.5).numpy() if len(found) > 1 else 0 * mean
        style = "--" if n >= len(COLOURS) else "-"
        axes.plot(at, mean, style, label=name, color=COLOURS[n % len(COLOURS)])
        axes.fill_between(at, mean - spread, mean + spread, color=COLOURS[n % len(COLOURS)], alpha=0.2, linewidth=0)
    axes.set_xlabel("share of units removed")
    axes.set_ylabel(found.of)
    axes.set_title(each.name)
    axes.legend()
    return axes
