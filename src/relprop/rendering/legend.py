"""The colour bar under a map or a text, which tells what its colours mean."""

from __future__ import annotations

import numpy as np
from PIL import Image

from relprop.rendering import colours
from relprop.rendering.colours import RED_BLUE, Palette
from relprop.rendering.drawing import Drawing
from relprop.rendering.fonts import fit, width
from relprop.rendering.marks import FAINT, LINE, SMALL, Mark, Picture, Rect, Text
from relprop.rendering.scale import Scale, number


def colour_bar(wide: float, scale: Scale, palette: Palette | str = RED_BLUE) -> Drawing:
    """Draws the palette from -limit to +limit, with these numbers and 0 under it."""
    ramp = colours.diverging(np.linspace(-1.0, 1.0, 2 * max(1, int(wide) // 2) + 1)[None], palette)
    marks: list[Mark] = [
        Picture(0, 0, wide, 10, Image.fromarray(ramp)),
        Rect(0, 0, wide, 10, None, LINE),
        Text(wide / 2, 12, "0", SMALL, FAINT, "middle"),
    ]
    if scale.limit > 0.0:
        low, high = f"-{number(scale.limit)}", f"+{number(scale.limit)}"
        if width(low, SMALL) + width(high, SMALL) + 20 < wide:
            marks.append(Text(0, 12, low, SMALL, FAINT))
            marks.append(Text(wide, 12, high, SMALL, FAINT, "end"))
        else:
            marks[2] = Text(wide / 2, 12, fit("±" + number(scale.limit), wide, SMALL), SMALL, FAINT, "middle")
    return Drawing(wide, 26, tuple(marks))
