"""Series: which moments counted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import relprop
from gallery import data, networks
from gallery.catalogue import entry, headed
from gallery.maps.photographs import GAMMA
from relprop import Contrast
from relprop.rendering import Drawing, column, series, titled


def trained_series(name: str, epochs: int = 40) -> tuple[nn.Module, Tensor, Tensor, list[str], str]:
    """A network for series, and series it has not seen, with the names of their classes and how often it is right."""
    torch.manual_seed(0)
    (x, y, x_test, y_test), names = data.series(name)
    model = networks.fit(networks.for_series(x.shape[1], len(names)), x, y, epochs, batch=16)
    right = networks.accuracy(model, x_test, y_test)
    return model, x_test, y_test, names, f"test accuracy {right:.1%}, {len(names)} classes"


@entry("Series", "A gun drawn, or a finger pointed")
def gun() -> Drawing:
    """GunPoint: the height of a hand over time. One sample of each class, each for its own class rather than the other."""
    model, x, y, _, said = trained_series("GunPoint", 120)
    parts = []
    for label, what in enumerate(("gun rather than point", "point rather than gun")):
        one = x[y == label][:1]
        R = relprop.attribute(model, one, Contrast(label, 1 - label), composite=GAMMA)
        parts.append(headed(series(R.values[0], one[0], high=110), R, what))
    return titled(column(parts, 10), "", lines=[said])


@entry("Series", "Six channels of movement")
def movement() -> Drawing:
    """BasicMotions: accelerometer and gyroscope of a watch, ten samples a second, while somebody walks."""
    model, x, y, names, said = trained_series("BasicMotions")
    label = next(i for i, name in enumerate(names) if name.lower() == "walking")
    one = x[y == label][:1]
    R = relprop.attribute(model, one, label, composite=GAMMA)
    channels = ["accel. x", "accel. y", "accel. z", "gyro. x", "gyro. y", "gyro. z"]
    return headed(series(R.values[0], one[0], names=channels, rate=10), R, "walking", said)


@entry("Series", "Power over a day")
def power() -> Drawing:
    """ItalyPowerDemand: 24 hours of power in Italy, from one half of the year or the other. The evening tells them apart."""
    model, x, y, _, said = trained_series("ItalyPowerDemand")
    parts = []
    for label in (0, 1):
        one = x[y == label][3:4]
        R = relprop.attribute(model, one, label, composite=GAMMA)
        parts.append(headed(series(R.values[0], one[0], wide=520, high=100), R, f"class {label + 1}, by the hour"))
    return titled(column(parts, 10), "", lines=[said])
