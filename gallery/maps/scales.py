"""Scales and palettes, and maps with nothing to see."""

from __future__ import annotations

import torch

from gallery.catalogue import entry, headed
from gallery.maps.photographs import explained
from relprop.rendering import Drawing, Heatmap, Panel, Scale, strip


@entry("Scales", "The same map on three scales")
def scales() -> Drawing:
    """Without clipping, on the usual scale, and on a scale that is too large. The note under each says so."""
    R, _ = explained("coffee.png")
    largest = Heatmap.of(R.values[0], percentile=100)
    wide = Heatmap(largest.values, Scale.fixed(50 * largest.limit))
    panels = [Panel(h, name) for name, h in (("largest", largest), ("usual", Heatmap.of(R.values[0])), ("fixed", wide))]
    return headed(strip(panels, height=220), R)


@entry("Scales", "Palettes")
def palettes() -> Drawing:
    """Red and blue, orange and purple, and grey, which shows sizes only. Luminance is the same in all three."""
    R, _ = explained("coffee.png", composite="epsilon_alpha2_beta1_flat")
    names = ("red_blue", "orange_purple", "grey")
    panels = [Panel(Heatmap.of(R.values[0], palette=n), n) for n in names]
    return headed(strip(panels, height=220), R)


@entry("Scales", "Empty, constant and broken maps")
def odd() -> Drawing:
    """All zero, constant, not a number, a single pixel: each is drawn, and the note says what it is. (These are made up.)"""
    made_up = {
        "zeros": torch.zeros(8, 8),
        "constant": torch.full((8, 8), -0.5),
        "NaN": torch.where(torch.eye(8) > 0, torch.nan, 0.2),
        "one pixel": torch.tensor([[1.0]]),
    }
    return strip([Panel(Heatmap.of(values), name) for name, values in made_up.items()], height=140)
