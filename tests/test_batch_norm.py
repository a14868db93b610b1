"""Batch norm in evaluation: one linear map with the weighted layer before it, a diagonal layer on its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reference
import relprop
from helpers import close, explained, total
from networks import settle

RULES: dict[str, tuple[relprop.rules.Rule, reference.Rule]] = {
    "zero": (relprop.Zero(), reference.zero),
    "epsilon": (relprop.Epsilon(0.3), partial(reference.epsilon, epsilon=0.3)),
    "epsilon relative": (
        relprop.Epsilon(0.3, relative=True),
        partial(reference.epsilon, epsilon=0.3, relative=True),
    ),
    "gamma": (relprop.Gamma(), reference.gamma),
    "alpha 2 beta 1": (relprop.AlphaBeta(), reference.alpha_beta),
    "z plus": (relprop.ZPlus(), reference.z_plus),
    "w square": (relprop.WSquare(), reference.w_square),
    "flat": (relprop.Flat(), reference.flat),
    "z box": (relprop.ZBox(-2.0, 3.0), partial(reference.z_box, low=-2.0, high=3.0)),
    "zero bias": (relprop.ZeroBias(relprop.Gamma()), reference.zero_bias(reference.gamma)),
}
over_rules = pytest.mark.parametrize("rule", RULES)

# The input's shape without the batch, the weighted layer, the norm on top of it.
PAIRS: dict[str, tuple[tuple[int, ...], Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "linear": ((4,), lambda: nn.Linear(4, 3), lambda: nn.BatchNorm1d(3)),
    "linear without bias": ((4,), lambda: nn.Linear(4, 3, bias=False), lambda: nn.BatchNorm1d(3)),
    "conv1d": ((2, 5), lambda: nn.Conv1d(2, 3, 3), lambda: nn.BatchNorm1d(3)),
    "conv2d": ((2, 4, 4), lambda: nn.Conv2d(2, 3, 3, padding=1), lambda: nn.BatchNorm2d(3)),
    "conv2d without bias": ((2, 4, 4), lambda: nn.Conv2d(2, 3, 3, bias=False), lambda: nn.BatchNorm2d(3)),
    "conv2d grouped": ((4, 3, 3), lambda: nn.Conv2d(4, 6, 2, groups=2), lambda: nn.BatchNorm2d(6)),
    "conv3d": ((1, 3, 3, 3), lambda: nn.Conv3d(1, 2, 2), lambda: nn.BatchNorm3d(2)),
    "conv_transpose1d": ((2, 3), lambda: nn.ConvTranspose1d(2, 3, 2, 2), lambda: nn.BatchNorm1d(3)),
    "conv_transpose2d": (
        (4, 2, 2),
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, groups=2, padding=1),
        lambda: nn.BatchNorm2d(6),
    ),
    "not affine": ((2, 4, 4), lambda: nn.Conv2d(2, 3, 3), lambda: nn.BatchNorm2d(3, affine=False)),
}


@over_rules
@pytest.mark.parametrize("pair", PAIRS)
def test_merges_into_the_layer_before(pair: str, rule: str) -> None:
    shape, layer, norm = PAIRS[pair]
    model = settle(nn.Sequential(layer(), norm())).double()
    model[1].weight is None or model[1].weight.data[0].neg_()  # a norm may turn a sign
    own, definition = RULES[rule]
    x = torch.randn(3, *shape).double()
    values, seed = explained(model, x, relprop.Composite({"linear": own, "conv": own}))
    close(values, reference.propagate([(model, reference.weighted(definition))], x, seed))


@over_rules
def test_merges_in_the_middle_of_a_network(rule: str) -> None:
    own, definition = RULES[rule]
    conv, norm, last = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(12, 2)
    model = settle(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), conv, norm, nn.ReLU(), nn.Flatten(), last)).double()
    x = torch.randn(3, 1, 4, 4).double()
    values, seed = explained(model, x, relprop.Composite({relprop.path("2"): own}))
    zero = reference.weighted(reference.zero)
    steps = [
        (model[0], zero),
        (model[1], reference.activation),
        (nn.Sequential(conv, norm), reference.weighted(definition)),
        (model[4], reference.activation),
        (model[5], reference.moved),
        (last, zero),
    ]
    close(values, reference.propagate(steps, x, seed))


@over_rules
@pytest.mark.parametrize("affine", [True, False])
def test_alone_it_is_a_diagonal_layer(rule: str, affine: bool) -> None:
    own, definition = RULES[rule]
    model = settle(nn.BatchNorm2d(3, affine=affine)).double()
    x = torch.randn(3, 3, 2, 2).double()
    values, seed = explained(model, x, relprop.Composite({"batch_norm": own}))
    close(values, reference.propagate([(model, reference.weighted(definition))], x, seed))


@over_rules
@pytest.mark.parametrize("place", ["before a convolution", "after a relu"])
def test_where_it_cannot_merge_it_keeps_its_bias(place: str, rule: str) -> None:
    """Its own rule is LRP-0; the convolution next to it has the composite's."""
    own, definition = RULES[rule]
    conv, norm = nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)
    zero, of_conv = reference.weighted(reference.zero), reference.weighted(definition)
    if place == "before a convolution":
        model = settle(nn.Sequential(norm, conv)).double()
        steps = [(norm, zero), (conv, of_conv)]
    else:
        relu = nn.ReLU()
        model = settle(nn.Sequential(conv, relu, norm)).double()
        steps = [(conv, of_conv), (relu, reference.activation), (norm, zero)]
    x = torch.randn(3, 2, 4, 4).double()
    values, seed = explained(model, x, relprop.Composite({"conv": own}))
    close(values, reference.propagate(steps, x, seed))


