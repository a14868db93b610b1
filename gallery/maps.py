"""The maps of the gallery, in the order of the page: each function draws one and says what is seen."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import relprop
from gallery import data, networks
from relprop import Composite, Contrast, Epsilon, Flat, Gamma, Relevance, first
from relprop.rendering import (
    Drawing,
    Heatmap,
    Options,
    Panel,
    Scale,
    TokenMap,
    audio,
    bars,
    channel_bars,
    channels,
    column,
    contour,
    grid,
    layer_bars,
    overlay,
    row,
    series,
    strip,
    views,
    volume,
    waterfall,
)
from relprop.rendering.drawing import titled
from relprop.rendering.image import picture_of
from relprop.zoo.images import preprocess, square

# Of the heavy-tailed maps of photographs this leaves 251 of 224 x 224 pixels beyond the scale; each map says so.
CLIPPED = 99.5
# `gamma_flat` without the flat first layer, which would share relevance out evenly among channels.
GAMMA = Composite({"conv": Gamma(0.25), "linear": Epsilon()}, name="gamma")


@dataclass(frozen=True)
class Map:
    """An entry: its chapter, heading, what is seen, and how it is drawn."""

    chapter: str
    title: str
    text: str
    draw: Callable[[], Drawing]


MAPS: list[Map] = []


def entry(chapter: str, title: str) -> Callable[[Callable[[], Drawing]], Callable[[], Drawing]]:
    """Adds a map; what is seen on it is the function's documentation."""

    def add(draw: Callable[[], Drawing]) -> Callable[[], Drawing]:
        MAPS.append(Map(chapter, title, " ".join((draw.__doc__ or "").split()), draw))
        return draw

    return add


def seen(name: str, size: int = 224) -> tuple[Image.Image, Tensor]:
    """The part of a photograph that a network sees, and its tensor."""
    photograph = data.photograph(name)
    return square(photograph, size), preprocess(photograph, size)


def explained(name: str, target: object = None, composite: Composite | str = "auto") -> tuple[Relevance, Image.Image]:
    """A photograph explained, and the part of it that was seen."""
    picture, x = seen(name)
    return relprop.attribute(networks.efficientnet(0), x, target, composite=composite), picture


def clipped(R: Relevance) -> Heatmap:
    """The map of a photograph, its scale clipped."""
    return Heatmap.of(R.values[0], percentile=CLIPPED)


# ----------------------------------------------------------------------------------------------------- photographs


@entry("Photographs", "A cup of coffee is an espresso")
def coffee() -> Drawing:
    """The picture, relevance on it, relevance alone. Red spoke for espresso: the liquid, its edge and the cup's rim."""
    R, picture = explained("coffee.png")
    return views.drawing(R, Options(percentile=CLIPPED, pictures=picture))


@entry("Photographs", "Contours around what is relevant")
def cat() -> Drawing:
    """A quarter of the largest blurred relevance: the eyes make the cat, then the nose."""
    R, picture = explained("chelsea.png")
    heatmap = clipped(R)
    outlined = contour(heatmap, picture, size=448)
    return strip([Panel(outlined, "contours", smooth=True), Panel(heatmap, "relevance")], height=320)


@entry("Photographs", "Why an espresso and not a cup?")
def contrast() -> Drawing:
    """Two classes, and their difference. There is hardly any blue: nothing here speaks for the cup that does not speak more
    for the espresso.
    """
    model = networks.efficientnet(0)
    picture, x = seen("coffee.png")
    found = relprop.attribute_each(model, x, [967, 968, Contrast(967, 968)])
    names = ["espresso", "cup", "espresso rather than cup"]
    panels = [Panel(picture, "input", smooth=True)]
    for name, R in zip(names, found, strict=True):
        heatmap = clipped(R)
        panels.append(Panel(heatmap, f"{name}\nscore {float(R.score):.2f}"))
    return strip(panels, height=200)


