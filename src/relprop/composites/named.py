"""Composites with a name: `composite="epsilon_plus"`, or called with parameters, `epsilon_plus(epsilon=1e-3)`."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from inspect import Parameter, signature
from typing import Any, cast

import torch

from relprop.composites.composite import Composite
from relprop.composites.places import first, operation
from relprop.errors import CompositeError
from relprop.rules import (
    AlphaBeta,
    BetaSmooth,
    Constant,
    Deconvnet,
    Epsilon,
    Flat,
    Gamma,
    Gate,
    GuidedBackprop,
    Native,
    ScanConstants,
    WeightedRule,
    WSquare,
    ZBox,
    Zero,
    ZeroBias,
    ZPlus,
)
from relprop.rules.base import EVERYTHING, WEIGHTED


def zero() -> Composite:
    """LRP-0 everywhere; on piecewise linear networks this is gradient times input. Bach et al. 2015."""
    return Composite({family: Zero() for family in ("conv", "linear", "bilinear")}, name="zero")


def epsilon(epsilon: float = 1e-6, relative: bool = False) -> Composite:
    """LRP-epsilon on every weighted layer. Bach et al. 2015.

    Args:
        epsilon: the stabiliser.
        relative: whether `epsilon` counts in standard deviations of each layer's output.
    """
    return Composite({family: Epsilon(epsilon, relative) for family in ("conv", "linear", "bilinear")}, name="epsilon")


def epsilon_plus(epsilon: float = 1e-6) -> Composite:
    """z+ on convolutions, epsilon on dense layers. Kohlbrenner et al. 2020."""
    return Composite({"conv": ZPlus(), "linear": Epsilon(epsilon)}, name="epsilon_plus")


def epsilon_plus_flat(epsilon: float = 1e-6) -> Composite:
    """`epsilon_plus` with a flat first layer. Kohlbrenner et al. 2020."""
    return Composite({first: Flat(), "conv": ZPlus(), "linear": Epsilon(epsilon)}, name="epsilon_plus_flat")


def epsilon_gamma_box(low: Any, high: Any, epsilon: float = 1e-6, gamma: float = 0.25) -> Composite:
    """z-box first, gamma on convolutions, epsilon on dense layers; inputs lie in [low, high]. Montavon et al. 2019.

    Args:
        low: the smallest value an input can have: a number, or a tensor that broadcasts with the input.
        high: the largest value, in the same form.
        epsilon: the stabiliser of the dense layers.
        gamma: the extra weight of contributions with the output's sign.

    Raises:
        RuleError: `low` is above `high`.
    """
    return Composite(
        {first: ZBox(low, high), "conv": Gamma(gamma), "linear": Epsilon(epsilon)}, name="epsilon_gamma_box"
    )


def epsilon_alpha2_beta1(epsilon: float = 1e-6) -> Composite:
    """alpha-2 beta-1 on convolutions, epsilon on dense layers. Bach et al. 2015."""
    return Composite({"conv": AlphaBeta(2.0, 1.0), "linear": Epsilon(epsilon)}, name="epsilon_alpha2_beta1")


def epsilon_alpha2_beta1_flat(epsilon: float = 1e-6) -> Composite:
    """`epsilon_alpha2_beta1` with a flat first layer. Kohlbrenner et al. 2020."""
    entries: dict[Any, Any] = {first: Flat(), "conv": AlphaBeta(2.0, 1.0), "linear": Epsilon(epsilon)}
    return Composite(entries, name="epsilon_alpha2_beta1_flat")


def deep_taylor(low: Any = None, high: Any = None) -> Composite:
    """Deep Taylor decomposition: z+ without bias; w^2 first, or z-box where bounds are given. Montavon et al. 2017.

    Raises:
        CompositeError: one bound is given without the other.
        RuleError: `low` is above `high`.
    """
    if (low is None) != (high is None):
        raise CompositeError("deep_taylor takes both bounds of the input, low and high, or neither.")
    start = WSquare() if low is None else ZBox(low, high)
    return Composite({first: start, "conv": ZeroBias(ZPlus()), "linear": ZeroBias(ZPlus())}, name="deep_taylor")


def gradient() -> Composite:
    """Torch's own gradient, unmodified; the result is the gradient itself."""
    return Composite({family: Native() for family in sorted(EVERYTHING)}, name="gradient", multiply_by_inputs=False)