def test_another_reader_of_the_convolution_keeps_its_own_share() -> None:
    """The norm and a branch beside it read the same convolution: only the norm's part is merged."""

    class Branching(nn.Module):
        def __init__(self, normed: bool, raw: bool):
            super().__init__()
            self.conv, self.norm = conv, norm
            self.normed, self.raw = normed, raw

        def forward(self, x: Tensor) -> Tensor:
            z = self.conv(x)
            return self.norm(z) * self.normed + z * self.raw

    conv, norm = settle(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))).double()
    x = torch.randn(2, 2, 4, 4).double()
    target = total
    composite = relprop.Composite({"conv": relprop.Gamma()})
    both, normed, raw = (
        relprop.attribute(Branching(*parts).eval(), x, target, composite=composite).values
        for parts in ((True, True), (True, False), (False, True))
    )
    # Relevance is additive in what arrives, and each branch hands its own to the convolution's input.
    conv_alone = relprop.attribute(conv, x, target, composite=composite).values
    merged = relprop.attribute(nn.Sequential(conv, norm), x, target, composite=composite).values
    close(raw, conv_alone)
    close(normed, merged)
    close(both, normed + raw)


def test_without_running_statistics_the_batch_decides() -> None:
    """`track_running_stats=False` normalises by the batch at hand, so one sample's map would depend on the
    others.
    """
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, track_running_stats=False)).double().eval()
    with pytest.raises(relprop.errors.ModelStateError, match="running"):
        relprop.attribute(model, torch.randn(3, 2, 4, 4).double(), total)


@over_rules
def test_functional_and_module_agree(rule: str) -> None:
    model = settle(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))).double()
    conv, norm = model

    class Functional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = F.conv2d(x, conv.weight, conv.bias)
            return F.batch_norm(z, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)

    x = torch.randn(2, 2, 4, 4).double()
    composite = relprop.Composite({"conv": RULES[rule][0]})
    target = total
    close(
        relprop.attribute(Functional(), x, target, composite=composite).values,
        relprop.attribute(model, x, target, composite=composite).values,
    )