@entry("Photographs", "What spoke for, and what against")
def signs() -> Drawing:
    """The positive and the negative part on one scale: with epsilon on every layer they are of one size, and noisy."""
    R, picture = explained("rocket.jpg", composite="epsilon")
    heatmap = clipped(R)
    panels = [Panel(picture, "input", smooth=True), Panel(heatmap.part(1), "for"), Panel(heatmap.part(-1), "against")]
    return strip(panels, height=240)


@entry("Photographs", "One map for each colour")
def colours() -> Drawing:
    """Relevance of the red, green and blue channel on one scale."""
    R, picture = explained("coffee.png")
    parts = channels(R.values[0], ["red", "green", "blue"], percentile=CLIPPED)
    panels = [Panel(heatmap, name) for name, heatmap in parts]
    return strip([Panel(picture, "input", smooth=True), *panels], height=180)


@entry("Photographs", "Targets by composites")
def targets_by_composites() -> Drawing:
    """Rows are classes, columns are composites. Each map has its own scale, for their sizes differ by orders of magnitude."""
    model = networks.efficientnet(0)
    picture, x = seen("coffee.png")
    composites = ["auto", "epsilon_plus_flat", "epsilon_alpha2_beta1_flat", "epsilon"]
    columns = [relprop.attribute_each(model, x, [967, 504], composite=name) for name in composites]
    maps = [[clipped(found[target]) for found in columns] for target in range(2)]
    return grid(maps, rows=["espresso", "coffee mug"], columns=composites, picture=picture)


@entry("Photographs", "Three networks look at one dog")
def three_networks() -> Drawing:
    """EfficientNet-Lite 0, 1 and 2: what grows with the network is not only the score."""
    photograph, label = data.imagenet()[16]
    panels = []
    for variant in range(3):
        model = networks.efficientnet(variant)
        x = preprocess(photograph, model.size)
        R = relprop.attribute(model, x, label)
        heatmap = clipped(R)
        shown = overlay(heatmap, square(photograph, model.size))
        panels.append(Panel(shown, f"Lite{variant}: {model.labels[label]}\nscore {float(R.score):.2f}", heatmap))
    return strip([Panel(square(photograph), "input", smooth=True), *panels], height=200)


@entry("Photographs", "A mistake, explained")
def mistake() -> Drawing:
    """The first picture of the set that the network gets wrong: what it took for its answer, and what spoke for the truth."""
    model = networks.efficientnet(0)
    for photograph, label in data.imagenet():
        x = preprocess(photograph)
        with torch.no_grad():
            said = int(model(x).argmax())
        if said != label:
            break
    wrong, right, difference = relprop.attribute_each(model, x, [said, label, Contrast(said, label)])
    panels = [Panel(square(photograph), "input", smooth=True)]
    for name, R in (
        (f"said: {model.labels[said]}", wrong),
        (f"is: {model.labels[label]}", right),
        ("the one rather than the other", difference),
    ):
        heatmap = clipped(R)
        panels.append(Panel(heatmap, f"{name}\nscore {float(R.score):.2f}"))
    return strip(panels, height=200)


@entry("Photographs", "Six pictures of ImageNet")
def six() -> Drawing:
    """Each with its own class and its own scale."""
    model = networks.efficientnet(0)
    rows = []
    chosen = [data.imagenet()[i] for i in (3, 6, 10, 14, 17, 19)]
    for part in (chosen[:3], chosen[3:]):
        panels = []
        for photograph, label in part:
            heatmap = clipped(relprop.attribute(model, preprocess(photograph), label))
            picture = square(photograph)
            panels += [Panel(picture, model.labels[label], smooth=True), Panel(overlay(heatmap, picture), "", heatmap)]
        rows.append(strip(panels, height=150))
    return column(rows)


# ----------------------------------------------------------------------------------------------------------- rules


