"""Palettes: zero is white, positive and negative values have one hue each, and larger sizes are darker.

Both signs have the same luminance at the same size, and it falls with the size, so that a map can be read in grey.
Colour-blind people can tell each pair of hues apart. Colours are mixed in linear light, in which luminance is linear,
so that the luminances hold by construction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relprop.errors import InputError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

# Luminance of linear sRGB (IEC 61966-2-1).
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
Pigment = tuple[float, float, float]


@dataclass(frozen=True)
class Palette:
    """The purest colour of each sign, in linear light (0 to 1)."""

    positive: Pigment
    negative: Pigment


RED_BLUE = Palette((0.62, 0.012, 0.03), (0.012, 0.14, 0.80))
PALETTES = {
    "red_blue": RED_BLUE,
    "orange_purple": Palette((0.70, 0.10, 0.0), (0.16, 0.03, 0.62)),
    "grey": Palette((0.2, 0.2, 0.2), (0.2, 0.2, 0.2)),
}
"""Palettes by name. "grey" is for print without colour and shows only sizes: state the sign next to it."""

# CIE lightness at zero and at the largest value.
_LIGHTEST, _DARKEST = 100.0, 32.0
# The colour of NaN, which no number has.
_NAN = np.array([240, 228, 66], dtype=np.uint8)


def palette(chosen: Palette | str) -> Palette:
    """A palette from its name.

    Raises:
        InputError: no palette has that name.
    """
    if isinstance(chosen, Palette):
        return chosen
    if chosen not in PALETTES:
        raise InputError(f"there is no palette {chosen!r}; there are: {', '.join(PALETTES)}.")
    return PALETTES[chosen]


def diverging(values: Floats, pigments: Palette | str = RED_BLUE) -> Bytes:
    """Colours of values from -1 to 1 (larger ones as ±1), as sRGB bytes `(..., 3)`. NaN is yellow."""
    return printed(values, np.ones(np.shape(values)), pigments)


def printed(values: Floats, paper: Floats, pigments: Palette | str = RED_BLUE) -> Bytes:
    """The same colours on grey paper, whose luminance is 1 where it is white. It multiplies that of the colours."""
    size = np.minimum(np.abs(np.nan_to_num(values)), 1.0)
    lightness = _LIGHTEST + (_DARKEST - _LIGHTEST) * size
    colours = to_bytes(pure(values, luminance_of_lightness(lightness), pigments) * paper[..., None])
    colours[np.isnan(values)] = _NAN
    return colours


def tinted(values: Floats, luminance: Floats, pigments: Palette | str = RED_BLUE) -> Bytes:
    """Grey of this luminance, with a tint as strong as the values (-1 to 1). The luminance does not change."""
    strength = np.minimum(np.abs(np.nan_to_num(values)), 1.0)[..., None]
    mixed = (1.0 - strength) * luminance[..., None] + strength * pure(values, luminance, pigments)
    colours = to_bytes(mixed)
    colours[np.isnan(values)] = _NAN
    return colours


def pure(sign: Floats, luminance: Floats, pigments: Palette | str = RED_BLUE) -> Floats:
    """The positive (sign >= 0) or negative hue at this luminance: the pigment, lightened with white or darkened."""
    pair = palette(pigments)
    pigment = np.where((np.asarray(sign) < 0)[..., None], np.array(pair.negative), np.array(pair.positive))
    own = (pigment @ _LUMINANCE)[..., None]
    wanted = luminance[..., None]
    white = np.clip((wanted - own) / (1.0 - own), 0.0, 1.0)
    mixed: Floats = np.where(wanted >= own, pigment + white * (1.0 - pigment), pigment * wanted / own)
    return mixed


def luminance_of_lightness(lightness: Floats) -> Floats:
    """Relative luminance of a CIE lightness L* (0 to 100)."""
    cubed: Floats = ((lightness + 16.0) / 116.0) ** 3
    return np.where(lightness > 8.0, cubed, lightness / 903.3)


def lightness_of_luminance(luminance: Floats) -> Floats:
    """CIE lightness L* of a relative luminance (0 to 1)."""
    return np.where(luminance > 0.008856, 116.0 * np.cbrt(luminance) - 16.0, 903.3 * luminance)


def luminance(rgb: Bytes) -> Floats:
    """Relative luminance, 0 to 1, of sRGB bytes `(..., 3)`."""
    encoded = rgb / 255.0
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    result: Floats = linear @ _LUMINANCE
    return result


def to_bytes(linear: Floats) -> Bytes:
    """Encodes linear light, 0 to 1, as sRGB bytes."""
    linear = np.clip(linear, 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255.0).astype(np.uint8)


def hexadecimal(value: float, pigments: Palette | str = RED_BLUE) -> str:
    """The colour of one value, -1 to 1, as `#rrggbb`."""
    r, g, b = diverging(np.array([value]), pigments)[0]
    return f"#{r:02x}{g:02x}{b:02x}"


def ink_on(value: float) -> str:
    """Black or white, whichever is easier to read on the colour of a value, -1 to 1."""
    size = min(abs(value), 1.0) if value == value else 0.0
    # Contrast (WCAG 2) with this black and with white is equal, 4.3, at luminance 0.195, which is L* 51.
    return "#ffffff" if _LIGHTEST + (_DARKEST - _LIGHTEST) * size < 51.0 else "#141414"
