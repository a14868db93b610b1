"""Rules: one picture, many ways to ask."""

from __future__ import annotations

import torch

import relprop
from gallery.catalogue import entry, numbers
from gallery.maps.photographs import explained
from relprop import Composite, Epsilon, Flat, Gamma, first
from relprop.rendering import Drawing, Heatmap, Panel, column, strip, titled


@entry("Rules", "Gamma, from none to much")
def gammas() -> Drawing:
    """The larger gamma is, the more positive contributions count: noise fades, and so does what speaks against."""
    panels = []
    for gamma in (0.0, 0.05, 0.1, 0.25, 1.0):
        composite = Composite({first: Flat(), "conv": Gamma(gamma), "linear": Epsilon()}, name=f"gamma {gamma:g}")
        R, _ = explained("chelsea.png", composite=composite)
        panels.append(Panel(Heatmap.of(R.values[0]), f"gamma {gamma:g}\n{numbers(R)}"))
    return titled(strip(panels, height=170), R.subject(0))


@entry("Rules", "Eight composites")
def eight() -> Drawing:
    """One cat, one class, eight composites. Each map has its own scale. `zero` and `epsilon`
    look the same because they are: a stabiliser of 1e-6 changes nothing that one could see.
    """
    low, high = torch.full((1, 3, 1, 1), -127 / 128), torch.full((1, 3, 1, 1), 1.0)
    composites: list[Composite | str] = [
        "gamma_flat", relprop.composites.epsilon_gamma_box(low, high), "epsilon_plus_flat", "epsilon_alpha2_beta1_flat",
        "epsilon_plus", "excitation_backprop", "epsilon", "zero",
    ]  # fmt: skip
    found = [explained("chelsea.png", composite=composite)[0] for composite in composites]
    panels = [Panel(Heatmap.of(R.values[0]), f"{R.composite.name}\n{numbers(R)}") for R in found]
    shown = column([strip(panels[:4], height=180), strip(panels[4:], height=180)])
    return titled(shown, found[0].subject(0))


@entry("Rules", "Gradients and their relatives")
def gradients() -> Drawing:
    """Methods that are not relevance, for comparison. The first three do not add up to the score, and no residual says by how
    much. The pattern of the deconvnet comes from the strides of the network.
    """
    panels = []
    for name in ("gradient", "guided_backprop", "deconvnet", "gamma_flat"):
        R, _ = explained("coffee.png", composite=name)
        said = numbers(R) if R.composite.multiply_by_inputs else "not multiplied by the input"
        panels.append(Panel(Heatmap.of(R.values[0]), f"{name}\n{said}"))
    return titled(strip(panels, height=200), R.subject(0))


@entry("Rules", "A rule for a part of the network")
def parts() -> Drawing:
    """Composites combine: a strong gamma in the first blocks only, or in the last ones only. The place matters."""
    base = relprop.composites.gamma_flat(gamma=0.1)
    early = Composite({relprop.path("blocks.[0-5].*"): Gamma(2.0)}, name="early")
    late = Composite({relprop.path("blocks.1[0-5].*"): Gamma(2.0)}, name="late")
    panels = []
    for name, composite in (
        ("gamma 0.1 everywhere", base),
        ("gamma 2 in blocks 0 to 5", early | base),
        ("gamma 2 in blocks 10 to 15", late | base),
    ):
        R, _ = explained("coffee.png", composite=composite)
        panels.append(Panel(Heatmap.of(R.values[0]), f"{name}\n{numbers(R)}"))
    return titled(strip(panels, height=220), R.subject(0))