@entry("Rules", "Gamma, from none to much")
def gammas() -> Drawing:
    """The larger gamma, the more positive contributions win: noise fades, and so does what speaks against."""
    panels = []
    for gamma in (0.0, 0.05, 0.1, 0.25, 1.0):
        composite = Composite({first: Flat(), "conv": Gamma(gamma), "linear": Epsilon()}, name=f"gamma {gamma:g}")
        R, _ = explained("chelsea.png", composite=composite)
        heatmap = clipped(R)
        panels.append(Panel(heatmap, f"gamma {gamma:g}\nresidual {float(R.residual / R.score):.0%} of the score"))
    return strip(panels, height=170)


@entry("Rules", "Eight composites")
def eight() -> Drawing:
    """One cat, one class, eight ways to ask. Scales are each map's own, clipped at the same percentile."""
    low, high = torch.full((1, 3, 1, 1), -127 / 128), torch.full((1, 3, 1, 1), 1.0)
    composites: list[Composite | str] = [
        "gamma_flat", relprop.composites.epsilon_gamma_box(low, high), "epsilon_plus_flat", "epsilon_alpha2_beta1_flat",
        "epsilon_plus", "excitation_backprop", "epsilon", "zero",
    ]  # fmt: skip
    found = [explained("chelsea.png", composite=composite)[0] for composite in composites]
    panels = [Panel(clipped(R), R.composite.name) for R in found]
    return column([strip(panels[:4], height=170), strip(panels[4:], height=170)])


@entry("Rules", "Gradients and their relatives")
def gradients() -> Drawing:
    """What is not relevance, for comparison: these do not add up to the score."""
    panels = []
    for name in ("gradient", "guided_backprop", "deconvnet", "beta_smooth", "gamma_flat"):
        R, _ = explained("coffee.png", composite=name)
        panels.append(Panel(clipped(R), name))
    return strip(panels, height=170)


@entry("Rules", "A rule for a part of the network")
def parts() -> Drawing:
    """Composites combine: a strong gamma in the first blocks only, or in the last ones only. It matters where it is."""
    base = relprop.composites.gamma_flat(gamma=0.1)
    early = Composite({relprop.path("blocks.[0-5].*"): Gamma(2.0)}, name="early")
    late = Composite({relprop.path("blocks.1[0-5].*"): Gamma(2.0)}, name="late")
    panels = []
    for name, composite in (
        ("gamma 0.1", base),
        ("2 in blocks 0 to 5", early | base),
        ("2 in blocks 10 to 15", late | base),
    ):
        R, _ = explained("coffee.png", composite=composite)
        panels.append(Panel(clipped(R), name))
    return strip(panels, height=220)


# --------------------------------------------------------------------------------------------------- honest scales


@entry("Scales", "The same map on three scales")
def scales() -> Drawing:
    """Nothing clipped; clipped at a percentile, which the note says; and on a scale that is too large, which it says too."""
    R, _ = explained("coffee.png")
    largest = Heatmap.of(R.values[0])
    wide = Heatmap(largest.values, Scale.fixed(50 * largest.limit))
    panels = [Panel(h, name) for name, h in (("largest", largest), ("percentile", clipped(R)), ("fixed", wide))]
    return strip(panels, height=220)


@entry("Scales", "Palettes")
def palettes() -> Drawing:
    """Red and blue, orange and purple, and grey, which shows sizes only. Luminance is the same in all three."""
    R, _ = explained("coffee.png", composite="epsilon_alpha2_beta1_flat")
    names = ("red_blue", "orange_purple", "grey")
    return strip([Panel(Heatmap.of(R.values[0], percentile=CLIPPED, palette=n), n) for n in names], height=220)


@entry("Scales", "Maps that are none")
def odd() -> Drawing:
    """All zero, constant, not a number, a single pixel: drawn, and named."""
    maps = [
        torch.zeros(8, 8),
        torch.full((8, 8), -0.5),
        torch.where(torch.eye(8) > 0, torch.nan, 0.2),
        torch.tensor([[1.0]]),
    ]
    heatmaps = [Heatmap.of(values) for values in maps]
    return strip(
        [Panel(h, n) for h, n in zip(heatmaps, ("zeros", "constant", "NaN", "one pixel"), strict=True)],
        height=140,
    )


