"""Relevance of pictures: a map by itself, over the picture, as contours, by sign, and by channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image, ImageFilter

from relprop.errors import InputError
from relprop.rendering import colours
from relprop.rendering.colours import RED_BLUE, Bytes, Floats, Palette
from relprop.rendering.scale import Scale, note, scale_for, to_array
from relprop.rendering.smoothing import dotted, smoothed

# The picture is paper for the map: its lightness is compressed into this range, on which every colour of a map shows.
_PICTURE_LIGHTNESS = (62.0, 98.0)
GRID = "dots: the stride of the network's first layer (smooth=2 evens them out)"
"""The note on a map in which every second pixel stands out."""
# The height of a panel in pixels.
PANEL = 224


@dataclass(frozen=True, eq=False)
class Heatmap:
    """A map of relevance, `(H, W)`, and its scale.

    Build one with `Heatmap.of`. The scale of another map makes the two comparable:
    `Heatmap(heatmap.values, other.scale)`.

    Attributes:
        values: the relevance of each pixel. NaN stays NaN and is drawn yellow.
        scale: its limit, and every size beyond it, is drawn in the deepest colour.
        palette: the colours.
        smooth: the side of the box over which each pixel was spread, in pixels.
    """

    values: Floats
    scale: Scale
    palette: Palette = RED_BLUE
    smooth: int = 1

    @classmethod
    def of(
        cls,
        relevance: torch.Tensor | ArrayLike,
        *,
        percentile: float | None = None,
        limit: float | Scale | None = None,
        palette: Palette | str = RED_BLUE,
        smooth: int = 1,
    ) -> Heatmap:
        """Sums the channels of `(H, W)`, `(C, H, W)` or `(1, C, H, W)`, and scales them by the usual scale of pictures.

        Args:
            relevance: the relevance of one picture.
            percentile: scale by this percentile of absolute relevance instead, and clip larger values. 100 clips
                nothing.
            limit: scale by this size instead, or by another scale.
            palette: the colours, or their name.
            smooth: the side of a box, in pixels, over which each pixel's relevance is spread evenly. The total stays.

        Raises:
            InputError: the shape is not that of a map, or there is no such palette, scale or box.
        """
        values = smoothed(channel_sum(relevance), smooth)
        scale = scale_for([values], percentile=percentile, limit=limit, pictures=True)
        return cls(values, scale, colours.palette(palette), smooth)

    @property
    def limit(self) -> float:
        """The size of relevance that gets the deepest colour."""
        return self.scale.limit

    @property
    def note(self) -> str:
        """What a reader should know before trusting the colours; empty for an ordinary map."""
        said = note(self.values, self.scale, "pixel")
        unsigned = "signs are not shown" if self.palette.positive == self.palette.negative else ""
        box = f"each pixel spread over {self.smooth} x {self.smooth}" if self.smooth > 1 else ""
        grid = GRID if self.smooth == 1 and dotted(self.values) else ""
        return "; ".join(filter(None, [said, unsigned, box, grid]))

    @property
    def scaled(self) -> Floats:
        """The values as fractions of the limit, -1 to 1; NaN where they are not finite."""
        return self.scale(self.values)

    def image(self) -> Image.Image:
        """Draws the map by itself: white where relevance is 0."""
        return Image.fromarray(colours.diverging(self.scaled, self.palette))

    def part(self, sign: float) -> Heatmap:
        """Its positive or negative part, on the same scale."""
        side = np.maximum(self.values, 0.0) if sign > 0 else np.minimum(self.values, 0.0)
        return Heatmap(side, self.scale, self.palette, self.smooth)


def overlay(heatmap: Heatmap, picture: Image.Image) -> Image.Image:
    """Draws the map on the picture, as if printed on it: red for, blue against.

    The picture is a pale grey that darkens the colours of the map. So relevance is as strong as in the map alone, and
    the picture's contrasts are the same under strong relevance as under none.
    """
    height, width_ = heatmap.values.shape
    rgb: Bytes = np.asarray(picture.convert("RGB").resize((width_, height), Image.Resampling.BICUBIC))
    low, high = _PICTURE_LIGHTNESS
    lightness = low + (high - low) * colours.lightness_of_luminance(colours.luminance(rgb)) / 100.0
    return Image.fromarray(colours.printed(heatmap.scaled, colours.luminance_of_lightness(lightness), heatmap.palette))


def contour(
    heatmap: Heatmap, picture: Image.Image, *, level: float = 0.25, smooth: float = 2.0, size: int = PANEL
) -> Image.Image:
    """Draws the picture in its own colours, with lines around relevant regions.

    Args:
        heatmap: the map. It is blurred before the lines are drawn, or every pixel would have one.
        picture: the picture that the map is about.
        level: where the lines run, as a fraction of the largest blurred size.
        smooth: the blur's standard deviation in pixels of the map; 0 for none.
        size: pixels of the longer side.

    Raises:
        InputError: size, smooth or level is out of range.
    """
    if size < 1 or smooth < 0.0 or not 0.0 < level <= 1.0:
        raise InputError(
            f"size is {size}, smooth {smooth}, level {level}: contours need a size of at least 1, a blur of at least 0, and a "
            "level above 0 and up to 1."
        )
    height, width_ = heatmap.values.shape
    factor = size / max(height, width_)
    shape = max(1, round(width_ * factor)), max(1, round(height * factor))
    shown = np.array(picture.convert("RGB").resize(shape, Image.Resampling.BICUBIC))
    finite = _blurred(np.where(np.isfinite(heatmap.values), heatmap.values, 0.0), smooth)
    threshold = level * float(np.abs(finite).max())
    blurred = np.asarray(Image.fromarray(finite.astype(np.float32)).resize(shape, Image.Resampling.BICUBIC))
    for sign in (1.0, -1.0):
        inside = (sign * blurred > threshold) & (threshold > 0.0)
        edge = inside & ~_eroded(inside)
        # A white line around the coloured one makes it visible on any picture.
        shown[_grown(edge) & ~inside] = 255
        shown[edge] = colours.diverging(np.array([sign * 0.85]), heatmap.palette)[0]
    return Image.fromarray(shown)


def channels(
    relevance: torch.Tensor | ArrayLike,
    names: Sequence[str] = (),
    *,
    percentile: float | None = None,
    limit: float | Scale | None = None,
) -> list[tuple[str, Heatmap]]:
    """A map of each channel of `(C, H, W)`, all on one scale."""
    values = to_array(relevance)
    if values.ndim != 3:
        raise InputError(f"relevance has the shape {values.shape}; channels are shown of (C, H, W).")
    scale = scale_for(values, percentile=percentile, limit=limit, pictures=True)
    labels = list(names) or [f"channel {c}" for c in range(len(values))]
    if len(labels) != len(values):
        raise InputError(f"{len(labels)} names for {len(values)} channels.")
    return [(label, Heatmap(value, scale)) for label, value in zip(labels, values, strict=True)]


def picture_of(values: torch.Tensor | ArrayLike) -> tuple[Image.Image, str]:
    """A picture from a network's input `(H, W)` or `(C, H, W)`, and what was done to its values, in words.

    Values from 0 to 1 are shown unchanged. Other values are stretched to that range from their smallest and largest,
    because the network's normalisation is not known here. Unless there are 1 or 3 channels, their mean is shown.
    """
    array = to_array(values)
    if array.ndim == 2:
        array = array[None]
    said = ""
    if array.shape[0] not in (1, 3):
        array, said = array.mean(0, keepdims=True), f"mean of {array.shape[0]} channels"
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low < 0.0 or high > 1.0:
        stretched = "values stretched to the range of the screen"
        said = f"{said}; {stretched}" if said else stretched
        array = (array - low) / (high - low if high > low else 1.0)
    pixels = np.round(255 * np.clip(np.nan_to_num(array), 0, 1)).astype(np.uint8).transpose(1, 2, 0)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB"), said


def channel_sum(relevance: torch.Tensor | ArrayLike) -> Floats:
    """A map `(H, W)` of the relevance of one picture.

    Raises:
        InputError: the shape is not that of a map.
    """
    values = to_array(relevance)
    given = values.shape
    if values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 3:
        # A sum of infinities of both signs is NaN, and is shown as such.
        with np.errstate(invalid="ignore", over="ignore"):
            values = values.sum(axis=0)
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(f"relevance has the shape {given}; a map is drawn of (H, W), (C, H, W) or (1, C, H, W).")
    return values


def _blurred(values: Floats, sigma: float) -> Floats:
    """A Gaussian blur, which Pillow does not have for floats."""
    if sigma <= 0:
        return values
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        padding = [(reach, reach) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(values, padding, mode="edge")
        values = np.apply_along_axis(lambda line: np.convolve(line, kernel, "valid"), axis, padded)
    return values


def _eroded(mask: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MinFilter(5))) > 0


def _grown(mask: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(3))) > 0
