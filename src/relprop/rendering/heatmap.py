"""One map of relevance as a picture, by itself or over the picture it is about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image

from relprop.rendering import colours
from relprop.rendering.colours import Bytes, Floats

# The picture's lightness is squeezed into this range: pure black and pure white cannot take a tint.
_PICTURE_LIGHTNESS = (30.0, 92.0)


@dataclass(frozen=True, eq=False)
class Heatmap:
    """A map of relevance, `(H, W)`, and the value that gets the deepest colour.

    Build one with `Heatmap.of`; the limit of another makes the two comparable:
    `Heatmap(heatmap.values, limit=other.limit)`.

    Attributes:
        values: Relevance of each pixel; NaN stays NaN and is drawn yellow.
        limit: The size of relevance that is drawn in the deepest red or blue; everything beyond it, too.
    """

    values: Floats
    limit: float

    @classmethod
    def of(cls, relevance: torch.Tensor | ArrayLike, *, percentile: float | None = None) -> Heatmap:
        """Sum the channels of `(H, W)`, `(C, H, W)` or `(1, C, H, W)`, and scale by the largest size.

        Args:
            relevance: The relevance of one picture.
            percentile: Scale by this percentile of the sizes instead, which clips what is beyond it. Few
                extreme pixels then no longer leave the rest pale, but the deepest colour hides differences:
                say so where you show it.
        """
        values = _channel_sum(relevance)
        sizes = np.abs(values[np.isfinite(values)])
        if sizes.size == 0:
            return cls(values, 0.0)
        if percentile is None:
            return cls(values, float(sizes.max()))
        if not 0.0 < percentile <= 100.0:
            raise ValueError(f"percentile is {percentile}; it lies between 0 and 100")
        return cls(values, float(np.percentile(sizes, percentile)))

    @property
    def clipped(self) -> int:
        """How many finite values lie beyond the limit."""
        return int(np.count_nonzero(np.isfinite(self.values) & (np.abs(self.values) > self.limit)))

    @property
    def note(self) -> str:
        """What one should know of the map before trusting its colours; empty for an ordinary one."""
        finite = np.isfinite(self.values)
        notes = []
        if not finite.all():
            count = self.values.size - int(np.count_nonzero(finite))
            notes.append(f"{count} of {self.values.size} values are not finite")
        if finite.any():
            inside = self.values[finite]
            if not inside.any():
                notes.append("all zero")
            elif inside.size > 1 and inside.min() == inside.max():
                notes.append(f"constant, {inside[0]:.3g} everywhere")
        if self.clipped:
            notes.append(f"{self.clipped} pixel{'s' * (self.clipped > 1)} beyond the scale")
        return "; ".join(notes)

    @property
    def scaled(self) -> Floats:
        """The values as parts of the limit, -1 to 1; NaN where they are not finite, for that has no size."""
        values = np.where(np.isfinite(self.values), self.values, np.nan)
        if self.limit <= 0.0:
            return np.where(np.isnan(values), np.nan, np.sign(values))
        return np.clip(values / self.limit, -1.0, 1.0)

    def image(self) -> Image.Image:
        """Draw the map by itself: white where relevance is 0."""
        return Image.fromarray(colours.diverging(self.scaled))


def overlay(heatmap: Heatmap, picture: Image.Image) -> Image.Image:
    """Draw the picture in grey and let relevance tint it, red for and blue against.

    A tint changes no luminance: what the picture shows stays as visible under strong relevance as under none.
    """
    height, width = heatmap.values.shape
    rgb: Bytes = np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
    low, high = _PICTURE_LIGHTNESS
    lightness = low + (high - low) * colours.lightness_of_luminance(colours.luminance(rgb)) / 100.0
    return Image.fromarray(colours.tinted(heatmap.scaled, colours.luminance_of_lightness(lightness)))


def _channel_sum(relevance: torch.Tensor | ArrayLike) -> Floats:
    if isinstance(relevance, torch.Tensor):
        # bfloat16 has no counterpart in NumPy.
        relevance = relevance.detach().to(device="cpu", dtype=torch.float64).numpy()
    values = np.array(relevance, dtype=np.float64)
    if values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 3:
        # A sum of infinities of both signs is no number, and that is what is shown.
        with np.errstate(invalid="ignore"):
            values = values.sum(axis=0)
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(
            f"relevance has the shape {np.shape(relevance)}; a map is drawn of (H, W), (C, H, W) or (1, C, H, W)"
        )
    return values