# ---------------------------------------------------------------------------------------------------------- digits


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
    """A LeNet, trained here in seconds. With epsilon, pixels that are exactly 0 get no relevance: strokes alone speak."""
    model, x, y = digit_network()
    panels = []
    for number in range(10):
        heatmap = Heatmap.of(relprop.attribute(model, digit(number), number, composite="epsilon").values[0])
        panels.append(Panel(heatmap, str(number)))
    said = f"test accuracy {networks.accuracy(model, x, y):.1%}"
    return titled(column([strip(panels[:5], height=112), strip(panels[5:], height=112)]), "", lines=[said])


@entry("Digits", "Why a 4, and not a 9?")
def four() -> Drawing:
    """The bar speaks for the 4, the upper end of the right stroke for the 9."""
    model, _, _ = digit_network()
    x = digit(4, 1)
    panels = [Panel(picture_of(x[0])[0], "input")]
    for name, target in (("4", 4), ("9", 9), ("4 rather than 9", Contrast(4, 9))):
        R = relprop.attribute(model, x, target, composite="epsilon")
        panels.append(Panel(Heatmap.of(R.values[0]), f"{name}\nscore {float(R.score):.2f}"))
    return strip(panels, height=196)


@entry("Digits", "One digit, all classes, one scale")
def all_classes() -> Drawing:
    """A 7: what speaks for and against each class, on a shared scale, so that maps can be compared."""
    model, _, _ = digit_network()
    found = relprop.attribute_each(model, digit(7), list(range(10)), composite="epsilon")
    maps = [Heatmap.of(R.values[0]) for R in found]
    labels = [f"{n}: {float(R.score):.1f}" for n, R in enumerate(found)]
    scale = Scale.of(*(m.values for m in maps))
    shared = [[Heatmap(m.values, scale) for m in maps[i : i + 5]] for i in (0, 5)]
    panels = [
        [Panel(m, label) for m, label in zip(line, labels[i : i + 5], strict=True)]
        for line, i in zip(shared, (0, 5), strict=True)
    ]
    return titled(column([strip(line, height=112) for line in panels]), "", lines=[f"scale {scale.how}"])


# ---------------------------------------------------------------------------------------------------------- layers


@entry("Layers", "Where relevance goes on its way")
def flow() -> Drawing:
    """Positive and negative relevance of each block's output, and their sum as a mark. The dashed line is the score: what is
    missing or too much, merged biases took or gave.
    """
    _, x = seen("coffee.png")
    R = relprop.attribute(networks.efficientnet(0), x, layers=["stem", "blocks.*", "head"])
    names = [n for n in R.layers if n in ("stem", "head") or re.fullmatch(r"blocks\.\d+", n)]
    return layer_bars({name: R.layers[name][0] for name in names}, float(R.score))


@entry("Layers", "Channels of the last layer")
def head_channels() -> Drawing:
    """The 15 channels of the head that hold the most, of 1,280."""
    _, x = seen("coffee.png")
    R = relprop.attribute(networks.efficientnet(0), x, layers=["head"])
    return channel_bars(R.layers["head"][0])


@entry("Layers", "Maps of hidden layers")
def hidden() -> Drawing:
    """Relevance of the outputs of five blocks, summed over channels: pixels are the layer's own."""
    picture, x = seen("coffee.png")
    names = [f"blocks.{i}" for i in (0, 2, 4, 10, 15)]
    R = relprop.attribute(networks.efficientnet(0), x, layers=names)
    panels = [Panel(picture, "input", smooth=True)]
    for name in names:
        heatmap = Heatmap.of(R.layers[name][0])
        panels.append(Panel(heatmap, f"{name}, {heatmap.values.shape[0]} x {heatmap.values.shape[1]}"))
    return strip(panels, height=150)


# ---------------------------------------------------------------------------------------------------------- series


def trained_series(name: str, epochs: int = 40) -> tuple[nn.Module, Tensor, Tensor, list[str]]:
    """A network for series, and series it has not seen, with the names of their classes."""
    torch.manual_seed(0)
    (x, y, x_test, y_test), names = data.series(name)
    model = networks.fit(networks.for_series(x.shape[1], len(names)), x, y, epochs, batch=16)
    return model, x_test, y_test, names


