"""What became of a score: how much of it arrived at the inputs, and what kept the rest, as a bar and as a sentence."""

from __future__ import annotations

import math

from relprop.rendering import colours
from relprop.rendering.colours import RED_BLUE, Palette
from relprop.rendering.drawing import Drawing
from relprop.rendering.fonts import fit, width
from relprop.rendering.marks import FAINT, INK, SMALL, Line, Mark, Rect, Text
from relprop.rendering.scale import number
from relprop.rendering.table import UNKNOWN
from relprop.rendering.view import Row

# The height of the bar, and of a line under it.
_BAR, _ROW = 10, 16
_GREYS = ("#7d7d7d", "#a9a9a9", "#c9c9c9")
# The cause that belongs to "the network's" in a sentence.
BIASES = "biases and stabilisers"
# A part below this fraction of the largest one is not listed.
_LEAST = 0.005


def account_bar(row: Row, *, unit: str = "inputs", palette: Palette | str = RED_BLUE, wide: float = 224) -> Drawing:
    """Draws a score as a bar, from the part that arrived at the inputs to what kept the rest.

    Parts with the sign of the score lie side by side. Parts of the other sign lie below and lead back, so that the bar
    ends at the score, where the line is.

    Args:
        row: the numbers of the score.
        unit: what the inputs are, such as "pixels".
        palette: the colours of relevance.
        wide: the width in pixels.
    """
    parts = _parts(row, unit)
    if not parts:
        return Drawing(wide, 1)
    sign = 1.0 if row.score > 0 else -1.0
    ahead = sum(max(sign * value, 0.0) for _, value in parts)
    over = any(sign * value < 0 for _, value in parts)
    marks: list[Mark] = []
    legend: list[Mark] = []
    forth, top = 0.0, _BAR + 4.0 + (_BAR if over else 0.0)
    back = ahead
    for place, (name, value) in enumerate(parts):
        fill = colours.hexadecimal(math.copysign(0.75, value), palette) if place == 0 else _GREYS[min(place - 1, 2)]
        long = abs(value) / ahead * wide
        said = f"{name}: {number(value)} ({percent(value / row.score)} of the score)"
        if sign * value >= 0:
            marks.append(Rect(forth, 0, long, _BAR, fill, None, said))
            forth += long
        else:
            back -= abs(value)
            marks.append(Rect(max(back / ahead * wide, 0.0), _BAR, min(long, wide), _BAR, fill, None, said))
        legend.append(Rect(0, top + 3, 8, 8, fill))
        legend.append(Text(12, top + 1, fit(f"{name} {number(value)}", wide - 66, SMALL), SMALL, FAINT))
        legend.append(Text(wide, top + 1, percent(value / row.score), SMALL, FAINT, "end"))
        top += _ROW
    at = min(max(abs(row.score) / ahead * wide, 1.0), wide)
    marks.append(Line(((at - 0.5, 0), (at - 0.5, _BAR * (1 + over))), INK))
    listed = ", ".join(f"{name} {number(value)}" for name, value in parts)
    return Drawing(wide, top, (*marks, *legend), f"Of the score {number(row.score)}: {listed}.")


def sentence(row: Row, unit: str = "inputs") -> str:
    """What became of a score, in words that need no knowledge of the method; empty where nothing adds up to it."""
    if not _adds_up(row):
        return ""
    arrived, kept = row.relevance / row.score, row.residual / row.score
    where, verb = _keepers(row)
    if abs(kept) < _LEAST:
        return f"The whole score arrived at the {unit}, which add up to it."
    if kept < 0:
        return f"The {unit} hold {percent(arrived)} of the score: {where} {verb} against it, with {percent(-kept)}."
    if kept > 1:
        held = "holds" if verb == "speaks" else "hold"
        return f"{_capital(where)} {held} {percent(kept)} of the score; the {unit} speak against it, with {percent(-arrived)}."
    rest = f"the map ranks the {unit}." if kept > 0.5 else f"the {unit} hold the other {percent(arrived)}."
    return f"{percent(kept)} of the score stayed in {where}; {rest}"


def _parts(row: Row, unit: str) -> list[tuple[str, float]]:
    """What arrived, and what was kept by each cause that matters."""
    named = [(f"arrived at the {unit}", row.relevance), *row.absorbed.items()]
    if not _adds_up(row):
        return []
    least = _LEAST * max(abs(value) for _, value in named)
    first, *rest = named
    large = sorted((part for part in rest if abs(part[1]) >= least), key=lambda part: -abs(part[1]))
    shown, others = large[:3], sum(value for _, value in large[3:])
    return [first, *shown, *([("others", others)] if len(large) > 3 else [])]


def _adds_up(row: Row) -> bool:
    """Whether the score is finite and not 0, and its parts add up to it, up to the rounding of float32 sums."""
    parts = (row.relevance, *row.absorbed.values())
    if not all(map(math.isfinite, (row.score, row.residual, *parts))) or row.score == 0.0:
        return False
    return abs(sum(parts) - row.score) <= 1e-3 * max(abs(row.score), *map(abs, parts))


def _keepers(row: Row) -> tuple[str, str]:
    """What kept the residual, in words, and whether it "speaks" or they "speak"."""
    size = max(map(abs, row.absorbed.values()), default=0.0)
    causes = [c for c, value in sorted(row.absorbed.items(), key=lambda part: -abs(part[1])) if abs(value) > 0.2 * size]
    if not causes:
        return "the network itself", "speaks"
    named = {UNKNOWN: "the network itself", BIASES: f"the network's {BIASES}"}
    found = [named.get(cause, cause) for cause in causes[:2]]
    single = len(found) == 1 and causes[0] in (UNKNOWN, "softmax", "attention", "normalisation", "rounding")
    return " and ".join(found), "speaks" if single else "speak"


def percent(part: float) -> str:
    """A part of the score as a percentage of three digits, which rounding does not turn into all of it."""
    if 0.9995 <= part < 1.0:
        return ">99.9 %"
    return f"{100 * part:.3g} %" if abs(part) < 10 else f"{100 * part:.0f} %"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def account(row: Row, unit: str, palette: Palette | str, wide: float = 224) -> tuple[str, Drawing | None]:
    """The sentence and the bar, at least as wide as asked and as wide as its lines; "" and None where nothing adds up."""
    said = sentence(row, unit)
    if not said:
        return "", None
    lines = (width(f"{name} {number(value)}", SMALL) + 68 for name, value in _parts(row, unit))
    return said, account_bar(row, unit=unit, palette=palette, wide=max(wide, *lines))
