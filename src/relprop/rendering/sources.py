"""Sentences, each with a bar for each source, from a common zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from relprop.rendering.colours import hexadecimal
from relprop.rendering.drawing import Drawing, wrapped
from relprop.rendering.fonts import fit, width
from relprop.rendering.marks import FAINT, INK, LINE, SIZE, SMALL, Line, Mark, Rect, Text
from relprop.rendering.scale import number

ROOM, NAMES, TALL, GAP = 560.0, 190.0, 15.0, 3.0
MOST = 8
"""The most sources of a sentence that are drawn; the sum of the others is one bar."""
Values = tuple[str, Sequence[float]]


def draw(
    sentences: Sequence[str],
    scores: Sequence[float],
    sources: Sequence[Values],
    rest: Sequence[Values],
    truths: Mapping[int, Sequence[float]],
) -> Drawing:
    """Draws the sentences below each other, all bars on one scale.

    Args:
        sentences: the sentences.
        scores: their scores.
        sources: the name of each source, and its value for each sentence.
        rest: likewise for all other parts of a score, in words.
        truths: for some sources, by number, the true change of each score.
    """
    every = [0.0, *(v for _, some in sources for v in some), *(v for some in truths.values() for v in some)]
    left = min(max((width(name, SMALL) for name, _ in sources), default=0.0), NAMES) + 8
    low, high = min(every), max(every)
    unit = (ROOM - left - 60) / ((high - low) or 1.0)
    zero = left - low * unit
    marks: list[Mark] = []
    y = 0.0
    for s, sentence in enumerate(sentences):
        for line in wrapped(sentence.strip() or "(no letters)", ROOM, SIZE):
            marks.append(Text(0, y, line, SIZE, INK))
            y += SIZE + 6
        said = ", ".join(f"{name} {number(some[s])}" for name, some in rest)
        for line in wrapped(f"score {number(scores[s])}; {said}", ROOM, SMALL):
            marks.append(Text(0, y, line, SMALL, FAINT))
            y += SMALL + 5
        y += 3
        order = sorted(range(len(sources)), key=lambda k: -abs(sources[k][1][s]))
        shown, others = order[:MOST], order[MOST:]
        rows = [(sources[k][0], sources[k][1][s], truths[k][s] if k in truths else None) for k in sorted(shown)]
        if others:
            rows.append((f"{len(others)} other sources", sum(sources[k][1][s] for k in others), None))
        top = y
        for name, value, truth in rows:
            start = min(zero, zero + value * unit)
            colour = hexadecimal(0.75 if value > 0 else -0.75)
            marks.append(Text(left - 8, y + 1, fit(name, left - 8, SMALL), SMALL, INK, "end"))
            marks.append(Rect(start, y, max(abs(value) * unit, 1.0), TALL, colour, None, f"{name}: {value:+.4g}"))
            end = zero + max(value, truth or 0.0, 0.0) * unit
            if truth is not None:
                at = zero + truth * unit
                marks.append(Line(((at, y - 1), (at, y + TALL + 1)), INK, 2.0))
            marks.append(Text(end + 5, y + 1, number(value), SMALL, FAINT))
            y += TALL + GAP
        marks.append(Line(((zero, top - 2), (zero, y)), LINE, 1.0))
        y += 14
    wide = max([ROOM, *(m.x + width(m.text, m.size) for m in marks if isinstance(m, Text) and m.anchor == "start")])
    said = f"{len(sentences)} sentences and {len(sources)} sources."
    return Drawing(wide, max(y - 14, 1.0), tuple(marks), said)
