"""Photographs: which pixels made a network see what it saw."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

import relprop
from gallery import data, networks
from gallery.catalogue import entry, headed, numbers
from relprop import Composite, Contrast, Epsilon, Gamma, Relevance
from relprop.rendering import Drawing, Heatmap, Options, Panel, channels, column, contour, grid, overlay, strip
from relprop.results.picture import drawing
from relprop.zoo.images import preprocess, square

# `gamma_flat` without the flat first layer, which would share relevance out evenly among channels.
GAMMA = Composite({"conv": Gamma(0.25), "linear": Epsilon()}, name="gamma")


def seen(name: str, size: int = 224) -> tuple[Image.Image, Tensor]:
    """The part of a photograph that a network sees, and its tensor."""
    photograph = data.photograph(name)
    return square(photograph, size), preprocess(photograph, size)


def explained(name: str, target: object = None, composite: Composite | str = "auto") -> tuple[Relevance, Image.Image]:
    """A photograph explained, and the part of it that was seen."""
    picture, x = seen(name)
    return relprop.attribute(networks.efficientnet(0), x, target, composite=composite), picture


@entry("Photographs", "A cup of coffee is an espresso")
def coffee() -> Drawing:
    """The picture, the relevance on it, and the relevance alone. Red spoke for espresso: the liquid, its edge and the cup's
    rim. The merged biases of this network keep most of the score, as the bar shows.
    """
    R, picture = explained("coffee.png")
    return drawing(R, Options(pictures=picture))


@entry("Photographs", "Contours around what is relevant")
def cat() -> Drawing:
    """The lines enclose where the blurred relevance exceeds a quarter of its maximum: first the eyes, then the nose."""
    R, picture = explained("chelsea.png")
    heatmap = Heatmap.of(R.values[0])
    outlined = contour(heatmap, picture, size=448)
    return headed(strip([Panel(outlined, "contours", smooth=True), Panel(heatmap, "relevance")], height=320), R)


@entry("Photographs", "Why an espresso and not a cup?")
def contrast() -> Drawing:
    """Two classes, and their difference. There is hardly any blue: whatever speaks for the cup speaks even more for the
    espresso.
    """
    model = networks.efficientnet(0)
    picture, x = seen("coffee.png")
    found = relprop.attribute_each(model, x, [967, 968, Contrast(967, 968)])
    names = ["espresso", "cup", "espresso rather than cup"]
    panels = [Panel(picture, "input", smooth=True)]
    panels += [Panel(Heatmap.of(R.values[0]), f"{name}\n{numbers(R)}") for name, R in zip(names, found, strict=True)]
    return strip(panels, height=200)


@entry("Photographs", "What spoke for, and what against")
def signs() -> Drawing:
    """The positive and the negative part on one scale: with epsilon on every layer, they are equally large, and noisy."""
    R, picture = explained("rocket.jpg", composite="epsilon")
    heatmap = Heatmap.of(R.values[0])
    panels = [Panel(picture, "input", smooth=True), Panel(heatmap.part(1), "for"), Panel(heatmap.part(-1), "against")]
    return headed(strip(panels, height=240), R)


@entry("Photographs", "One map for each colour")
def colours() -> Drawing:
    """Relevance of the red, green and blue channel on one scale. Green holds the most; in red, positive and negative alternate."""
    R, picture = explained("coffee.png", composite=GAMMA)
    parts = channels(R.values[0], ["red", "green", "blue"])
    panels = [Panel(heatmap, name) for name, heatmap in parts]
    return headed(strip([Panel(picture, "input", smooth=True), *panels], height=180), R)


@entry("Photographs", "Targets by composites")
def targets_by_composites() -> Drawing:
    """Rows are classes, columns are composites. Each map has its own scale, because they differ by orders of magnitude."""
    model = networks.efficientnet(0)
    picture, x = seen("coffee.png")
    composites = ["auto", "epsilon_plus_flat", "epsilon_alpha2_beta1_flat", "epsilon"]
    columns = [relprop.attribute_each(model, x, [967, 504], composite=name) for name in composites]
    maps = [[Heatmap.of(found[target].values[0]) for found in columns] for target in range(2)]
    rows = [
        f"{name}, {float(R.score):.1f}" for name, R in zip(("espresso", "coffee mug"), columns[0], strict=True)
    ]  # the score is that of the output, whatever the composite
    return grid(maps, rows=rows, columns=composites, picture=picture)


@entry("Photographs", "Three networks look at one dog")
def three_networks() -> Drawing:
    """EfficientNet-Lite 0, 1 and 2, each on the picture size it was trained for. All three rely on the spots."""
    photograph, label = data.imagenet()[16]
    panels = [Panel(square(photograph), "input", smooth=True)]
    for variant in range(3):
        model = networks.efficientnet(variant)
        R = relprop.attribute(model, preprocess(photograph, model.size), label)
        heatmap = Heatmap.of(R.values[0])
        shown = overlay(heatmap, square(photograph, model.size))
        panels.append(Panel(shown, f"Lite{variant}: {model.labels[label]}\n{numbers(R)}", heatmap))
    return strip(panels, height=200)


@entry("Photographs", "A mistake, explained")
def mistake() -> Drawing:
    """The first picture that the network gets wrong: what spoke for its answer, and what for the right one."""
    model = networks.efficientnet(0)
    for photograph, label in data.imagenet():
        x = preprocess(photograph)
        with torch.no_grad():
            said = int(model(x).argmax())
        if said != label:
            break
    found = relprop.attribute_each(model, x, [said, label, Contrast(said, label)])
    names = [f"said: {model.labels[said]}", f"is: {model.labels[label]}", "the one rather than the other"]
    panels = [Panel(square(photograph), "input", smooth=True)]
    panels += [Panel(Heatmap.of(R.values[0]), f"{name}\n{numbers(R)}") for name, R in zip(names, found, strict=True)]
    return strip(panels, height=200)


@entry("Photographs", "Six pictures of ImageNet")
def six() -> Drawing:
    """Each picture is explained for its own class, and each map has its own scale."""
    model = networks.efficientnet(0)
    rows = []
    chosen = [data.imagenet()[i] for i in (3, 6, 10, 14, 17, 19)]
    for part in (chosen[:3], chosen[3:]):
        panels = []
        for photograph, label in part:
            R = relprop.attribute(model, preprocess(photograph), label)
            heatmap, picture = Heatmap.of(R.values[0]), square(photograph)
            caption = f"{model.labels[label]}\n{numbers(R)}"
            panels += [Panel(picture, caption, smooth=True), Panel(overlay(heatmap, picture), "", heatmap)]
        rows.append(strip(panels, height=160))
    return column(rows)