@entry("Series", "A gun drawn, or a finger pointed")
def gun() -> Drawing:
    """GunPoint: the height of a hand over time. One sample of each class, each for its own class rather than the other."""
    model, x, y, _ = trained_series("GunPoint")
    parts = []
    for label, name in ((0, "gun"), (1, "point")):
        one = x[y == label][:1]
        R = relprop.attribute(model, one, Contrast(label, 1 - label), composite=GAMMA)
        parts.append(titled(series(R.values[0], one[0], high=110), f"{name}: score {float(R.score):.2f}"))
    return column(parts, 4)


@entry("Series", "Six channels of movement")
def movement() -> Drawing:
    """BasicMotions: accelerometer and gyroscope of a watch, ten samples a second, while somebody walks."""
    model, x, y, names = trained_series("BasicMotions")
    label = next(i for i, name in enumerate(names) if name.lower() == "walking")
    one = x[y == label][:1]
    R = relprop.attribute(model, one, label, composite=GAMMA)
    return series(
        R.values[0], one[0], names=["accel. x", "accel. y", "accel. z", "gyro. x", "gyro. y", "gyro. z"], rate=10
    )


@entry("Series", "Power over a day")
def power() -> Drawing:
    """ItalyPowerDemand: 24 hours of power in Italy, from one half of the year or the other. The evening tells."""
    model, x, y, _ = trained_series("ItalyPowerDemand")
    parts = []
    for label in (0, 1):
        one = x[y == label][3:4]
        R = relprop.attribute(model, one, label, composite=GAMMA)
        parts.append(
            titled(series(R.values[0], one[0], wide=420, high=100), f"class {label + 1}: score {float(R.score):.2f}")
        )
    return column(parts, 4)


# ---------------------------------------------------------------------------------------------------------- tables


