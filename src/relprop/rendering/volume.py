"""Relevance of volumes: the slices with the most relevance, on one scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike

from relprop.errors import InputError
from relprop.rendering.colours import RED_BLUE, Floats, Palette, palette
from relprop.rendering.drawing import Drawing, column, row, wrapped
from relprop.rendering.image import Heatmap, overlay, picture_of
from relprop.rendering.legend import colour_bar
from relprop.rendering.marks import FAINT, SMALL, Mark, Text
from relprop.rendering.panels import Panel, panel
from relprop.rendering.scale import Scale, note, number, scale_for, to_array


def volume(
    relevance: torch.Tensor | ArrayLike,
    values: torch.Tensor | ArrayLike | None = None,
    *,
    axis: int = 0,
    slices: int = 5,
    percentile: float | None = None,
    limit: float | Scale | None = None,
    colours: Palette | str = RED_BLUE,
    size: int = 128,
) -> Drawing:
    """Draws slices of `(D, H, W)` or `(C, D, H, W)`, whose channels are summed.

    Args:
        relevance: the relevance of each voxel.
        values: the volume. Its slices, tinted by relevance, are drawn above the maps.
        axis: the axis across which it is cut: 0, 1 or 2.
        slices: the number of slices. Those with the largest sum of absolute relevance are drawn, in order.
        percentile: end of the scale, as a percentile of absolute relevance in the whole volume.
        limit: end of the scale.
        colours: the palette, or its name.
        size: the height of a slice in pixels.

    Raises:
        InputError: the shapes do not match, or there is no such axis, palette or scale.
    """
    found = summed(relevance, "relevance")
    if axis not in (0, 1, 2) or slices < 1:
        raise InputError(f"axis is {axis}, slices {slices}; a volume is cut across axis 0, 1 or 2, at least once.")
    cube = None if values is None else summed(values, "the volume")
    if cube is not None and cube.shape != found.shape:
        raise InputError(f"relevance has the shape {found.shape}, the volume {cube.shape}: they must be the same.")
    scale = scale_for([found], percentile=percentile, limit=limit, pictures=True)
    stack = np.moveaxis(found, axis, 0)
    sizes = np.where(np.isfinite(stack), np.abs(stack), 0.0)
    strength = sizes.sum(axis=(1, 2))
    chosen = sorted(np.argsort(-strength, kind="stable")[:slices].tolist())
    maps = [Heatmap(stack[i], scale, palette(colours)) for i in chosen]
    captions = [f"slice {i}: {number(float(stack[i][np.isfinite(stack[i])].sum()))}" for i in chosen]
    rows: list[Drawing] = []
    if cube is not None:
        cut = np.moveaxis(cube, axis, 0)
        # One range for all slices: with its own range, an empty slice would show its noise.
        finite = cube[np.isfinite(cube)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        pictures = [picture_of((np.clip(cut[i], low, high) - low) / ((high - low) or 1.0))[0] for i in chosen]
        tinted = [
            panel(Panel(overlay(m, p), heatmap=m), height=size, bar=False) for m, p in zip(maps, pictures, strict=True)
        ]
        rows.append(row(tinted, 8))
    shown = [panel(Panel(m, c), height=size, bar=False) for m, c in zip(maps, captions, strict=True)]
    rows.append(row(shown, 8))
    held = float(strength[chosen].sum() / strength.sum()) if strength.sum() > 0 else 1.0
    said = f"{len(chosen)} of {len(stack)} slices, with {held:.0%} of the relevance by size"
    if extra := note(found, scale, "voxel"):
        said = f"{said}; {extra}"
    body = column(rows, 4)
    bar = colour_bar(min(280, body.width), scale, colours)
    legend: list[Mark] = list(bar.marks)
    wide = max(body.width, bar.width)
    beside = wide - bar.width > 200
    x, y = (bar.width + 12, 0.0) if beside else (0.0, 28.0)
    for line in wrapped(said, wide - x, SMALL):
        legend.append(Text(x, y, line, SMALL, FAINT))
        y += SMALL + 4
    foot = Drawing(wide, max(bar.height, y), tuple(legend))
    return replace(column([body, foot], 8), description=f"Slices of a volume: {', '.join(captions)}.")


def summed(values: torch.Tensor | ArrayLike, what: str) -> Floats:
    """A volume (D, H, W): channels are summed.

    Raises:
        InputError: it has another shape.
    """
    array = to_array(values)
    if array.ndim == 4:
        with np.errstate(invalid="ignore", over="ignore"):
            array = array.sum(0)
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(f"{what} has the shape {array.shape}; a volume is (D, H, W) or (C, D, H, W).")
    return array
