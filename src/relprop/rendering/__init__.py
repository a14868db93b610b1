"""Relevance as pictures, pages and text in a terminal, for every kind of input.

The functions take plain tensors, arrays and texts, and return a `Drawing`, which becomes a Pillow image, SVG or PDF.
Nothing here knows results: `relprop.results` decides what is drawn of them. This package needs Pillow and NumPy, which
`import relprop` does not.
"""

from __future__ import annotations

try:
    import numpy  # noqa: F401
    import PIL  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "drawing needs Pillow and NumPy: pip install 'relprop[images]'", name=error.name
    ) from error

from relprop.rendering.account import account_bar, sentence
from relprop.rendering.audio import audio
from relprop.rendering.drawing import Drawing, column, framed, row, titled
from relprop.rendering.image import Heatmap, channels, contour, overlay
from relprop.rendering.layers import channel_bars, layer_bars
from relprop.rendering.legend import colour_bar
from relprop.rendering.matrix import TokenMatrix
from relprop.rendering.panels import Panel, grid, strip
from relprop.rendering.scale import Scale
from relprop.rendering.series import series
from relprop.rendering.table import bar_ends, bars, waterfall
from relprop.rendering.text import Token, TokenMap
from relprop.rendering.view import Options
from relprop.rendering.volume import volume

__all__ = [
    "Drawing",
    "Heatmap",
    "Options",
    "Panel",
    "Scale",
    "Token",
    "TokenMap",
    "TokenMatrix",
    "account_bar",
    "audio",
    "bar_ends",
    "bars",
    "channel_bars",
    "channels",
    "colour_bar",
    "column",
    "contour",
    "framed",
    "grid",
    "layer_bars",
    "overlay",
    "row",
    "sentence",
    "series",
    "strip",
    "titled",
    "volume",
    "waterfall",
]