def trained_table(table: tuple[Tensor, Tensor, list[str], list[str]]) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A network for tables; rows it has not seen, as measured and as scaled; and their classes."""
    torch.manual_seed(0)
    x, y, _, classes = table
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    train = len(x) * 3 // 4
    scaled = (x - x[:train].mean(0)) / x[:train].std(0)
    model = networks.fit(networks.for_tables(x.shape[1], len(classes)), scaled[:train], y[:train], 40)
    return model, x[train:], scaled[train:], y[train:]


@entry("Tables", "A biopsy, up to the score")
def biopsy() -> Drawing:
    """Breast cancer: what speaks for malignant rather than benign, in the measured units. Grey is what constants of the
    network absorbed; the bars end at the score.
    """
    table = data.breast_cancer()
    model, raw, scaled, y = trained_table(table)
    n = int((y == 0).nonzero()[2])
    R = relprop.attribute(model, scaled[n : n + 1], Contrast(0, 1), composite="epsilon")
    return waterfall(R.values[0], float(R.score), float(R.residual), table[2], raw[n], most=10)


@entry("Tables", "Three wines")
def wines() -> Drawing:
    """One wine of each grower, explained for its own class: the largest five measurements."""
    table = data.wine()
    model, raw, scaled, y = trained_table(table)
    parts = []
    for label, name in enumerate(table[3]):
        n = int((y == label).nonzero()[0])
        R = relprop.attribute(model, scaled[n : n + 1], label, composite="epsilon")
        shown = bars(R.values[0], table[2], raw[n], most=5, wide=330)
        parts.append(titled(shown, f"{name} grower: score {float(R.score):.2f}"))
    return row(parts, 4)


# ----------------------------------------------------------------------------------------------------------- sound


def tone(pitch: float, strengths: list[float]) -> Tensor:
    """A tone of harmonics of these strengths, as CREPE takes it."""
    time = np.arange(1024) / 16000
    generator = np.random.default_rng(0)
    wave = sum(
        a * np.sin(2 * np.pi * pitch * (i + 1) * time + generator.uniform(0, 6)) for i, a in enumerate(strengths)
    )
    wave = torch.tensor(wave + 0.01 * generator.normal(size=1024), dtype=torch.float32)
    return ((wave - wave.mean()) / wave.std()).view(1, 1, 1024, 1)


@entry("Sound", "The pitch of a tone")
def pitch() -> Drawing:
    """CREPE hears 220 Hz in 64 ms of a tone with six harmonics."""
    return heard(tone(220.0, [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6]))


@entry("Sound", "The pitch that is not there")
def missing() -> Drawing:
    """The same tone without its fundamental: CREPE hears it all the same, out of the harmonics."""
    return heard(tone(220.0, [0, 1, 0.8, 0.6, 0.5, 0.4]))


def heard(x: Tensor) -> Drawing:
    """A tone, explained for the pitch that was heard."""
    R = relprop.attribute(networks.crepe(), x, composite="epsilon_plus")
    said = f"heard: {networks.hertz(R.target[0]):.0f} Hz, score {float(R.score):.2f}, residual {float(R.residual):.2f}"
    return titled(audio(R.values[0], x[0], 16000), "", lines=[said])


# --------------------------------------------------------------------------------------------------------- volumes


@entry("Volumes", "A ball, not a cube")
def ball() -> Drawing:
    """Made-up volumes of 16³: slices with the most relevance, on the volume and alone. Red speaks for the
    ball, blue for a cube.
    """
    torch.manual_seed(0)
    model = networks.fit(networks.for_volumes(), *data.solids(600, 0), 5, batch=32)
    x, y = data.solids(20, 1)
    one = x[y == 0][:1]
    R = relprop.attribute(model, one, Contrast(0, 1))
    said = f"score {float(R.score):.2f}, residual {float(R.residual):.2f}, accuracy {networks.accuracy(model, *data.solids(200, 2)):.0%}"
    return titled(volume(R.values[0], one[0], size=144), "", lines=[said])


# ------------------------------------------------------------------------------------------------------------ text


@cache
def word_network() -> tuple[networks.ForWords, Tensor, Tensor, list[list[str]], list[str]]:
    """The network, and numbers, classes and words of opinions it has not seen."""
    torch.manual_seed(0)
    texts, labels, names = data.tweets()
    numbers = data.vocabulary(texts)
    x = torch.zeros(len(texts), 24, dtype=torch.long)
    for i, words in enumerate(texts):
        x[i, : len(words)] = torch.tensor([numbers.get(word.lower(), 1) for word in words])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, labels, texts = x[order], labels[order], [texts[i] for i in order.tolist()]
    test = len(x) // 5
    model = networks.ForWords(max(numbers.values()) + 1, len(names))
    networks.fit(model, x[test:], labels[test:], 6, batch=128, embed=True)
    return model, x[:test], labels[:test], texts[:test], names


@entry("Text", "Praise or complaint?")
def sentiment() -> Drawing:
    """A small network over embedded words, trained here on short opinions. The two that it is surest of, for each class,
    among those it got right. Lines are solid for and dotted against, so that it reads without colour.
    """
    model, x, labels, texts, names = word_network()
    with torch.no_grad():
        scores = model(model.embedding(x))
    right = (scores.argmax(1) == labels).float().mean()
    long = torch.tensor([len(words) >= 10 for words in texts])
    parts = []
    for label, name in enumerate(names):
        margin = scores[:, label] - scores[:, 1 - label]
        sure = torch.where((labels == label) & (margin > 0) & long, margin, -torch.inf)
        for n in sure.topk(2).indices.tolist():
            embedded = model.embedding(x[n : n + 1]).detach()
            R = relprop.attribute(model, embedded, Contrast(label, 1 - label), composite="epsilon")
            shown = TokenMap.of(texts[n], R.values[0, : len(texts[n])], style="words")
            parts.append(titled(shown.drawing(560), f"{name}: score {float(R.score):.2f}"))
    return titled(column(parts), "", lines=[f"test accuracy {float(right):.1%}, two classes"])