def guided_backprop() -> Composite:
    """The gradient, negative parts dropped at each activation. Springenberg et al. 2015."""
    rest = {family: Native() for family in sorted(EVERYTHING - {"activation"})}
    return Composite({"activation": GuidedBackprop(), **rest}, name="guided_backprop", multiply_by_inputs=False)


def deconvnet() -> Composite:
    """The deconvolutional network's backward pass. Zeiler and Fergus 2014."""
    rest = {family: Native() for family in sorted(EVERYTHING - {"activation"})}
    return Composite({"activation": Deconvnet(), **rest}, name="deconvnet", multiply_by_inputs=False)


def excitation_backprop() -> Composite:
    """z+ without bias on every weighted layer. Zhang et al. 2016."""
    return Composite({"conv": ZeroBias(ZPlus()), "linear": ZeroBias(ZPlus())}, name="excitation_backprop")


def beta_smooth(beta: float = 10.0) -> Composite:
    """The gradient, with that of a softplus in place of each relu's. Dombrowski et al. 2019.

    Args:
        beta: the larger, the closer to the relu.
    """
    rest: dict[Any, Any] = {family: Native() for family in sorted(EVERYTHING)}
    return Composite({operation(torch.relu): BetaSmooth(beta), **rest}, name="beta_smooth", multiply_by_inputs=False)


def gamma(gamma: float = 0.5, epsilon: float = 1e-6) -> Composite:
    """A moderate gamma on convolutions, epsilon on dense layers: the default for series. Montavon et al. 2019.

    Args:
        gamma: the extra weight of contributions with the output's sign; 0 is LRP-0, large values approach z+.
        epsilon: the stabiliser of the dense layers.
    """
    return Composite({"conv": Gamma(gamma), "linear": Epsilon(epsilon)}, name="gamma")


def gamma_flat(gamma: float = 0.25, epsilon: float = 1e-6) -> Composite:
    """Flat first, a moderate gamma on convolutions, epsilon on dense layers. Montavon et al. 2019, Lapuschkin et al. 2019.

    Args:
        gamma: the extra weight of contributions with the output's sign; 0 is LRP-0, large values approach z+.
        epsilon: the stabiliser of the dense layers.
    """
    return Composite({first: Flat(), "conv": Gamma(gamma), "linear": Epsilon(epsilon)}, name="gamma_flat")


def gamma_box(gamma: float = 0.15, epsilon: float = 1e-6) -> Composite:
    """z-box by each picture's own bounds first, gamma, then epsilon: the default for pictures. Montavon et al. 2019.

    `epsilon_gamma_box` takes bounds of the user's, and 0.25 as the papers do. Why 0.15 here: see `automatic`.

    Args:
        gamma: the extra weight of contributions with the output's sign; 0 is LRP-0, large values approach z+.
        epsilon: the stabiliser of the dense layers.
    """
    return Composite({first: ZBox(), "conv": Gamma(gamma), "linear": Epsilon(epsilon)}, name="gamma_box")


def zero_bias(base: Composite | str = "gamma_flat") -> Composite:
    """The rules of another composite, in which the biases of weighted layers get no share and the inputs get it.

    In a convolutional residual network the whole score then arrives. What stays behind in other networks: the biases of
    normalisation layers, stabilisers, softmax, and units whose inputs are all 0, as depthwise convolutions have them,
    for these have no input to hand their relevance to. A bias is a part of the score that no input caused, so this is
    another map, and not a more faithful one.

    Args:
        base: the composite, or its name. "auto" depends on the model and is none.

    Raises:
        CompositeError: no composite has that name, or it needs parameters.
    """
    if base == "auto":
        raise CompositeError(
            "zero_bias takes a composite that is the same for all models, such as 'gamma_flat'; got 'auto'."
        )
    given = by_name(base) if isinstance(base, str) else base
    entries = [
        (key, ZeroBias(cast(WeightedRule, rule)) if rule.formulas & WEIGHTED else rule) for key, rule in given.entries
    ]
    rest = [(family, ZeroBias(Zero())) for family in ("conv", "linear", "bilinear")]
    name = "zero_bias" if given.name == "gamma_flat" else f"zero_bias({given.name})"
    return Composite([*entries, *rest], name=name, multiply_by_inputs=given.multiply_by_inputs)


