"""Relevance on matplotlib axes, with our palette as a colour map (white is exactly zero)."""

from __future__ import annotations

from textwrap import fill
from typing import Any

import numpy as np

try:
    from matplotlib import pyplot
    from matplotlib.colors import Colormap, ListedColormap, Normalize
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("plot() needs matplotlib: pip install 'relprop[plot]'", name="matplotlib") from error

from relprop.errors import InputError
from relprop.rendering import colours
from relprop.rendering.colours import RED_BLUE, Floats, Palette
from relprop.rendering.image import Heatmap
from relprop.rendering.matrix import UNREAD, TokenMatrix, label
from relprop.rendering.text import TokenMap
from relprop.rendering.view import Options, View
from relprop.rendering.visible import visible

# The letters of a line of a note under a map.
_LINE = 42
# The most tokens whose names fit on an axis.
_NAMED = 60


def colour_map(palette: Palette | str = RED_BLUE) -> Colormap:
    """The palette for matplotlib. It has an odd number of colours, so that the middle one is zero."""
    steps = colours.diverging(np.linspace(-1.0, 1.0, 511), palette) / 255.0
    found = ListedColormap(steps, name="relprop")
    unknown = colours.diverging(np.array([np.nan]))[0] / 255.0
    return found.with_extremes(bad=unknown)


def draw(view: View, ax: Any, options: Options) -> Any:
    """Draws a view on the given axes, or on the current ones, and returns the axes."""
    if view.cells:
        raise InputError("a comparison is several maps: plot one of them, as in C[0, 1].plot().")
    axes = ax if ax is not None else pyplot.gca()
    if isinstance(view.data, TokenMatrix):
        _matrix(axes, view.data)
    elif isinstance(view.data, Heatmap) and view.kind in ("image", "volume"):
        _image(axes, view.data, options)
    elif view.series is not None:
        _series(axes, view.series, options)
    else:
        _bars(axes, view, options)
    axes.set_title(_plain(view.title))
    return axes


def _image(axes: Any, heatmap: Heatmap, options: Options) -> None:
    limit = heatmap.limit or 1.0
    shown = axes.imshow(
        heatmap.values, cmap=colour_map(options.palette), norm=Normalize(-limit, limit), interpolation="nearest"
    )
    axes.figure.colorbar(shown, ax=axes, label="relevance")
    if heatmap.note:
        axes.set_xlabel(fill(heatmap.note, _LINE), fontsize="small")
    axes.set_xticks([])
    axes.set_yticks([])


def _matrix(axes: Any, shown: TokenMatrix) -> None:
    limit = shown.scale.limit or 1.0
    values = np.ma.masked_where(~shown.read, shown.values)
    colour = colour_map(shown.palette).with_extremes(bad=UNREAD)
    drawn = axes.imshow(values, cmap=colour, norm=Normalize(-limit, limit), interpolation="nearest", aspect="auto")
    axes.figure.colorbar(drawn, ax=axes, label=shown.note or "relevance")
    if len(shown.columns) <= _NAMED:
        axes.set_xticks(range(len(shown.columns)), [_plain(label(text)) for text in shown.columns], rotation=90)
    if len(shown.rows) <= _NAMED:
        axes.set_yticks(range(len(shown.rows)), [_plain(label(text)) for text in shown.rows])
    axes.set_xlabel("read")
    axes.set_ylabel("generated")


def _series(axes: Any, values: Floats, options: Options) -> None:
    lines = np.atleast_2d(values.squeeze())
    steps = np.arange(lines.shape[1]) / (options.rate or 1.0)
    for channel, line in enumerate(lines):
        names = list(options.names)
        axes.plot(steps, line, label=names[channel] if names else f"channel {channel}", linewidth=1)
    axes.axhline(0.0, color="#696969", linewidth=0.8)
    axes.set_xlabel("seconds" if options.rate else "step")
    axes.set_ylabel("relevance")
    if 1 < len(lines) <= 8:
        axes.legend()


def _bars(axes: Any, view: View, options: Options) -> None:
    entries = view.entries
    if not isinstance(view.data, TokenMap) or len(entries) > _NAMED:
        entries = sorted(entries, key=lambda entry: -abs(entry[1]))[:20]
    names, values = [name for name, _ in entries], [value for _, value in entries]
    places = np.arange(len(values))[::-1]
    fills = colours.diverging(0.75 * np.sign(values), options.palette) / 255.0
    axes.barh(places, np.where(np.isfinite(values), values, 0.0), color=fills)
    axes.set_yticks(places, [_plain(name) for name in names])
    axes.axvline(0.0, color="#141414", linewidth=0.8)
    axes.set_xlabel("relevance")


def _plain(text: str) -> str:
    """A name as plain text: a dollar sign in it does not start a formula."""
    return visible(text, longest=80).replace("$", r"\$")
