"""Volumes: which voxels counted."""

from __future__ import annotations

import torch

import relprop
from gallery import data, networks
from gallery.catalogue import entry, headed
from relprop import Contrast
from relprop.rendering import Drawing, volume


@entry("Volumes", "A ball, not a cube")
def ball() -> Drawing:
    """Made-up volumes of 16³: the slices with the most relevance, on the volume and alone. Red speaks for the
    ball, blue for a cube.
    """
    torch.manual_seed(0)
    model = networks.fit(networks.for_volumes(), *data.solids(600, 0), 5, batch=32)
    x, y = data.solids(20, 1)
    one = x[y == 0][:1]
    R = relprop.attribute(model, one, Contrast(0, 1))
    said = f"test accuracy {networks.accuracy(model, *data.solids(200, 2)):.0%}, two classes"
    return headed(volume(R.values[0], one[0], size=144), R, "ball rather than cube", said)
