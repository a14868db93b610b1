"""The size of a picture in a file: a width in pixels or on paper, and a resolution."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from relprop.errors import InputError

# A pixel of a drawing is 1/96 inch, as in CSS.
_DRAWN = 96.0
_INCH = {"mm": 25.4, "cm": 2.54, "in": 1.0}
# The resolution at which journals print pictures.
_PAPER = 300.0
# Below this a figure has no room for a map and its caption.
_LEAST = 48.0


@dataclass(frozen=True)
class Size:
    """A width, and pixels per inch.

    Attributes:
        drawn: the width in pixels of a drawing, of which 96 are an inch.
        dpi: pixels per inch in a file that is made of pixels.
        pixels: the width in pixels of such a file.
    """

    drawn: float
    dpi: float
    pixels: int

    @classmethod
    def of(cls, width: Any, dpi: Any = None) -> Size:
        """The size for a width such as 800, in pixels, or "170mm", "17cm" or "6.7in".

        Args:
            width: the width.
            dpi: pixels per inch: 300 for a width on paper, and 96 for one in pixels, unless given.

        Raises:
            InputError: this is no such width or resolution.
        """
        if dpi is not None and not _positive(dpi):
            raise InputError(f"dpi is {dpi!r}; it is pixels per inch: a number above 0, such as 300.")
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(mm|cm|in|px)\s*", width) if isinstance(width, str) else None
        if found is None and not _positive(width):
            raise InputError(
                f"width is {width!r}; it is a number of pixels, or a length such as '170mm', '17cm' or '6.7in'."
            )
        number, unit = (float(found[1]), found[2]) if found else (float(width), "px")
        if unit == "px":
            resolution = float(dpi or _DRAWN)
            size = cls(number / resolution * _DRAWN, resolution, round(number))
        else:
            resolution, inches = float(dpi or _PAPER), number / _INCH[unit]
            size = cls(inches * _DRAWN, resolution, round(inches * resolution))
        if size.drawn < _LEAST:
            raise InputError(f"width is {width!r}; a picture is at least {_LEAST:.0f} pixels, or half an inch, wide.")
        return size


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