def test_the_automatic_choice_merges_like_the_composite_it_picks() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(),
        nn.Linear(5 * 16, 3),
    ).double()  # fmt: skip
    for _ in range(3):
        model(torch.randn(8, 3, 8, 8).double())
    model.eval()
    x = torch.randn(2, 3, 8, 8).double()
    picked = relprop.attribute(model, x, 0)
    assert picked.composite.name == "gamma_box"
    torch.testing.assert_close(picked.values, relprop.attribute(model, x, 0, composite="gamma_box").values)


class Frozen(nn.Module):
    """A BatchNorm as detection networks freeze it: a scale and a shift, in one of the ways people write them."""

    def __init__(self, norm: nn.BatchNorm2d, how: str) -> None:
        super().__init__()
        self.how = how
        scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
        self.register_buffer("scale", scale.reshape(1, -1, 1, 1))
        self.register_buffer("mean", norm.running_mean.reshape(-1, 1, 1))
        self.bias = nn.Parameter(norm.bias.detach().reshape(1, -1, 1, 1))

    def forward(self, h: Tensor) -> Tensor:
        shift = self.bias - self.mean * self.scale
        if self.how == "scale, shift":
            return h * self.scale + shift
        if self.how == "indexed":
            return h * self.scale.flatten()[None, :, None, None] + shift.flatten()[None, :, None, None]
        if self.how == "in place":
            h *= self.scale
            h += shift
            return h
        if self.how == "mean, divisor, shift":
            return (h - self.mean) / (1 / self.scale) + self.bias
        return torch.sub(shift, -self.scale * h)


@over_rules
@pytest.mark.parametrize("how", ["scale, shift", "indexed", "in place", "mean, divisor, shift", "shift minus"])
def test_written_by_hand_it_merges_too(how: str, rule: str) -> None:
    own, definition = RULES[rule]
    conv, norm, last = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(12, 2)
    model = settle(nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), last)).double()
    norm.weight.data[0].neg_()
    x = torch.randn(3, 2, 4, 4).double()
    composite = relprop.Composite({"conv": own, "linear": own})
    written = nn.Sequential(conv, Frozen(norm, how), *model[2:])
    weights = torch.randn(2).double()
    seed = reference.weighted(definition)
    steps = [(model[:2], seed), (model[2], reference.activation), (model[3], reference.moved), (last, seed)]
    values = relprop.attribute(written, x, target=lambda y: (y * weights).sum(1), composite=composite).values
    close(values, reference.propagate(steps, x, lambda y: y * weights))


@over_rules
def test_a_bias_written_by_hand_is_a_layers_bias(rule: str) -> None:
    own, definition = RULES[rule]
    layer = nn.Linear(4, 3).double()
    x, weights = torch.randn(3, 4).double(), torch.randn(3).double()
    spelled: list[Callable[[Tensor], Tensor]] = [
        layer,
        lambda x: x @ layer.weight.T + layer.bias,
        lambda x: layer.bias + F.linear(x, layer.weight),
        lambda x: F.linear(x, layer.weight).add_(layer.bias),
        lambda x: torch.addmm(layer.bias, x, layer.weight.T),
        lambda x: torch.einsum("bi,oi->bo", x, layer.weight) + layer.bias,
        lambda x: torch.einsum("oi, bi -> bo", layer.weight, x) + layer.bias,
    ]
    expected = reference.propagate([(layer, reference.weighted(definition))], x, lambda y: y * weights)
    for f in spelled:
        composite = relprop.Composite({"linear": own})
        close(relprop.attribute(f, x, target=lambda y: (y * weights).sum(1), composite=composite).values, expected)


