"""The font of drawings: Pillow's own, the same on every machine. A font of the system has the letters it lacks."""

from __future__ import annotations

from functools import lru_cache

from PIL import ImageFont

from relprop.rendering.visible import visible

# The brackets that `visible` puts around codes, for fonts that lack them.
_SPELLED = {"⟨": "[", "⟩": "]"}
LABELS = 320.0
"""The most room of the name of a feature beside its bar, in pixels. A longer one is cut, and whole on hover."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@lru_cache(maxsize=64)
def font(size: int) -> Font:
    """Pillow's built-in font, which covers Latin-1."""
    return ImageFont.load_default(size)


@lru_cache(maxsize=64)
def wide_font(size: int) -> Font:
    """A font with more letters where the system has one, else the built-in one."""
    for name in ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf", "arialuni.ttf", "segoeui.ttf"):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return font(size)


@lru_cache(maxsize=16384)
def drawable(text: str) -> str:
    """The text as it is drawn: made visible, with codes such as [U+4E2D] for letters that no font here has."""
    return "".join(
        c if _known(c) or _in(wide_font(20), c) else _SPELLED.get(c, f"[U+{ord(c):04X}]") for c in visible(text)
    )


def font_for(text: str, size: int) -> Font:
    """The built-in font if it has every letter of the text, else the wide one."""
    return font(size) if all(map(_known, text)) else wide_font(size)


@lru_cache(maxsize=8192)
def _known(letter: str) -> bool:
    if " " <= letter <= "~":
        return True
    return _in(font(20), letter)


def _in(chosen: Font, letter: str) -> bool:
    """Whether a font has a letter: its shape then differs from that of a letter that no font has."""
    return bytes(chosen.getmask(letter)) != bytes(chosen.getmask("\uffff"))


@lru_cache(maxsize=16384)
def width(text: str, size: int) -> float:
    """The width of a line of text. Letters stand at whole pixels, so it may differ slightly at twice the size."""
    text = drawable(text)
    return max(font_for(text, size).getlength(text), font_for(text, 2 * size).getlength(text) / 2)


def fit(text: str, room: float, size: int) -> str:
    """The text, cut with an ellipsis if it is wider than the room."""
    text = visible(text)
    if width(text, size) <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if width(text[:middle] + "…", size) <= room else (low, middle - 1)
    return text[:low] + "…"
