"""A drawing: marks on white paper. It becomes a Pillow image, SVG or PDF.

Every view of relevance is a `Drawing`, and so is available in every format. Coordinates are pixels, y down.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image, ImageDraw

from relprop.errors import InputError
from relprop.rendering.fonts import drawable, fit, font_for, width
from relprop.rendering.marks import FAINT, INK, PAPER, SIZE, SMALL, Line, Mark, Picture, Text, moved
from relprop.rendering.pdf import pdf
from relprop.rendering.svg import svg

LARGEST = 40_000_000
"""The largest number of pixels of an image."""
_ROOM = 280.0
"""The width that a title may have over a narrower drawing."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """Marks on white paper.

    Attributes:
        width: its width in pixels.
        height: its height in pixels.
        marks: its marks, drawn in this order.
        description: its content in words, for those who cannot see it.
    """

    width: float
    height: float
    marks: tuple[Mark, ...] = ()
    description: str = ""

    def at(self, x: float, y: float) -> tuple[Mark, ...]:
        """The marks, moved by `(x, y)`."""
        return tuple(moved(mark, x, y) for mark in self.marks)

    def to_image(self, scale: float = 1.0) -> Image.Image:
        """Draws it with Pillow, with `scale` pixels for each pixel of the drawing.

        Raises:
            InputError: the image would be larger than 40 million pixels.
        """
        size = max(1, round(self.width * scale)), max(1, round(self.height * scale))
        if size[0] * size[1] > LARGEST:
            raise InputError(
                f"the picture would have {size[0]} x {size[1]} pixels; the largest has {LARGEST // 10**6} million. "
                "Draw fewer samples, or a smaller scale; HTML and SVG have no such limit."
            )
        sheet = Image.new("RGB", size, PAPER)
        draw = ImageDraw.Draw(sheet)
        for mark in self.marks:
            _paint(mark, sheet, draw, scale)
        return sheet

    def to_svg(self, *, stretch: bool = False, scale: float = 1.0) -> str:
        """Writes it as SVG: one self-contained element, `scale` times as large.

        With `stretch`, it fills any width and keeps its height.
        """
        return svg(self.width, self.height, self.marks, self.description, stretch=stretch, scale=scale)

    def to_pdf(self, scale: float = 1.0) -> bytes:
        """Writes it as a PDF of one page, `scale` times as large."""
        return pdf(self.width, self.height, self.marks, scale)


def row(drawings: Sequence[Drawing], gap: float = 12) -> Drawing:
    """Drawings side by side, their tops aligned."""
    marks: list[Mark] = []
    left = 0.0
    for drawing in drawings:
        marks += drawing.at(left, 0)
        left += drawing.width + gap
    height = max((d.height for d in drawings), default=0)
    return Drawing(max(left - gap, 1), height, tuple(marks), _joined(drawings))


def column(drawings: Sequence[Drawing], gap: float = 12) -> Drawing:
    """Drawings one below the other, aligned on the left."""
    marks: list[Mark] = []
    top = 0.0
    for drawing in drawings:
        marks += drawing.at(0, top)
        top += drawing.height + gap
    width_ = max((d.width for d in drawings), default=0)
    return Drawing(width_, max(top - gap, 1), tuple(marks), _joined(drawings))


def titled(drawing: Drawing, title: str, *, size: int = 15, lines: Sequence[str] = ()) -> Drawing:
    """A drawing under a title and smaller lines, which are wrapped where the drawing is narrow."""
    marks: list[Mark] = []
    top = 0.0
    room = max(drawing.width, _ROOM)
    rows = [(line, SMALL + 1, FAINT) for long in lines for line in wrapped(long, room, SMALL + 1)]
    for text, letters, colour in [*((line, size, INK) for line in wrapped(title, room, size)), *rows]:
        if text:
            marks.append(Text(0, top, text, letters, colour))
            top += letters + 6
    wide = max([drawing.width, *(width(mark.text, mark.size) for mark in marks if isinstance(mark, Text))])
    return Drawing(wide, drawing.height + top, (*marks, *drawing.at(0, top)), drawing.description)


def framed(drawing: Drawing, margin: float = 12) -> Drawing:
    """A drawing with white paper around it."""
    return Drawing(
        drawing.width + 2 * margin, drawing.height + 2 * margin, drawing.at(margin, margin), drawing.description
    )


def wrapped(text: str, room: float, size: int = SIZE) -> list[str]:
    """A text in lines that fit the room. A word that does not fit a line is broken after `_`, `/`, `.` or `-`, else cut."""
    lines: list[str] = []
    for word in text.split():
        if lines and width(f"{lines[-1]} {word}", size) <= room and not lines[-1].endswith("…"):
            lines[-1] += f" {word}"
        else:
            lines += _broken(word, room, size)
    return lines


def add_text(
    marks: list[Mark], text: str, x: float, y: float, room: float, *, size: int = SIZE, colour: str = INK
) -> float:
    """Adds a text in lines to marks, and returns where it ends."""
    for line in wrapped(text, room, size):
        marks.append(Text(x, y, line, size, colour))
        y += size + 4
    return y


# The most lines that a single word may take.
_PIECES = 4


def _broken(word: str, room: float, size: int) -> list[str]:
    """A word in lines that fit the room."""
    lines: list[str] = []
    for part in re.findall(r"[^_/.-]*[_/.-]+|[^_/.-]+", word) if width(word, size) > room else [word]:
        if lines and (len(lines) == _PIECES or width(lines[-1] + part, size) <= room):
            lines[-1] += part
        else:
            lines.append(part)
    return [fit(line, room, size) for line in lines]


def _joined(drawings: Sequence[Drawing]) -> str:
    return " ".join(drawing.description for drawing in drawings if drawing.description)


def _paint(mark: Mark, sheet: Image.Image, draw: ImageDraw.ImageDraw, scale: float) -> None:
    if isinstance(mark, Line):
        points = [(float(round(x * scale)), float(round(y * scale))) for x, y in mark.points]
        for piece in _dots(points, scale) if mark.dashed else [points]:
            draw.line(piece, fill=mark.colour, width=max(1, round(mark.width * scale)))
    elif isinstance(mark, Text):
        _write(mark, sheet, draw, scale)
    else:
        left, top = round(mark.x * scale), round(mark.y * scale)
        right = max(left + 1, round((mark.x + mark.width) * scale))
        bottom = max(top + 1, round((mark.y + mark.height) * scale))
        if isinstance(mark, Picture):
            sheet.paste(_stretched(mark, (right - left, bottom - top)), (left, top))
        elif mark.fill or mark.edge:
            draw.rectangle((left, top, right - 1, bottom - 1), fill=mark.fill, outline=mark.edge)


def _dots(points: Sequence[tuple[float, float]], scale: float) -> list[list[tuple[float, float]]]:
    """Dots of two pixels along lines."""
    found = []
    for (x0, y0), (x1, y1) in pairwise(points):
        length = max(abs(x1 - x0), abs(y1 - y0), 1.0)
        for at in range(0, int(length), max(2, round(4 * scale))):
            ends = at / length, min((at + max(1.0, 2 * scale - 1)) / length, 1.0)
            found.append([(x0 + (x1 - x0) * part, y0 + (y1 - y0) * part) for part in ends])
    return found


def _write(mark: Text, sheet: Image.Image, draw: ImageDraw.ImageDraw, scale: float) -> None:
    size = max(1, round(mark.size * scale))
    text = drawable(mark.text)
    font = font_for(text, size)
    x, y = round(mark.x * scale), round(mark.y * scale)
    if not mark.upwards:
        anchor = {"start": "la", "middle": "ma", "end": "ra"}[mark.anchor]
        draw.text((x, y), text, fill=mark.colour, font=font, anchor=anchor)
        return
    # Text that runs upwards starts at the bottom, at `y`.
    strip = Image.new("L", (max(1, int(font.getlength(text)) + 2), size + 4), 0)
    ImageDraw.Draw(strip).text((0, 0), text, fill=255, font=font, anchor="la")
    strip = strip.transpose(Image.Transpose.ROTATE_90)
    sheet.paste(Image.new("RGB", strip.size, mark.colour), (x, y - strip.height), strip)


def _stretched(mark: Picture, size: tuple[int, int]) -> Image.Image:
    image = mark.image.convert("RGB")
    if mark.smooth:
        return image.resize(size, Image.Resampling.BICUBIC)
    # An enlarged map keeps its pixels: smoothing would invent relevance between them. A map that is made smaller is
    # averaged, so that none of it is left out; the triangle of BILINEAR shows less of a beat with a fine grid than BOX.
    smaller = min(size[0], image.width), min(size[1], image.height)
    if smaller != image.size:
        image = image.resize(smaller, Image.Resampling.BILINEAR)
    return image.resize(size, Image.Resampling.NEAREST)
