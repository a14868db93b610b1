"""Whole networks equal their dense definitions, rule by rule, exact zeros in the input included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import reference as ref
import relprop
from reference_networks import NETWORKS, Attention, Convolutional, Dense, Gated, Network, Slope, inputs
from relprop import composites

close = partial(torch.testing.assert_close, rtol=1e-8, atol=1e-11)

Pair = tuple[relprop.rules.Rule, ref.Rule]
RULES: dict[str, Pair] = {
    "zero": (relprop.Zero(), ref.zero),
    "epsilon": (relprop.Epsilon(0.2), partial(ref.epsilon, epsilon=0.2)),
    "epsilon relative": (relprop.Epsilon(0.3, relative=True), partial(ref.epsilon, epsilon=0.3, relative=True)),
    "gamma": (relprop.Gamma(0.4), partial(ref.gamma, gamma=0.4)),
    "alpha 2 beta 1": (relprop.AlphaBeta(), ref.alpha_beta),
    "z plus": (relprop.ZPlus(), ref.z_plus),
    "w square": (relprop.WSquare(), ref.w_square),
    "flat": (relprop.Flat(), ref.flat),
    "z box": (relprop.ZBox(-4.0, 5.0), partial(ref.z_box, low=-4.0, high=5.0)),
    "zero bias, epsilon": (relprop.ZeroBias(relprop.Epsilon(0.2)), ref.zero_bias(partial(ref.epsilon, epsilon=0.2))),
    "zero bias, gamma": (relprop.ZeroBias(relprop.Gamma(0.4)), ref.zero_bias(partial(ref.gamma, gamma=0.4))),
    "zero bias, alpha 2 beta 1": (relprop.ZeroBias(relprop.AlphaBeta()), ref.zero_bias(ref.alpha_beta)),
    "zero bias, z plus": (relprop.ZeroBias(relprop.ZPlus()), ref.zero_bias(ref.z_plus)),
    "zero bias, flat": (relprop.ZeroBias(relprop.Flat()), ref.zero_bias(ref.flat)),
    "block": (relprop.Block(), ref.block),
}
SIGNS = ref.zero_bias(ref.z_plus)
EPSILON, ZERO = RULES["epsilon"], RULES["zero"]


def built(kind: str) -> tuple[Network, Tensor]:
    network = NETWORKS[kind]().double().eval()
    return network, inputs(network)


def compared(
    network: Network,
    x: Tensor,
    pairs: Mapping[str, Pair],
    more: Mapping[object, relprop.rules.Rule] | None = None,
    relevance: Callable[..., Tensor] | None = None,
) -> None:
    """The map of the library and that of the definitions."""
    entries = {relprop.path(name): rule for name, (rule, _) in pairs.items()}
    composite = relprop.Composite({**entries, **(more or {})})
    explained(network, x, composite, {name: naive for name, (_, naive) in pairs.items()}, relevance)


def explained(
    network: Network,
    x: Tensor,
    composite: relprop.Composite | str,
    rules: Mapping[str, ref.Rule],
    relevance: Callable[..., Tensor] | None = None,
) -> None:
    """The map of a composite and that of the definitions."""
    weights = torch.randn(network(x).shape[1:], dtype=torch.float64)  # relevance of either sign arrives
    got = relprop.attribute(network, x, lambda y: y @ weights, composite=composite)
    r = network(x) * weights
    wanted = (relevance or network.relevance)(x, rules, r)
    close(got.values, wanted.detach())
    close(got.residual, r.sum(1).detach() - wanted.flatten(1).sum(1).detach())


over_networks = pytest.mark.parametrize("kind", NETWORKS)
over_rules = pytest.mark.parametrize("rule", RULES)


@over_networks
@over_rules
def test_on_the_first_layer(kind: str, rule: str) -> None:
    network, x = built(kind)
    reading_x = {Attention: ("q", "k", "v"), Gated: ("content", "gate")}.get(type(network), network.weighted[:1])
    compared(network, x, {name: RULES[rule] if name in reading_x else EPSILON for name in network.weighted})


@over_networks
@over_rules
def test_on_the_layers_behind(kind: str, rule: str) -> None:
    network, x = built(kind)
    compared(network, x, {name: ZERO if n == 0 else RULES[rule] for n, name in enumerate(network.weighted)})


@over_networks
@over_rules
def test_on_the_last_layer_above_flat_ones(kind: str, rule: str) -> None:
    network, x = built(kind)
    last = network.weighted[-1]
    compared(network, x, {name: RULES[rule] if name == last else RULES["flat"] for name in network.weighted})


@over_networks
@over_rules
def test_everywhere(kind: str, rule: str) -> None:
    network, x = built(kind)
    compared(network, x, dict.fromkeys(network.weighted, RULES[rule]))


@over_rules
def test_with_attention_as_a_constant(rule: str) -> None:
    network, x = built("attention")
    assert isinstance(network, Attention)
    pairs = dict.fromkeys(network.weighted, RULES[rule])
    compared(network, x, pairs, {"softmax": relprop.Constant()}, partial(network.relevance, constant=True))


@pytest.mark.parametrize("layer", ["a", "b", "c"])
@over_rules
def test_one_layer_hands_on_one_to_one(layer: str, rule: str) -> None:
    network, x = built("dense")
    assert isinstance(network, Dense)
    passing: Pair = relprop.Pass(), ref.passes
    compared(network, x, {name: passing if name == layer else RULES[rule] for name in network.weighted})


# ---------------------------------------------------------------- rules of everything else, and named composites


@over_rules
def test_with_shared_maxima(rule: str) -> None:
    network, x = built("convolutional")
    assert isinstance(network, Convolutional)
    pairs = dict.fromkeys(network.weighted, RULES[rule])
    pooled = partial(ref.proportional, epsilon=0.1)
    compared(network, x, pairs, {"max_pool": relprop.Proportional(0.1)}, partial(network.relevance, pooled=pooled))


@over_rules
def test_with_a_softer_attention(rule: str) -> None:
    network, x = built("attention")
    assert isinstance(network, Attention)
    pairs = dict.fromkeys(network.weighted, RULES[rule])
    compared(network, x, pairs, {"softmax": relprop.Temperature(2.5)}, partial(network.relevance, temperature=2.5))


# What acts on products and activations, the shares of content and gate, and what becomes of the sigmoid's relevance.
GATES: dict[str, tuple[dict[object, relprop.rules.Rule], tuple[float, float], ref.HandDown]] = {
    "gate": ({"product": relprop.Gate()}, (1.0, 0.0), ref.activation),
    "constant": ({relprop.operation(torch.sigmoid): relprop.Constant()}, (1.0, 0.0), ref.activation),
    "block": ({relprop.operation(torch.sigmoid): relprop.Block()}, (0.5, 0.0), ref.activation),
    "pass": ({"activation": relprop.Pass()}, (0.5, 0.5), lambda f, x, r: r),
    "native": (
        {relprop.operation(torch.sigmoid): relprop.Native()},
        (0.5, 0.5),
        lambda f, x, r: x * (1 - x.sigmoid()) * r,  # x f' / f of a sigmoid
    ),
}


@pytest.mark.parametrize("gate", GATES)
@over_rules
def test_with_a_gate(gate: str, rule: str) -> None:
    network, x = built("gated")
    assert isinstance(network, Gated)
    more, shares, sigmoid = GATES[gate]
    pairs = dict.fromkeys(network.weighted, RULES[rule])
    compared(network, x, pairs, more, partial(network.relevance, shares=shares, sigmoid=sigmoid))


class First(NamedTuple):
    """The rule of the first layer, of other convolutions, of other dense layers."""

    first: ref.Rule
    conv: ref.Rule
    linear: ref.Rule

    def of(self, network: Network) -> dict[str, ref.Rule]:
        kinds = [self.conv if name in network.convolutions else self.linear for name in network.weighted]
        return dict(zip(network.weighted, [self.first, *kinds[1:]], strict=True))


def everywhere(conv: ref.Rule, linear: ref.Rule) -> Callable[[Network], dict[str, ref.Rule]]:
    return lambda network: {n: conv if n in network.convolutions else linear for n in network.weighted}


def of_the_sample(network: Network) -> ref.Rule:
    """The bounds are those of each channel of a picture, else of what a unit sums: all features, or those of a token."""
    return partial(ref.z_box_of_the_sample, channels={Convolutional: 2, Attention: 3}.get(type(network), 1))


tiny, plus = partial(ref.epsilon, epsilon=1e-6), ref.z_plus
DEEP = partial(ref.z_box, low=-4.0, high=5.0)
Definition = Callable[[Network], Mapping[str, ref.Rule]]
NAMED: dict[str, tuple[relprop.Composite | str, Definition]] = {
    "zero": ("zero", everywhere(ref.zero, ref.zero)),
    "epsilon": ("epsilon", everywhere(tiny, tiny)),
    "epsilon_plus": ("epsilon_plus", everywhere(plus, tiny)),
    "epsilon_plus_flat": ("epsilon_plus_flat", First(ref.flat, plus, tiny).of),
    "epsilon_gamma_box": (composites.epsilon_gamma_box(-4.0, 5.0), First(DEEP, ref.gamma, tiny).of),
    "epsilon_alpha2_beta1": ("epsilon_alpha2_beta1", everywhere(ref.alpha_beta, tiny)),
    "epsilon_alpha2_beta1_flat": ("epsilon_alpha2_beta1_flat", First(ref.flat, ref.alpha_beta, tiny).of),
    "deep_taylor": ("deep_taylor", First(ref.w_square, SIGNS, SIGNS).of),
    "deep_taylor, bounds": (composites.deep_taylor(-4.0, 5.0), First(DEEP, SIGNS, SIGNS).of),
    "excitation_backprop": ("excitation_backprop", everywhere(SIGNS, SIGNS)),
    "gamma": ("gamma", everywhere(partial(ref.gamma, gamma=0.5), tiny)),
    "gamma_flat": ("gamma_flat", First(ref.flat, ref.gamma, tiny).of),
    "gamma_box": (
        "gamma_box",
        lambda network: First(of_the_sample(network), partial(ref.gamma, gamma=0.15), tiny).of(network),
    ),
    "zero_bias": ("zero_bias", First(*map(ref.zero_bias, (ref.flat, ref.gamma, tiny))).of),
    "attnlrp": ("attnlrp", everywhere(ref.zero, ref.zero)),
    "attnlrp_gamma": ("attnlrp_gamma", everywhere(ref.gamma, partial(ref.gamma, gamma=0.05))),
    "cp_lrp": ("cp_lrp", everywhere(ref.zero, ref.zero)),
    "relp": ("relp", everywhere(ref.zero, ref.zero)),
    "mamba_lrp": ("mamba_lrp", everywhere(ref.zero, ref.zero)),
    "lstm": ("lstm", everywhere(*[partial(ref.epsilon, epsilon=1e-3)] * 2)),
}
GATED = {"cp_lrp", "lstm"}
CONSTANT = {"cp_lrp", "relp"}


@over_networks
@pytest.mark.parametrize("name", NAMED)
def test_named_composites(name: str, kind: str) -> None:
    network, x = built(kind)
    composite, rules = NAMED[name]
    relevance = network.relevance
    if isinstance(network, Attention):
        relevance = partial(network.relevance, constant=name in CONSTANT)
    if isinstance(network, Gated) and name in GATED:
        relevance = partial(network.relevance, shares=(1.0, 0.0))
    explained(network, x, composite, rules(network), relevance)


SLOPES: dict[str, Slope] = {
    "gradient": lambda x, g: g * (x > 0),
    "guided_backprop": lambda x, g: g.clamp(min=0) * (x > 0),
    "deconvnet": lambda x, g: g.clamp(min=0),
    "beta_smooth": lambda x, g: g * torch.sigmoid(10 * x),
}


@pytest.mark.parametrize("multiplied", [False, True])
@pytest.mark.parametrize("kind", ["dense", "convolutional", "residual"])
@pytest.mark.parametrize("name", SLOPES)
def test_composites_of_gradients(name: str, kind: str, multiplied: bool) -> None:
    network, x = built(kind)
    seed = torch.randn(network(x).shape[1:], dtype=torch.float64)
    got = relprop.attribute(network, x, lambda y: y @ seed, composite=name, multiply_by_inputs=multiplied)
    wanted = network.gradient(x, SLOPES[name], seed.expand(len(x), -1))
    close(got.values, (wanted * x if multiplied else wanted).detach())


def test_every_rule_and_every_named_composite_is_compared() -> None:
    """One that is added fails here until its definition stands above."""
    seen = {type(rule) for rule, _ in RULES.values()} | {relprop.Pass, relprop.Proportional, relprop.Temperature}
    seen |= {type(rule) for more, _, _ in GATES.values() for rule in more.values()}
    seen |= {relprop.GuidedBackprop, relprop.Deconvnet, relprop.BetaSmooth}  # by their composites
    seen |= {relprop.ScanConstants}  # tests/test_sequences.py: a whole Mamba block
    rules = {getattr(relprop.rules, name) for name in relprop.rules.__all__} - {
        relprop.rules.Rule, relprop.rules.WeightedRule, relprop.rules.Layer, relprop.rules.Windows
    }  # fmt: skip
    assert rules == seen
    assert {name.split(",")[0] for name in NAMED} | set(SLOPES) == set(composites.NAMES)
