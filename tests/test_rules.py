"""Every rule on every kind of weighted layer equals its definition in `reference.py`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import reference
import relprop
from helpers import close, weighed_by


class BilinearWithConstant(nn.Bilinear):
    """A bilinear layer whose second operand is a constant: linear in the first."""

    def __init__(self, in1: int, in2: int, out: int, bias: bool):
        super().__init__(in1, in2, out, bias=bias)
        self.register_buffer("constant", torch.randn(1, in2))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.bilinear(x, self.constant.expand(len(x), -1), self.weight, self.bias)


def settled(norm: nn.Module) -> nn.Module:
    """A batch norm with statistics as after some training."""
    for tensor in (norm.running_mean, norm.weight, norm.bias):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return norm


# The input's shape without the batch, and the layer, with or without a bias.
LAYERS: dict[str, tuple[tuple[int, ...], Callable[[bool], nn.Module]]] = {
    "linear": ((5,), lambda bias: nn.Linear(5, 4, bias=bias)),
    "linear on tokens": ((2, 3), lambda bias: nn.Linear(3, 4, bias=bias)),
    "bilinear": ((4,), lambda bias: BilinearWithConstant(4, 3, 5, bias)),
    "conv1d": ((2, 6), lambda bias: nn.Conv1d(2, 3, 3, bias=bias)),
    "conv1d same": ((2, 5), lambda bias: nn.Conv1d(2, 3, 4, padding="same", bias=bias)),
    "conv2d": ((2, 4, 4), lambda bias: nn.Conv2d(2, 3, 3, bias=bias)),
    "conv2d padded": ((2, 3, 3), lambda bias: nn.Conv2d(2, 2, 3, padding=1, bias=bias)),
    "conv2d grouped": ((4, 3, 3), lambda bias: nn.Conv2d(4, 6, 2, groups=2, bias=bias)),
    "conv2d depthwise": ((3, 3, 3), lambda bias: nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=bias)),
    "conv2d strided": ((2, 5, 4), lambda bias: nn.Conv2d(2, 2, (3, 2), stride=(2, 3), bias=bias)),
    "conv2d dilated": (
        (1, 5, 6),
        lambda bias: nn.Conv2d(1, 2, 2, dilation=(2, 3), padding=(1, 0), bias=bias),
    ),
    "conv2d same": ((1, 4, 3), lambda bias: nn.Conv2d(1, 2, (2, 3), padding="same", dilation=2, bias=bias)),
    "conv3d": ((2, 2, 3, 3), lambda bias: nn.Conv3d(2, 2, 2, padding=(0, 1, 0), bias=bias)),
    "conv_transpose1d": ((2, 3), lambda bias: nn.ConvTranspose1d(2, 3, 3, stride=2, bias=bias)),
    "conv_transpose2d": (
        (4, 2, 3),
        lambda bias: nn.ConvTranspose2d(4, 2, 3, 2, padding=1, output_padding=1, groups=2, bias=bias),
    ),
    "conv_transpose3d": ((1, 2, 2, 2), lambda bias: nn.ConvTranspose3d(1, 2, 2, dilation=2, bias=bias)),
    "batch_norm1d": ((4,), lambda bias: settled(nn.BatchNorm1d(4))),
    "batch_norm2d": ((3, 2, 2), lambda bias: settled(nn.BatchNorm2d(3))),
}

LOW, HIGH = -2.5, 3.0

RULES: dict[str, tuple[Callable[[], relprop.rules.Rule], reference.Rule]] = {
    "zero": (lambda: relprop.Zero(), reference.zero),
    "epsilon": (lambda: relprop.Epsilon(), reference.epsilon),
    "epsilon large": (lambda: relprop.Epsilon(0.3), partial(reference.epsilon, epsilon=0.3)),
    "epsilon relative": (
        lambda: relprop.Epsilon(0.25, relative=True),
        partial(reference.epsilon, epsilon=0.25, relative=True),
    ),
    "gamma": (lambda: relprop.Gamma(), reference.gamma),
    "gamma large": (lambda: relprop.Gamma(10.0), partial(reference.gamma, gamma=10.0)),
    "alpha 2 beta 1": (lambda: relprop.AlphaBeta(), reference.alpha_beta),
    "alpha 1.5 beta 0.5": (
        lambda: relprop.AlphaBeta(1.5, 0.5),
        partial(reference.alpha_beta, alpha=1.5, beta=0.5),
    ),
    "z plus": (lambda: relprop.ZPlus(), reference.z_plus),
    "w square": (lambda: relprop.WSquare(), reference.w_square),
    "flat": (lambda: relprop.Flat(), reference.flat),
    "z box": (lambda: relprop.ZBox(LOW, HIGH), partial(reference.z_box, low=LOW, high=HIGH)),
    "block": (lambda: relprop.Block(), reference.block),
    "native": (lambda: relprop.Native(), reference.zero),
    "zero bias, epsilon": (
        lambda: relprop.ZeroBias(relprop.Epsilon(0.3)),
        reference.zero_bias(partial(reference.epsilon, epsilon=0.3)),
    ),
    "zero bias, gamma": (lambda: relprop.ZeroBias(relprop.Gamma()), reference.zero_bias(reference.gamma)),
    "zero bias, alpha 2 beta 1": (
        lambda: relprop.ZeroBias(relprop.AlphaBeta()),
        reference.zero_bias(reference.alpha_beta),
    ),
    "zero bias, z plus": (lambda: relprop.ZeroBias(relprop.ZPlus()), reference.zero_bias(reference.z_plus)),
}

# torch warns that an even kernel's "same" padding makes a copy.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

over_layers = pytest.mark.parametrize("layer", LAYERS)
over_rules = pytest.mark.parametrize("rule", RULES)
over_bias = pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
over_signs = pytest.mark.parametrize("signs", ["both", "non-negative"])


def inputs(shape: tuple[int, ...], signs: str) -> Tensor:
    """Three samples, units that are exactly 0 among them."""
    x = torch.randn(3, *shape, dtype=torch.float64)
    return x.clamp(min=0) if signs == "non-negative" else torch.where(x.abs() < 0.3, 0.0, x)


def built(layer: str, bias: bool) -> tuple[tuple[int, ...], nn.Module]:
    shape, build = LAYERS[layer]
    return shape, build(bias).double().eval()


def weighing(shape: torch.Size) -> Tensor:
    """How the score weighs each unit of an output: relevance of either sign arrives there."""
    return torch.randn(shape[1:], dtype=torch.float64)


@over_layers
@over_rules
@over_bias
@over_signs
def test_first_layer(layer: str, rule: str, bias: bool, signs: str) -> None:
    shape, module = built(layer, bias)
    make, definition = RULES[rule]
    x = inputs(shape, signs)
    weights = weighing(module(x).shape)
    composite = relprop.Composite({relprop.path("layer"): make()})
    relevance = relprop.attribute(
        nn.Sequential(OrderedDict(layer=module)), x, target=weighed_by(weights), composite=composite
    )
    close(
        relevance.values,
        reference.propagate([(module, reference.weighted(definition))], x, lambda y: y * weights),
    )


@over_layers
@over_rules
@over_bias
def test_hidden_layer(layer: str, rule: str, bias: bool) -> None:
    """Between relus, below a flat layer, which gives relevance to units that are exactly 0: they pass it
    on.
    """
    shape, module = built(layer, bias)
    make, definition = RULES[rule]
    x = torch.randn(3, 4, dtype=torch.float64)
    below = nn.Linear(4, torch.Size(shape).numel()).double()
    into, relu, flatten = nn.Unflatten(1, shape), nn.ReLU(), nn.Flatten()
    middle = module(into(below(x))).flatten(1)
    above = nn.Linear(middle.shape[1], 3).double()
    weights = weighing(above(middle).shape)

    model = nn.Sequential(
        OrderedDict(below=below, into=into, relu1=relu, layer=module, relu2=nn.ReLU(), flatten=flatten, above=above)
    )
    composite = relprop.Composite(
        {
            relprop.path("below"): relprop.Zero(),
            relprop.path("layer"): make(),
            relprop.path("above"): relprop.Flat(),
        }
    )
    relevance = relprop.attribute(model, x, target=weighed_by(weights), composite=composite)
    close(
        relevance.values,
        reference.propagate(
            [
                (below, reference.weighted(reference.zero)),
                (into, reference.moved),
                (relu, reference.activation),
                (module, reference.weighted(definition)),
                (relu, reference.activation),
                (flatten, reference.moved),
                (above, reference.weighted(reference.flat)),
            ],
            x,
            lambda y: y * weights,
        ),
    )


@over_bias
@pytest.mark.parametrize("shape", [(4,), (3, 4)], ids=["features", "tokens"])
def test_pass_hands_down_what_it_received(shape: tuple[int, ...], bias: bool) -> None:
    module = nn.Linear(4, 4, bias=bias).double()
    x = inputs(shape, "both")
    weights = weighing(module(x).shape)
    composite = relprop.Composite({"linear": relprop.Pass()})
    relevance = relprop.attribute(module, x, target=weighed_by(weights), composite=composite)
    close(relevance.values, module(x).detach() * weights)


@pytest.mark.parametrize("per", ["channel", "unit"])
def test_z_box_bounds_of_their_own(per: str) -> None:
    """Bounds broadcast against the input: one for each channel, or one for each unit."""
    shape = (3, 1, 1) if per == "channel" else (3, 4, 4)
    low, high = -2.0 - torch.rand(shape, dtype=torch.float64), 2.0 + torch.rand(shape, dtype=torch.float64)
    module = nn.Conv2d(3, 2, 3).double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64).clamp(-2, 2)
    weights = weighing(module(x).shape)
    whole = [bound.expand(3, 4, 4).flatten() for bound in (low, high)]
    composite = relprop.Composite({"conv": relprop.ZBox(low, high)})
    relevance = relprop.attribute(module, x, target=weighed_by(weights), composite=composite)
    definition = partial(reference.z_box, low=whole[0], high=whole[1])
    close(
        relevance.values,
        reference.propagate([(module, reference.weighted(definition))], x, lambda y: y * weights),
    )


# Into how many parts the input falls, each with bounds of its own: the channels of a convolution, the rows of a matrix.
OWN_BOUNDS = {
    "linear": 1, "linear on tokens": 2, "bilinear": 1, "conv1d": 2, "conv2d padded": 2, "conv2d grouped": 4,
    "conv2d depthwise": 3, "conv2d same": 1, "conv2d strided": 2, "conv3d": 2, "conv_transpose2d": 4,
}  # fmt: skip


@pytest.mark.parametrize("layer", OWN_BOUNDS)
@over_bias
@over_signs
def test_z_box_by_the_bounds_of_each_sample(layer: str, bias: bool, signs: str) -> None:
    shape, module = built(layer, bias)
    x = inputs(shape, signs)
    weights = weighing(module(x).shape)
    composite = relprop.Composite({relprop.first: relprop.ZBox()})
    relevance = relprop.attribute(nn.Sequential(module), x, target=weighed_by(weights), composite=composite)
    definition = partial(reference.z_box_of_the_sample, channels=OWN_BOUNDS[layer])
    close(
        relevance.values,
        reference.propagate([(module, reference.weighted(definition))], x, lambda y: y * weights),
    )
    alone = [relprop.attribute(module, x[n : n + 1], target=weighed_by(weights), composite=composite) for n in range(3)]
    close(torch.cat([each.values for each in alone]), relevance.values)


@pytest.mark.parametrize("equation", ["nic,kc->nik", "nci,kc->nki", "...ic,kc->...ik", "nic,kic->nk"])
def test_z_box_by_the_bounds_of_each_sample_of_an_einsum(equation: str) -> None:
    """What one output sums has bounds of its own; nothing of another sample counts."""
    w = torch.randn(4, 3, dtype=torch.float64) if "kic" not in equation else torch.randn(4, 5, 3, dtype=torch.float64)
    x = torch.randn(2, 3, 5, dtype=torch.float64) if "nci" in equation else torch.randn(2, 5, 3, dtype=torch.float64)
    composite = relprop.Composite({relprop.first: relprop.ZBox()})
    whole = relprop.attribute(lambda x: torch.einsum(equation, x, w).flatten(1), x, 1, composite=composite).values
    axes = {"nic,kc->nik": 2, "nci,kc->nki": 1, "...ic,kc->...ik": 2, "nic,kic->nk": (1, 2)}[equation]
    for n in range(2):
        one = x[n : n + 1]
        given = relprop.ZBox(one.amin(axes, keepdim=True), one.amax(axes, keepdim=True))
        by_hand = relprop.attribute(
            lambda x: torch.einsum(equation, x, w).flatten(1), one, 1,
            composite=relprop.Composite({relprop.first: given}),
        )  # fmt: skip
        close(whole[n : n + 1], by_hand.values)


def test_z_box_by_the_bounds_of_each_sample_does_not_see_how_pixels_were_normalised() -> None:
    """A network on other numbers for the same pixels, with the weights that undo it, gets the same map."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4)).double()
    other = nn.Sequential(nn.Conv2d(3, 6, 3), *model[1:]).double()
    mean, scale = (torch.rand(3, 1, 1, dtype=torch.float64) + 0.1 for _ in range(2))
    with torch.no_grad():
        other[0].weight.copy_(model[0].weight * scale)
        other[0].bias.copy_(model[0].bias + (model[0].weight * mean).sum((1, 2, 3)))
    x = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    composite = relprop.composites.gamma_box()
    maps = [
        relprop.attribute(net, given, 1, composite=composite).values for net, given in ((model, x), (other, (x - mean) / scale))
    ]  # fmt: skip
    # The hidden layers differ in their last bits; no more than these arrive.
    torch.testing.assert_close(maps[0], maps[1], rtol=0, atol=1e-14 * float(maps[0].abs().max()))


