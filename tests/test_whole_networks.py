"""Whole networks equal their dense definitions, rule by rule, exact zeros in the input included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import pytest
import torch
from torch import Tensor

import reference as ref
import relprop
from reference_networks import NETWORKS, Attention, Dense, Network, inputs

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
    weights = torch.randn(network(x).shape[1:], dtype=torch.float64)  # relevance of either sign arrives
    composite = relprop.Composite({**entries, **(more or {})})
    got = relprop.attribute(network, x, lambda y: y @ weights, composite=composite)
    r = network(x) * weights
    wanted = (relevance or network.relevance)(x, {name: naive for name, (_, naive) in pairs.items()}, r)
    close(got.values, wanted.detach())
    close(got.residual, r.sum(1).detach() - wanted.flatten(1).sum(1).detach())


over_networks = pytest.mark.parametrize("kind", NETWORKS)
over_rules = pytest.mark.parametrize("rule", RULES)


@over_networks
@over_rules
def test_on_the_first_layer(kind: str, rule: str) -> None:
    network, x = built(kind)
    reading_x = ("q", "k", "v") if isinstance(network, Attention) else network.weighted[:1]
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
