"""Patches, attended to by a small vision transformer that is trained here."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

import relprop
from gallery import data, networks
from gallery.catalogue import entry, headed, numbers
from relprop import Contrast
from relprop.rendering import Drawing, Heatmap, Panel, column, layer_bars, strip, titled
from relprop.rendering.image import picture_of


@cache
def transformer() -> tuple[nn.Module, Tensor, Tensor]:
    """A vision transformer for digits, and digits it has not seen."""
    torch.manual_seed(0)
    x, y, x_test, y_test = data.digits()
    return networks.fit(networks.VisionTransformer(), x, y, 15, batch=32), x_test, y_test


def right(number: int) -> Tensor:
    """A digit that the transformer takes for what it is."""
    model, x, y = transformer()
    some = x[y == number]
    with torch.no_grad():
        return some[model(some).argmax(1) == number][:1]


@entry("A vision transformer", "Five digits, in patches of seven by seven")
def patched() -> Drawing:
    """Three blocks of attention over 16 patches, trained here in half a minute. Above is relevance by `auto`, which handles
    attention; below by `zero`, which is noisier.
    """
    model, x, y = transformer()
    rows = []
    for composite in ("auto", "zero"):
        panels = []
        for number in (0, 2, 3, 5, 8):
            R = relprop.attribute(model, right(number), number, composite=composite)
            panels.append(Panel(Heatmap.of(R.values[0]), f"{number}\n{numbers(R)}"))
        rows.append(titled(strip(panels, height=150), "", lines=[R.composite.name]))
    return titled(column(rows), "", lines=[f"test accuracy {networks.accuracy(model, x, y):.1%}"])


@entry("A vision transformer", "Why a 3, and not an 8?")
def three() -> Drawing:
    """The stroke in the middle and the open end on the left speak for the 3, and against the 8."""
    model, _, _ = transformer()
    x = right(3)
    found = relprop.attribute_each(model, x, [3, 8, Contrast(3, 8)])
    panels = [Panel(picture_of(x[0])[0], "input")]
    for name, R in zip(("3", "8", "3 rather than 8"), found, strict=True):
        panels.append(Panel(Heatmap.of(R.values[0]), f"{name}\n{numbers(R)}"))
    return titled(strip(panels, height=196), "", lines=[found[0].composite.name])


@entry("A vision transformer", "Relevance in its blocks")
def blocks() -> Drawing:
    """Positive and negative relevance of the output of each block; the black mark is their sum, the dashed line the score."""
    model, _, _ = transformer()
    R = relprop.attribute(model, right(3), 3, layers=["patches", "blocks.*"])
    names = ["patches", *(f"blocks.{i}" for i in range(3))]
    return headed(layer_bars({name: R.layers[name][0] for name in names}, float(R.score)), R, "the digit 3")
