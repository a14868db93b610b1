"""Composites: the same input by one after the other, for each kind of network."""

from __future__ import annotations

import torch

import relprop
from gallery import data
from gallery.catalogue import entry
from gallery.maps.patches import right, transformer
from gallery.maps.photographs import explained, seen
from gallery.maps.series import trained_series
from gallery.maps.tables import trained_table
from gallery.maps.tokens import PROMPT, language_model
from relprop import Composite, Contrast, Gamma, Relevance, ZPlus
from relprop.rendering import Drawing, Heatmap, Options, Panel, column, series, strip, titled
from relprop.rendering.account import percent

CHAPTER = "Composites"
LOW, HIGH = torch.full((1, 3, 1, 1), -127 / 128), torch.full((1, 3, 1, 1), 1.0)


def arrived(R: Relevance) -> str:
    """How much of the score arrived at the inputs, in words."""
    if not R.composite.multiply_by_inputs:
        return "not multiplied by the input"
    return f"{percent(float(R.values.sum() / R.score[0]))} arrived"


@entry(CHAPTER, "A photograph by fifteen composites")
def composites_photograph() -> Drawing:
    """EfficientNet-Lite0 and the cat: what each composite makes of the same network, picture and class. The first is what
    `"auto"` takes. The last two are gradients, which do not add up to anything.
    """
    chosen: list[Composite | str] = [
        "gamma_box", "gamma", "gamma_flat", "epsilon_plus_flat", "epsilon_plus",
        "epsilon_alpha2_beta1_flat", "epsilon_alpha2_beta1", relprop.composites.deep_taylor(LOW, HIGH),
        "excitation_backprop", "beta_smooth", "zero_bias", "epsilon", "zero", "gradient", "guided_backprop",
    ]  # fmt: skip
    found = [explained("chelsea.png", composite=composite)[0] for composite in chosen]
    picture, _ = seen("chelsea.png")
    panels = [Panel(picture, found[0].subject(0), smooth=True)]
    panels += [Panel(Heatmap.of(R.values[0], smooth=2), f"{R.composite.name}\n{arrived(R)}", bar=False) for R in found]
    return column([strip(panels[start : start + 4], height=180) for start in range(0, 16, 4)], 12)


@entry(CHAPTER, "A series by five composites")
def composites_series() -> Drawing:
    """GunPoint: what speaks for a gun that is drawn, rather than a finger that is pointed. A flat first layer blurs time."""
    model, x, y, _, said = trained_series("GunPoint", 120)
    one = x[y == 0][:1]
    parts = []
    for name in ("gamma", "epsilon_plus", "gamma_flat", "epsilon", "zero"):
        R = relprop.attribute(model, one, Contrast(0, 1), composite=name)
        parts.append(titled(series(R.values[0], one[0], high=70), f"{name}, {arrived(R)}"))
    return titled(column(parts, 8), "", lines=[said])


@entry(CHAPTER, "A vision transformer by four composites")
def composites_transformer() -> Drawing:
    """A small vision transformer and a 3, for its own class and rather than an 8."""
    model, _, _ = transformer()
    compared = relprop.compare(model, right(3), [3, Contrast(3, 8)], ["attnlrp_gamma", "attnlrp", "cp_lrp", "zero"])
    return compared.views(Options(room=640))[0].draw()


@entry(CHAPTER, "A text by three composites")
def composites_text() -> Drawing:
    """SmolLM2: what speaks for Paris rather than for Rome. `cp_lrp` takes attention as a constant, and much relevance ends on
    the first token, on which this network's attention rests.
    """
    tokenizer, model = language_model()
    question = Contrast("Paris", "Rome")
    compared = relprop.compare_text(
        model, tokenizer, f"Geography. {PROMPT}", question, ["attnlrp", "attnlrp_gamma", "cp_lrp"], ledger=False
    )
    return compared.views(Options(room=560))[0].draw()


@entry(CHAPTER, "A table by three composites")
def composites_table() -> Drawing:
    """A biopsy, and what speaks for malignant rather than benign. The features are in one order, so that a difference shows."""
    table = data.breast_cancer()
    model, _, scaled, y, _ = trained_table(table)
    sample = scaled[int((y == 0).nonzero()[2])]
    compared = relprop.compare(
        model,
        {name: [value] for name, value in zip(table[2], sample.tolist(), strict=True)},
        Contrast(0, 1),
        {
            "epsilon": "epsilon",
            "gamma 0.25": Composite({"linear": Gamma(0.25)}),
            "z+": Composite({"linear": ZPlus()}),
        },
        labels=table[3],
    )
    return compared.views(Options(room=720))[0].draw()