def test_z_box_of_a_constant_picture_is_flat() -> None:
    """Its bounds leave no room, so that no contribution is left: as for the latent vector of a generator, `(N, C, 1, 1)`."""
    for shape in ((2, 3, 4, 4), (2, 3, 1, 1)):
        module = nn.Sequential(nn.Conv2d(3, 4, shape[-1]), nn.Flatten()).double()
        x = torch.rand(2, 3, 1, 1, dtype=torch.float64).expand(shape)
        box, flat = (
            relprop.attribute(module, x, 1, composite=relprop.Composite({"conv": rule}))
            for rule in (relprop.ZBox(), relprop.Flat())
        )
        assert bool(flat.values.any())
        close(box.values, flat.values)


def test_z_box_takes_both_bounds_or_neither() -> None:
    for bounds in ({"low": 0.0}, {"high": 1.0}):
        with pytest.raises(relprop.errors.RuleError, match="both bounds, or neither"):
            relprop.ZBox(**bounds)
    assert relprop.ZBox() == relprop.ZBox() and hash(relprop.ZBox()) == hash(relprop.ZBox())
    assert relprop.ZBox() != relprop.ZBox(0.0, 1.0) and relprop.ZBox(0.0, 1.0) != relprop.ZBox()


def test_flat_counts_connections_not_weights() -> None:
    """A pruned weight is a connection still: every input of the unit gets the same."""
    module = nn.Linear(4, 1, bias=False).double()
    module.weight.data[0, 1] = 0
    x = torch.randn(2, 4, dtype=torch.float64)
    relevance = relprop.attribute(module, x, 0, composite=relprop.Composite({"linear": relprop.Flat()}))
    close(relevance.values, (module(x) / 4).expand(2, 4).detach())


