"""Relevance as pictures: heat maps, overlays, strips of them, and a self-contained page.

Everything here takes plain tensors or arrays and texts. It needs Pillow and NumPy, which `import relprop`
does not.
"""

from __future__ import annotations

try:
    import numpy  # noqa: F401
    import PIL  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "drawing needs Pillow and NumPy: pip install 'relprop[images]'", name=error.name
    ) from error

from relprop.rendering.heatmap import Heatmap, overlay
from relprop.rendering.page import Entry, Section, page
from relprop.rendering.strip import Panel, colour_bar, strip

__all__ = ["Entry", "Heatmap", "Panel", "Section", "colour_bar", "overlay", "page", "strip"]