@pytest.mark.parametrize("rule", ["gamma", "epsilon"])
@pytest.mark.parametrize("written", [False, True], ids=["given", "written into a copy of a parameter"])
def test_what_is_added_for_each_sample_is_no_bias(written: bool, rule: str) -> None:
    """A sample has one map, alone and in a batch, also where a constant of its own is added to a layer's output."""
    torch.manual_seed(0)
    conv, last = nn.Conv2d(2, 3, 3).double(), nn.Linear(12, 2).double()

    def model(x: Tensor, times: Tensor) -> Tensor:
        added = times[:, :, None, None]
        if written:
            added = conv.bias.repeat(len(x), 1)[:, :, None, None]
            with torch.no_grad():
                added[:, :, 0, 0] = times
        return last((conv(x) + added).relu().flatten(1))

    x, times = torch.randn(3, 2, 4, 4).double(), torch.randn(3, 3).double()
    composite = relprop.Composite({"conv": RULES[rule][0], "linear": RULES[rule][0]})
    together = relprop.attribute(model, x, 1, composite=composite, forward_args=(times,)).values
    for n in range(3):
        one = slice(n, n + 1)
        alone = relprop.attribute(model, x[one], 1, composite=composite, forward_args=(times[one],)).values
        close(alone, together[one])


def test_a_rule_of_its_own_keeps_a_batch_norm_apart() -> None:
    """It is not folded into the layer before it, whose rule would act on both."""
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(4).double().eval()
    norm.running_mean.uniform_(-1, 1)  # type: ignore[union-attr, operator]
    model = nn.Sequential(nn.Linear(3, 4).double(), norm, nn.Linear(4, 1).double())
    x = torch.randn(2, 3, dtype=torch.float64)
    folded = relprop.Composite({"linear": relprop.Epsilon(0.3)})
    apart = relprop.Composite({"batch_norm": relprop.Zero(), "linear": relprop.Epsilon(0.3)})
    R, S = (relprop.attribute(model, x, composite=composite) for composite in (folded, apart))
    assert [place.merged for place, _ in R.rules if place.family == "batch_norm"] in ([], [True])
    assert [place.merged for place, _ in S.rules if place.family == "batch_norm"] == [False]
    z = model[0](x)
    stabilised = z / (z + 0.3 * z.sign())
    y = model[1](z)
    g = model[2].weight * ((o := model[2](y)) / (o + 0.3 * o.sign()))  # G at the BatchNorm's output
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()  # type: ignore[operator]
    wanted = x * ((g * scale * stabilised) @ model[0].weight)
    torch.testing.assert_close(S.values, wanted.detach())


@pytest.mark.parametrize("shape", [(1, 3, 3, 1), (2, 3, 3, 1), (1, 3, 2, 4), (2, 3, 4), (3, 3, 1)])
@pytest.mark.parametrize("before", [False, True], ids=["plain", "transposed before"])
@pytest.mark.parametrize("behind", [False, True], ids=["plain", "transposed behind"])
def test_how_numbers_lie_in_memory_does_not_matter(shape: tuple[int, ...], before: bool, behind: bool) -> None:
    """torch's own gradient of a frozen BatchNorm is wrong where input and gradient lie in another order."""
    norm = nn.BatchNorm2d(3) if len(shape) == 4 else nn.BatchNorm1d(3)
    norm.weight.data, norm.bias.data = torch.randn(3), torch.randn(3)
    norm.running_mean, norm.running_var = torch.randn(3), torch.rand(3) + 0.5
    norm = norm.double().eval()
    last = len(shape) - 1
    x = torch.randn(shape, dtype=torch.float64)
    weights = torch.randn(shape[0], x[0].numel(), dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        given = x.transpose(1, last).contiguous().transpose(1, last) if before else x
        y = norm(given)
        return (y.transpose(1, last) if behind else y).flatten(1)

    R = relprop.attribute(model, x, lambda y: (y * weights[: len(y)]).sum(1), composite="zero")
    factor = (norm.weight / (norm.running_var + norm.eps).sqrt()).reshape([1, 3] + [1] * (len(shape) - 2))
    handed = weights.view(x.transpose(1, last).shape).transpose(1, last) if behind else weights.view(shape)
    torch.testing.assert_close(R.values, x * factor.detach() * handed)