@pytest.mark.parametrize("rule", ["gamma", "alpha 2 beta 1", "z plus", "w square", "z box"])
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes_are_a_pad_and_a_convolution(rule: str, mode: str) -> None:
    pads = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d, "circular": nn.CircularPad2d}
    inside = nn.Conv2d(2, 2, 3, padding=1, padding_mode=mode).double()
    plain = nn.Conv2d(2, 2, 3).double()
    plain.load_state_dict(inside.state_dict())
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64)
    composite = relprop.Composite({"conv": RULES[rule][0]()})
    target = weighed_by(weighing(inside(x).shape))
    spelled_out = nn.Sequential(pads[mode](1), plain)
    close(
        relprop.attribute(inside, x, target, composite=composite).values,
        relprop.attribute(spelled_out, x, target, composite=composite).values,
    )


@over_rules
def test_a_layer_used_twice(rule: str) -> None:
    """Each use hands down by its own input and its own relevance."""
    shared = nn.Linear(4, 4).double()
    relu = nn.ReLU()
    make, definition = RULES[rule]
    x = torch.randn(3, 4, dtype=torch.float64)
    weights = weighing(x.shape)
    model = nn.Sequential(shared, relu, shared, relu, shared)
    relevance = relprop.attribute(model, x, target=weighed_by(weights), composite=relprop.Composite({"linear": make()}))
    down = reference.weighted(definition)
    steps = [(shared, down), (relu, reference.activation)] * 2 + [(shared, down)]
    close(relevance.values, reference.propagate(steps, x, lambda y: y * weights))


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "z plus"])
def test_a_parametrized_layer(rule: str) -> None:
    """Weight norm, pruning: the weight that counts is the one the layer computes with."""
    module = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3).double())
    make, definition = RULES[rule]
    x = torch.randn(3, 4, dtype=torch.float64)
    weights = weighing(module(x).shape)
    composite = relprop.Composite({"linear": make()})
    relevance = relprop.attribute(module, x, target=weighed_by(weights), composite=composite)
    close(
        relevance.values,
        reference.propagate([(module, reference.weighted(definition))], x, lambda y: y * weights),
    )


