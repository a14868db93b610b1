"""Digits, seen by a small network that is trained here."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

import relprop
from gallery import data, networks
from gallery.catalogue import entry, numbers
from relprop import Contrast
from relprop.rendering import Drawing, Heatmap, Panel, Scale, column, strip, titled
from relprop.rendering.image import picture_of


@cache
def digit_network() -> tuple[nn.Module, Tensor, Tensor]:
    """A LeNet for digits, and digits it has not seen."""
    torch.manual_seed(0)
    x, y, x_test, y_test = data.digits()
    return networks.fit(networks.lenet(), x, y, 5), x_test, y_test


def digit(number: int, nth: int = 0) -> Tensor:
    """The nth digit of a kind, of those not seen in training."""
    _, x, y = digit_network()
    return x[y == number][nth : nth + 1]


@entry("Digits", "Ten digits, each for its own class")
def ten() -> Drawing:
    """A LeNet, trained here in seconds. With epsilon, pixels that are exactly 0 get no relevance, so only strokes have any."""
    model, x, y = digit_network()
    found = [relprop.attribute(model, digit(number), number, composite="epsilon") for number in range(10)]
    panels = [Panel(Heatmap.of(R.values[0]), f"{number}\n{numbers(R)}") for number, R in enumerate(found)]
    said = f"test accuracy {networks.accuracy(model, x, y):.1%}; {found[0].composite.name}"
    return titled(column([strip(panels[:5], height=150), strip(panels[5:], height=150)]), "", lines=[said])


@entry("Digits", "Why a 4, and not a 9?")
def four() -> Drawing:
    """The bar speaks for the 4, the upper end of the right stroke for the 9."""
    model, _, _ = digit_network()
    x = digit(4, 1)
    panels = [Panel(picture_of(x[0])[0], "input")]
    for name, target in (("4", 4), ("9", 9), ("4 rather than 9", Contrast(4, 9))):
        R = relprop.attribute(model, x, target, composite="epsilon")
        panels.append(Panel(Heatmap.of(R.values[0]), f"{name}\n{numbers(R)}"))
    return strip(panels, height=196)


@entry("Digits", "One digit, all classes, one scale")
def all_classes() -> Drawing:
    """A 7: what speaks for and against each class, on a shared scale, so that maps can be compared."""
    model, _, _ = digit_network()
    found = relprop.attribute_each(model, digit(7), list(range(10)), composite="epsilon")
    maps = [Heatmap.of(R.values[0]) for R in found]
    scale = Scale.of(*(m.values for m in maps))
    panels = [
        Panel(Heatmap(m.values, scale), f"class {n}\n{numbers(R)}")
        for n, (m, R) in enumerate(zip(maps, found, strict=True))
    ]
    return column([strip(panels[:5], height=150), strip(panels[5:], height=150)])
