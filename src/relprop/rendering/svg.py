"""Drawings as self-contained SVG, without a style sheet, a script, a font or a link."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from html import escape

from PIL import Image

from relprop.rendering.marks import Line, Mark, Picture, Rect, Text
from relprop.rendering.visible import visible

_FONTS = "Helvetica, Arial, sans-serif"
# From the top of the letters, where drawings place a line of text, to its baseline, as a part of the size.
_BASELINE = 0.95


def svg(
    width: float,
    height: float,
    marks: Sequence[Mark],
    description: str = "",
    *,
    stretch: bool = False,
    scale: float = 1.0,
) -> str:
    """Marks on white paper as one `<svg>` element, for a file or a page."""
    drawn = "\n".join(filter(None, map(_mark, marks)))
    about = f"<title>{escape(visible(description))}</title>" if description else ""
    role = 'role="img"' if description else 'aria-hidden="true"'  # a picture without words is nothing to read
    wide, high = _n(width), _n(height)
    size = (
        f'width="100%" height="{high}" preserveAspectRatio="none"'
        if stretch
        else (f'width="{_n(width * scale)}" height="{_n(height * scale)}"')
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {wide} {high}" '
        f'{role} font-family="{_FONTS}">\n{about}\n'
        f'<rect width="{wide}" height="{high}" fill="#ffffff"/>\n{drawn}\n</svg>\n'
    )


def png_address(image: Image.Image) -> str:
    """A picture as a data URL."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _mark(mark: Mark) -> str:
    if isinstance(mark, Line):
        points = " ".join(f"{_n(x)},{_n(y)}" for x, y in mark.points)
        dashes = ' stroke-dasharray="2 2"' if mark.dashed else ""
        return (
            f'<polyline points="{points}" fill="none" stroke="{mark.colour}" stroke-width="{_n(mark.width)}" '
            f'stroke-linejoin="round"{dashes}/>'
        )
    if isinstance(mark, Text):
        if not mark.text:
            return ""
        place = f'x="{_n(mark.x)}" y="{_n(mark.y + _BASELINE * mark.size)}"'
        if mark.upwards:
            x, y = _n(mark.x + _BASELINE * mark.size), _n(mark.y)
            place = f'x="{x}" y="{y}" transform="rotate(-90 {x} {y})"'
        anchor = f' text-anchor="{mark.anchor}"' if mark.anchor != "start" else ""
        return f'<text {place} font-size="{mark.size}" fill="{mark.colour}"{anchor}>{escape(mark.text)}</text>'
    box = f'x="{_n(mark.x)}" y="{_n(mark.y)}" width="{_n(mark.width)}" height="{_n(mark.height)}"'
    title = f"<title>{escape(mark.title)}</title>" if mark.title else ""
    if isinstance(mark, Picture):
        image = mark.image if mark.smooth else _whole_pixels(mark)
        return f'<image {box} preserveAspectRatio="none" href="{png_address(image)}">{title}</image>'
    if mark.fill is None and mark.edge is None and not title:
        return ""
    return f"<rect {box}{_paint(mark)}>{title}</rect>" if title else f"<rect {box}{_paint(mark)}/>"


def _whole_pixels(mark: Picture) -> Image.Image:
    """The picture with each pixel repeated, so that it has at least those of its rectangle.

    A browser may then average pixels but never leaves any out. `image-rendering="pixelated"` would: on a narrow screen
    it makes a map smaller than itself, and draws grids that are not there.
    """
    across, down = (max(1, math.ceil(n)) for n in (mark.width / mark.image.width, mark.height / mark.image.height))
    return mark.image.resize((mark.image.width * across, mark.image.height * down), Image.Resampling.NEAREST)


def _paint(mark: Rect) -> str:
    # A rectangle without fill reacts to the pointer only with `pointer-events="all"`.
    fill = mark.fill or "none"
    edge = f' stroke="{mark.edge}"' if mark.edge else ""
    return f' fill="{fill}"{edge}' + (' pointer-events="all"' if mark.fill is None and mark.title else "")


def _n(value: float) -> str:
    """A coordinate to a hundredth of a pixel, without trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"