def test_changed_weights_are_seen() -> None:
    """Nothing derived from a weight outlives a change of the weight."""
    module = nn.Linear(4, 3).double()
    composite = relprop.Composite({"linear": relprop.ZPlus()})
    x = torch.randn(2, 4, dtype=torch.float64)
    weights = weighing(module(x).shape)
    for _ in range(2):
        relevance = relprop.attribute(module, x, target=weighed_by(weights), composite=composite)
        down = reference.weighted(reference.z_plus)
        close(relevance.values, reference.propagate([(module, down)], x, lambda y: y * weights))
        with torch.no_grad():
            module.weight.neg_()


@pytest.mark.parametrize("argument", [relprop.Block(), relprop.Constant(), relprop.ZPlus, "epsilon", None], ids=repr)
def test_without_its_bias_goes_a_rule_for_weighted_layers_alone(argument: object) -> None:
    with pytest.raises(relprop.errors.RuleError, match=r"ZeroBias wraps a rule for weighted layers.*ZeroBias\(ZPlus"):
        relprop.ZeroBias(argument)


@pytest.mark.parametrize(
    "rule",
    [
        relprop.Zero(),
        relprop.Flat(),
        relprop.Epsilon(0.1, relative=True),
        relprop.Epsilon(0.1),
        relprop.ZBox(0, 1),
        relprop.ZBox(),
    ],
)
def test_without_its_bias_a_rule_is_what_it_was(rule: relprop.WeightedRule) -> None:
    """What the engine asks of a rule, it is told of the rule inside."""
    wrapped = relprop.ZeroBias(rule)
    for question in ("proportional", "whole_output", "separable"):
        assert getattr(wrapped, question) == getattr(rule, question)


def test_which_parts_of_a_split_serve_a_scan() -> None:
    """B and C are the last two of three parts, and as wide as each other."""
    constants = relprop.ScanConstants()
    assert constants.matrices([5, 3, 3]) == (1, 2)
    assert constants.matrices([3, 3, 3]) == (1, 2)
    for sizes in ([5, 3, 4], [3, 3, 5], [3, 3], [5, 3, 3, 3], []):
        assert constants.matrices(sizes) == ()
