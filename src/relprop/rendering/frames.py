"""Relevance of volumes and videos as an animation: a frame for each slice, on one scale."""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image

from relprop.errors import InputError
from relprop.rendering.colours import RED_BLUE, Floats, Palette, palette
from relprop.rendering.drawing import Drawing, framed, row
from relprop.rendering.image import Heatmap, overlay, picture_of
from relprop.rendering.panels import Panel, panel
from relprop.rendering.scale import Scale, number, scale_for, to_array
from relprop.rendering.volume import summed

_SIZE = 224
_RATE = 5.0
"""Frames per second."""


def frames(
    relevance: torch.Tensor | ArrayLike,
    values: torch.Tensor | ArrayLike | None = None,
    *,
    percentile: float | None = None,
    limit: float | Scale | None = None,
    colours: Palette | str = RED_BLUE,
) -> list[Drawing]:
    """A drawing for each slice along the first axis of `(D, H, W)` or `(C, D, H, W)`: the slice under its map, and the map.

    Values of three channels are a video in colour.

    Raises:
        InputError: the shapes do not match.
    """
    found = summed(relevance, "relevance")
    cube = None if values is None else _shown(values)
    if cube is not None and cube.shape[:1] + cube.shape[-2:] != found.shape:
        raise InputError(f"relevance has the shape {found.shape}, the volume {cube.shape}: they must be the same.")
    scale = scale_for([found], percentile=percentile, limit=limit)
    low, high = (0.0, 1.0) if cube is None else (float(np.nanmin(cube)), float(np.nanmax(cube)))
    drawn = []
    for i, values_ in enumerate(found):
        heatmap = Heatmap(values_, scale, palette(colours))
        said = f"slice {i} of {len(found)}: {number(float(values_[np.isfinite(values_)].sum()))}"
        panels = [panel(Panel(heatmap, said), height=_SIZE)]
        if cube is not None:
            picture, _ = picture_of((cube[i] - low) / ((high - low) or 1.0))
            panels.insert(0, panel(Panel(overlay(heatmap, picture), "relevance on it", heatmap), height=_SIZE))
            if cube.ndim == 4:  # the overlay is grey
                panels.insert(0, panel(Panel(picture, "input", smooth=True), height=_SIZE))
        drawn.append(framed(row(panels)))
    return drawn


def _shown(values: torch.Tensor | ArrayLike) -> Floats:
    """The slices of a volume (D, H, W), or the frames of a video in colour, (T, 3, H, W)."""
    array = to_array(values)
    coloured = array.ndim == 4 and array.shape[0] == 3
    return np.moveaxis(array, 0, 1) if coloured else summed(array, "the volume")


def gif(drawings: list[Drawing], rate: float | None = None) -> bytes:
    """Drawings as an animated GIF, with `rate` frames per second.

    Raises:
        InputError: there is no drawing, or the rate is not above 0.
    """
    rate = _RATE if rate is None else rate
    if not drawings or not 0 < rate <= 100:
        raise InputError(
            f"an animation has frames, and rate= of them per second, up to 100; got {len(drawings)} and {rate}."
        )
    images = [drawing.to_image() for drawing in drawings]
    size = max(image.width for image in images), max(image.height for image in images)
    sheets = []
    for image in images:
        sheet = Image.new("RGB", size, "white")
        sheet.paste(image, (0, 0))
        sheets.append(sheet.quantize(255, dither=Image.Dither.NONE))
    buffer = io.BytesIO()
    sheets[0].save(
        buffer, format="GIF", save_all=True, append_images=sheets[1:], duration=round(1000 / rate), loop=0, disposal=2
    )
    return buffer.getvalue()
