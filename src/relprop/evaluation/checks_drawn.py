"""Checks as a page of green and red, with pictures."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from relprop.evaluation.checked import Check
from relprop.rendering.colours import RED_BLUE, diverging
from relprop.rendering.drawing import Drawing, column, wrapped
from relprop.rendering.fonts import fit
from relprop.rendering.marks import FAINT, INK, LINE, PAPER, SMALL, Mark, Picture, Rect, Text
from relprop.rendering.view import View

GREEN, RED = "#1a7f37", "#c62828"
_CELL = 110.0


def checked(checks: Sequence[Check]) -> list[View]:
    """One view: a line per check in green or red, with the map and the truth where they are known."""
    counts = {kind: sum(each.passed is kind for each in checks) for kind in (True, False, None)}
    title = f"{counts[True]} passed, {counts[False]} failed, {counts[None]} left out"
    entries = [(f"{each.name}, {each.method}", each.value) for each in checks if each.passed is not None]
    return [View("table", 0, title, (), lambda: column([_line(each) for each in checks], 10), entries=entries)]


def _line(each: Check) -> Drawing:
    word, colour = {True: ("passed", GREEN), False: ("failed", RED), None: ("left out", FAINT)}[each.passed]
    marks: list[Mark] = [
        Rect(0, 0, 74, 20, colour),
        Text(37, 3, word, 13, PAPER, "middle"),
        Text(84, 3, fit(f"{each.name}, {each.method}", 420, 13), 13, INK),
    ]
    top = 24.0
    for said in wrapped(each.said, 420, SMALL):
        marks.append(Text(84, top, said, SMALL, FAINT))
        top += SMALL + 4
    high = max(top, 24.0)
    if each.map is not None and each.truth is not None:
        limit = float(each.map.abs().max()) or 1.0
        for n, (values, words) in enumerate(((each.map / limit, "relevance"), (each.truth, "truth"))):
            picture = Image.fromarray(diverging(values.double().numpy(), RED_BLUE))
            tall = _CELL if len(values) > 1 else 16.0
            x = 520 + n * (_CELL + 12)
            marks += [Picture(x, 0, _CELL, tall, picture), Rect(x, 0, _CELL, tall, None, LINE)]
            marks.append(Text(x, tall + 2, words, SMALL, FAINT))
            high = max(high, tall + 16)
    return Drawing(520 + 2 * _CELL + 12, high, tuple(marks), f"{word}: {each.name}, {each.method}. {each.said}.")