def attnlrp() -> Composite:
    """LRP-0 on weighted layers, the softmax's Jacobian, half of a product to each factor. Achtibat et al. 2024."""
    return Composite({family: Zero() for family in ("conv", "linear", "bilinear")}, name="attnlrp")


def attnlrp_gamma(conv: float = 0.25, linear: float = 0.05) -> Composite:
    """`attnlrp` with gamma on weighted layers, for vision transformers. Achtibat et al. 2024 search both gammas."""
    return Composite({"conv": Gamma(conv), "linear": Gamma(linear)}, name="attnlrp_gamma")


def cp_lrp() -> Composite:
    """LRP-0, with attention and gates as constants: without biases, relevance is conserved. Ali et al. 2022."""
    rules: dict[Any, Any] = {family: Zero() for family in ("conv", "linear", "bilinear")}
    return Composite({**rules, "softmax": Constant(), "product": Gate()}, name="cp_lrp")


def relp() -> Composite:
    """LRP-0 with attention as a constant and half of a gated product to each factor. Jafari et al. 2025.

    For relevance patching, `attribute(..., against=)`.
    """
    rules: dict[Any, Any] = {family: Zero() for family in ("conv", "linear", "bilinear")}
    return Composite({**rules, "softmax": Constant()}, name="relp")


def mamba_lrp() -> Composite:
    """`attnlrp`, with the step size and the matrices B and C of a selective scan as constants. Jafari et al. 2024."""
    rules: dict[Any, Any] = {family: Zero() for family in ("conv", "linear", "bilinear")}
    scan: dict[Any, Any] = {
        operation(torch.nn.functional.softplus): ScanConstants(),
        operation(torch.split): ScanConstants(),
    }
    return Composite({**scan, **rules}, name="mamba_lrp")


def lstm(epsilon: float = 1e-3) -> Composite:
    """LRP-epsilon, gates as constants, for recurrent networks. Arras et al. 2017 and 2019."""
    return Composite({"linear": Epsilon(epsilon), "conv": Epsilon(epsilon), "product": Gate()}, name="lstm")


NAMES: dict[str, Callable[..., Composite]] = {
    make.__name__: make
    for make in (
        zero,
        epsilon,
        epsilon_plus,
        epsilon_plus_flat,
        epsilon_gamma_box,
        epsilon_alpha2_beta1,
        epsilon_alpha2_beta1_flat,
        deep_taylor,
        gradient,
        guided_backprop,
        deconvnet,
        excitation_backprop,
        beta_smooth,
        gamma,
        gamma_flat,
        gamma_box,
        zero_bias,
        attnlrp,
        attnlrp_gamma,
        cp_lrp,
        relp,
        mamba_lrp,
        lstm,
    )
}


