"""Pictures side by side, each with its caption, over one colour bar each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from relprop.rendering import colours

_MARGIN = 12
_LINE = 17
_FONT_SIZE = 13
_BAR_HEIGHT = 10
_INK, _FAINT = (20, 20, 20), (105, 105, 105)


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture of a strip.

    Attributes:
        image: What is shown.
        caption: Its first line, and smaller ones after each line break; too long ones are cut with an
            ellipsis.
        limit: The relevance of the deepest colour; draws a colour bar. None draws none.
    """

    image: Image.Image
    caption: str = ""
    limit: float | None = None


def strip(panels: Sequence[Panel], *, title: str = "", height: int = 224) -> Image.Image:
    """Draw the panels side by side at one height."""
    if not panels:
        raise ValueError("a strip needs at least one panel")
    shown = [_at_height(panel.image, height) for panel in panels]
    captions = [panel.caption.split("\n") if panel.caption else [] for panel in panels]
    lines = max(len(caption) for caption in captions)
    top = _MARGIN + (_LINE + 6 if title else 0)
    bar = _BAR_HEIGHT + _LINE + 8 if any(panel.limit is not None for panel in panels) else 0
    width = sum(image.width for image in shown) + _MARGIN * (len(shown) + 1)
    sheet = Image.new("RGB", (width, top + height + bar + 4 + lines * _LINE + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_MARGIN, _MARGIN - 2), _fit(title, width - 2 * _MARGIN, 15), fill=_INK, font=_font(15))
    left = _MARGIN
    for panel, image, caption in zip(panels, shown, captions, strict=True):
        sheet.paste(image, (left, top))
        # White maps on white paper need an edge.
        draw.rectangle((left - 1, top - 1, left + image.width, top + height), outline=(200, 200, 200))
        if panel.limit is not None:
            sheet.paste(colour_bar(image.width, panel.limit), (left, top + height + 6))
        for number, line in enumerate(caption):
            text = _fit(line, image.width, _FONT_SIZE)
            place = (left, top + height + bar + 4 + number * _LINE)
            draw.text(place, text, fill=_FAINT if number else _INK, font=_font(_FONT_SIZE))
        left += image.width + _MARGIN
    return sheet


def colour_bar(width: int, limit: float) -> Image.Image:
    """Draw the palette from -limit to +limit with these two and 0 written under it."""
    ramp = colours.diverging(np.tile(np.linspace(-1.0, 1.0, width), (_BAR_HEIGHT, 1)))
    bar = Image.new("RGB", (width, _BAR_HEIGHT + _LINE), "white")
    bar.paste(Image.fromarray(ramp), (0, 0))
    draw = ImageDraw.Draw(bar)
    draw.rectangle((0, 0, width - 1, _BAR_HEIGHT - 1), outline=(200, 200, 200))
    # A plain hyphen: the font that comes with Pillow has no minus sign.
    ends = ((0, "la", f"-{limit:.3g}"), (width - 1, "ra", f"+{limit:.3g}")) if limit > 0.0 else ()
    for place, anchor, text in ((width // 2, "ma", "0"), *ends):
        draw.text((place, _BAR_HEIGHT + 2), text, fill=_FAINT, font=_font(11), anchor=anchor)
    return bar


def _at_height(image: Image.Image, height: int) -> Image.Image:
    width = max(1, round(image.width * height / image.height))
    # A map enlarged keeps its pixels visible as pixels: smoothing would invent relevance between them.
    method = Image.Resampling.NEAREST if height > image.height else Image.Resampling.BOX
    return image.convert("RGB").resize((width, height), method)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fit(text: str, width: int, size: int) -> str:
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
