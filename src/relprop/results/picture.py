"""A result as one drawing."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from relprop.rendering.drawing import Drawing, column, framed, titled
from relprop.rendering.view import Options, View
from relprop.results.protocol import Result

MARGIN = 12.0


def drawing(result: Result, options: Options) -> Drawing:
    """All views in a column, each under its title and its numbers."""
    parts = [_titled(view) for view in result.views(options)]
    if more := left_out(result, options):
        parts.append(titled(Drawing(300, 1), "", lines=[f"{more} more samples are not drawn (most=)"]))
    whole = framed(column(parts, 20), MARGIN)
    # Whole pixels, so that a picture of twice the scale has twice as many.
    return replace(whole, width=ceil(whole.width), height=ceil(whole.height))


def _titled(view: View) -> Drawing:
    # The rows of a comparison have titles of their own.
    return titled(_accounted(view), "" if view.cells else view.title, lines=view.lines)


def _accounted(view: View) -> Drawing:
    """A view's drawing, and below it what became of the score."""
    if view.account is None or view.panels:  # the drawing of a picture holds the bar
        return view.draw()
    return column([view.draw(), view.account], 8)


def left_out(result: Result, options: Options) -> int:
    """How many samples are not drawn."""
    return max(result.samples - options.most, 0)