def unknown(name: str) -> CompositeError:
    """The error for a name that no composite has."""
    called, bracket, given = name.partition("(")
    near = [called] if bracket and called in NAMES else get_close_matches(name, NAMES, 1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    meant += f" In Python, composite=relprop.composites.{near[0]}({given} does." if bracket and near else ""
    return CompositeError(f"there is no composite named {name!r}.{meant} Named composites: auto, {', '.join(NAMES)}.")


def by_name(name: str) -> Composite:
    """The composite of that name, with its default parameters.

    Raises:
        CompositeError: no composite has that name, or it needs parameters.
    """
    if name not in NAMES:
        raise unknown(name)
    if needed := _needed(NAMES[name]):
        raise CompositeError(
            f"{name!r} needs parameters: pass relprop.composites.{name}({', '.join(f'{p}=...' for p in needed)})."
        )
    return _made(NAMES[name])


@cache
def _made(make: Callable[..., Composite]) -> Composite:
    """A composite with its default parameters, made once, so that what is derived from its entries is, too."""
    return make()


@cache
def _needed(function: Callable[..., Composite]) -> list[str]:
    """The parameters of a composite that have no default."""
    return [p.name for p in signature(function).parameters.values() if p.default is Parameter.empty]


def automatic(traits: set[str]) -> Composite:
    """The composite that `"auto"` picks for a network with these traits.

    A trait is a family of operations, or "attention", "gated", "lookup", "matrix product", "patches", "recurrent",
    "scan" or "series". "series" stands for a first layer that is a convolution along one axis. "patches" stands for a
    first layer on patches of the input that do not overlap, be it a convolution or a linear layer, which counts as one.

    Pictures take a gamma of 0.15 behind a z-box of their own bounds. What follows is ABPC with two replacements
    (docs/faithfulness.md). Over gamma 0.25, the default before, it gained +0.378 ± 0.054 and +0.118 ± 0.006 on VGGs with
    BatchNorm, +0.182 ± 0.030 and +0.195 ± 0.016 on ResNets, +0.104 ± 0.008 and +0.032 ± 0.007 on LeNets (6 networks, 100
    digits each, neither of them used to choose it). On EfficientNet-Lite0 (33 photographs) it gained +0.127 ± 0.051 and
    +0.157 ± 0.053 with patches of 16 pixels, and was even with 8 (-0.005 ± 0.057 and +0.115 ± 0.063) and 4 (-0.069 ± 0.11
    and -0.122 ± 0.11), where 0.1 lost to it (-0.204 ± 0.10 and -0.188 ± 0.09): a small gamma is right about regions alone.
    A flat first layer lost (60 digits each: -0.644 ± 0.061 and -0.201 ± 0.025 on a VGG, -0.412 ± 0.070 and -0.204 ± 0.021
    on a ResNet, -0.857 ± 0.074 and -0.587 ± 0.053 on a LeNet). On series a first layer with a rule of its own was less
    faithful than none: it blurs by the width of its kernel, and a flat one cannot tell which channel it was that mattered
    (60 sequences with planted motifs, ABPC +1.36 ± 0.09 and +1.44 ± 0.10 without it; on GunPoint, gamma 0.5 was better than
    0.25 as well, docs/tutorials/series.md). A first layer on patches stays flat: written as a linear layer, it has no
    channels to take bounds of, and the map must not depend on how it is written. Attention takes AttnLRP, with gamma where
    pictures or sounds enter through convolutions or patches; token ids have no noise to filter. On small vision
    transformers it was more faithful without gamma with both replacements on one kind of three (+0.741 ± 0.1 and +0.234 ±
    0.035, 6 networks, 100 digits each; even with 10 layers); large ones were not measured. Recurrent layers have gates.
    Other networks take a stabiliser of a hundredth of each layer's scale, because LRP-0 is too noisy for most.
    """
    return _automatic(frozenset(traits))


@cache
def _automatic(traits: frozenset[str]) -> Composite:
    if "scan" in traits:
        return mamba_lrp()
    convolutional = bool({"conv", "patches"} & traits) and "lookup" not in traits
    attends = "attention" in traits or {"softmax", "matrix product"} <= traits
    if attends:
        return _for_pictures("patches" in traits) if convolutional else attnlrp()
    if "recurrent" in traits:
        return lstm()
    if "lookup" in traits and traits & {"gated", "matrix product"}:
        return attnlrp()
    if convolutional:
        patches = bool({"patches", "patch convolution"} & traits)
        return gamma() if "series" in traits else gamma_flat() if patches else gamma_box()
    return epsilon(0.01, relative=True)


def _for_pictures(patches: bool) -> Composite:
    """`attnlrp_gamma`; a first layer on patches gets a convolution's rule."""
    chosen = attnlrp_gamma()
    embedding = Composite({first: Gamma(0.25)} if patches else {})
    return Composite(embedding.entries + chosen.entries, name=chosen.name)
