"""Layers: relevance on its way to the input."""

from __future__ import annotations

import re

import relprop
from gallery import networks
from gallery.catalogue import entry, headed
from gallery.maps.photographs import seen
from relprop.rendering import Drawing, Heatmap, Panel, channel_bars, layer_bars, strip


@entry("Layers", "Where relevance goes on its way")
def flow() -> Drawing:
    """Positive (red) and negative (blue) relevance of each block's output, and their sum as a black mark. The dashed line is
    the score; the difference is what merged biases took or gave.
    """
    _, x = seen("coffee.png")
    R = relprop.attribute(networks.efficientnet(0), x, layers=["stem", "blocks.*", "head"])
    names = [n for n in R.layers if n in ("stem", "head") or re.fullmatch(r"blocks\.\d+", n)]
    return headed(layer_bars({name: R.layers[name][0] for name in names}, float(R.score)), R)


@entry("Layers", "Channels of the last layer")
def head_channels() -> Drawing:
    """The 15 channels of the head that hold the most, of 1,280."""
    _, x = seen("coffee.png")
    R = relprop.attribute(networks.efficientnet(0), x, layers=["head"])
    return headed(channel_bars(R.layers["head"][0]), R)


@entry("Layers", "Maps of hidden layers")
def hidden() -> Drawing:
    """Relevance of the outputs of five blocks, summed over channels, in the resolution of each layer and on its own scale."""
    picture, x = seen("coffee.png")
    names = [f"blocks.{i}" for i in (0, 2, 4, 10, 15)]
    R = relprop.attribute(networks.efficientnet(0), x, layers=names)
    panels = [Panel(picture, "input", smooth=True)]
    for name in names:
        heatmap = Heatmap.of(R.layers[name][0])
        panels.append(Panel(heatmap, f"{name}, {heatmap.values.shape[0]} x {heatmap.values.shape[1]}"))
    return headed(strip(panels, height=150), R)
