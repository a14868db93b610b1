"""Relevance of exact zeros: what a rule gives to an input of 0 arrives there, whatever linear steps lie between."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from helpers import D, close
from relprop import AlphaBeta, Composite, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus, first

THREES = torch.full((8,), 3.0, dtype=D)
MASK = torch.ones(8, 8, dtype=D)
ORDER = torch.randperm(8, generator=torch.Generator().manual_seed(0))

# What stands before the network, and where each entry of its result comes from: the identity, but for the order.
SCALED: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "/ 255": (lambda t: t / 255, lambda x: x * 255),
    "div_": (lambda t: t.clone().div_(255), lambda x: x * 255),
    "* 2": (lambda t: 2 * t, lambda x: x / 2),
    "mul_": (lambda t: (t + 0).mul_(2), lambda x: x / 2),
    "-x": (lambda t: -t, lambda x: -x),
    "0 - x": (lambda t: 0 - t, lambda x: -x),
    "rsub": (lambda t: torch.rsub(t, 0), lambda x: -x),
    "a buffer": (lambda t: t * THREES, lambda x: x / 3),
    "a number per channel": (lambda t: t * torch.full((1, 1, 1), 3.0, dtype=D), lambda x: x / 3),
    "two factors": (lambda t: (t * 4) / THREES, lambda x: x * 3 / 4),
    "x + x": (lambda t: t + t, lambda x: x / 2),
    "3 x - x": (lambda t: 3 * t - t, lambda x: x / 2),
    "torch.sub with alpha": (lambda t: torch.sub(t, t, alpha=3), lambda x: x / -2),
    "a cast": (lambda t: t.float().double(), lambda x: x),
    "a sum over one": (lambda t: t.unsqueeze(1).sum(1), lambda x: x),
    "a mean over copies": (lambda t: torch.stack([t, t]).mean(0), lambda x: x),
    "a pool of one": (lambda t: F.avg_pool2d(t, 1) * 2, lambda x: x / 2),
    "einsum": (lambda t: torch.einsum("nchw,w->nchw", t, THREES), lambda x: x / 3),
    "lerp": (lambda t: torch.lerp(torch.zeros_like(t), t, 0.25), lambda x: 4 * x),
    "addcmul": (lambda t: torch.addcmul(torch.zeros_like(t), t, THREES), lambda x: x / 3),
    "addcdiv": (lambda t: torch.addcdiv(torch.zeros_like(t), t, THREES), lambda x: x * 3),
    "as complex numbers": (lambda t: torch.view_as_real(torch.view_as_complex(t.reshape(-1, 2))).reshape(t.shape) / 2, lambda x: x * 2),
    "a square root of a square": (lambda t: (t * t).sqrt(), lambda x: x),
    "relu": (lambda t: t.relu(), lambda x: x),
    "clamp": (lambda t: (t * 2).clamp(min=0), lambda x: x / 2),
    "cat and halves": (lambda t: torch.cat([t, t * 2], 1)[:, :1] * 2, lambda x: x / 2),
    "written into a buffer": (lambda t: torch.zeros_like(t).copy_(t) / 2, lambda x: x * 2),
    "masked": (lambda t: t * MASK * 3, lambda x: x / 3),
    "scattered": (lambda t: torch.zeros_like(t).index_add(-1, torch.arange(8), t * 5), lambda x: x / 5),
    "a BatchNorm": (lambda t: F.batch_norm(t, torch.zeros(1, dtype=D), torch.full((1,), 0.25, dtype=D), eps=0.0), lambda x: x / 2),
}  # fmt: skip
FIRSTS = {"flat": Flat(), "w2": WSquare(), "box": ZBox(-0.5, 2.0), "bounds of its own": ZBox(0.0, 1.0)}


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3, bias=False)
    return nn.Sequential(*layers).to(D).eval()


def picture() -> Tensor:
    x = torch.rand(2, 1, 8, 8, dtype=D, generator=torch.Generator().manual_seed(1))
    x[..., :4] = 0
    return x


@pytest.mark.parametrize("rule", FIRSTS.values(), ids=FIRSTS)
@pytest.mark.parametrize("before, inverse", SCALED.values(), ids=SCALED)
def test_a_factor_before_the_first_layer_changes_nothing(before, inverse, rule) -> None:
    model, x = net(), picture()
    composite = Composite({first: rule, "conv": Gamma(0.25), "linear": Epsilon(1e-6)})
    tolerance = 1e-6 if before is SCALED["a cast"][0] else 1e-9
    expected = relprop.attribute(model, before(inverse(x)), 0, composite=composite)
    found = relprop.attribute(lambda t: model(before(t)), inverse(x), 0, composite=composite)
    torch.testing.assert_close(found.values, expected.values, rtol=tolerance, atol=tolerance)
    assert expected.values[..., :4].abs().sum() > 1e-3


@pytest.mark.parametrize("composite", ["auto", "epsilon_plus_flat", "deep_taylor"])
@pytest.mark.parametrize("name", ["/ 255", "-x", "3 x - x", "a mean over copies"])
def test_named_composites_too(name: str, composite: str) -> None:
    (before, inverse), model, x = SCALED[name], net(), picture()
    found = relprop.attribute(lambda t: model(before(t)), inverse(x), 0, composite=composite)
    close(found.values, relprop.attribute(model, x, 0, composite=composite).values)


MIXED: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    # of three channels that are all 0 each gets its weight's share of what their mean carries
    "a mean over channels": (lambda t: t.mean(1, keepdim=True), lambda r: r.expand(-1, 3, -1, -1) / 3),
    "a weighted mean": (
        lambda t: t[:, :1] * 0.5 + t[:, 1:2] * 0.25 + t[:, 2:] * 0.25,
        lambda r: torch.cat([r / 4, r / 4, r / 2], 1),
    ),
    "a difference": (lambda t: t[:, :1] - t[:, 1:2], lambda r: torch.cat([r / 2, r / 2, 0 * r], 1)),
    "one of them": (lambda t: t[:, 1:2], lambda r: torch.cat([0 * r, r, 0 * r], 1)),
    "a product": (lambda t: t[:, :1] * t[:, 1:2], lambda r: torch.cat([r / 2, r / 2, 0 * r], 1)),
}


@pytest.mark.parametrize("before, shares", MIXED.values(), ids=MIXED)
def test_zeros_that_meet_share_what_they_carry(before, shares) -> None:
    model = net()
    x = torch.zeros(1, 3, 8, 8, dtype=D)
    composite = Composite({first: Flat()})
    bias = nn.Conv2d(1, 4, 3).to(D).eval()
    whole = nn.Sequential(bias, *model[1:])
    alone = relprop.attribute(whole, before(x), 0, composite=composite).values
    assert alone.abs().sum() > 1e-3
    close(relprop.attribute(lambda t: whole(before(t)), x, 0, composite=composite).values, shares(alone))


def test_a_zero_that_came_about_otherwise_keeps_what_it_carries() -> None:
    """Of 1/2 - 1/2 no share can be told: nothing arrives, and no number explodes."""
    model, x = net(), picture()
    x[..., 4:] = 0.5
    R = relprop.attribute(lambda t: model(t - 0.5), x, 0, composite=Composite({first: Flat()}), ledger=True)
    assert R.values[..., 4:].abs().max() == 0
    assert R.values.abs().max() < 10
    close(R.values.flatten(1).sum(1) + R.residual, R.score)
    close(R.residual, sum(R.ledger.values(), torch.zeros(2, dtype=D)))


@pytest.mark.parametrize("rule", [Epsilon(0.1), ZPlus(), Gamma(0.25), AlphaBeta(2.0, 1.0)])
def test_proportional_rules_are_not_touched(rule: relprop.WeightedRule) -> None:
    """What the default decides at the end leaves the gradient at a zero as it is."""
    model, x = net(), picture()
    x[..., 4:] = 0.5
    composite = Composite({"conv": rule, "linear": Epsilon(1e-6)})
    shifted = relprop.attribute(lambda t: model(t - 0.5), x, 0, composite=composite).values
    y = (x - 0.5).requires_grad_()
    with relprop.propagate(composite, model=model, inputs=y):
        score = model(y)[:, 0].sum()
    close(shifted, x * torch.autograd.grad(score, y)[0])


HIDDEN: dict[str, Callable[[Tensor], Tensor]] = {
    "scaled": lambda h: h * 3.0,
    "negated twice": lambda h: torch.neg(-h),
    "a buffer": lambda h: h * torch.full((4, 1, 1), 3.0, dtype=D),
    "moved": lambda h: h.flip(2).roll(1, 3),
    "joined": lambda h: torch.cat([h, h * 2], 1)[:, 4:],
    "padded": lambda h: F.pad(h, (1, 1, 1, 1))[..., 1:-1, 1:-1],
    "picked": lambda h: h[:, :, ORDER[h.shape[2] > ORDER]],
    "pooled": lambda h: F.avg_pool2d(h, 2),
    "the largest": lambda h: F.max_pool2d(h, 2),
    "added": lambda h: h + 2 * h,
}


@pytest.mark.parametrize("step", HIDDEN.values(), ids=HIDDEN)
def test_hidden_layers_conserve_as_well(step) -> None:
    """A flat rule everywhere hands on all it gets, dead units included, and so must what lies between."""
    torch.manual_seed(0)
    a, b = (nn.Conv2d(*c, 3, bias=False).to(D).eval() for c in ((1, 4), (4, 5)))
    x = torch.rand(2, 1, 12, 12, dtype=D) - 0.5
    model = lambda t: b(step(a(t).relu())).sum((2, 3))  # noqa: E731
    R = relprop.attribute(model, x, 1, composite=Composite({"conv": Flat()}))
    close(R.residual, torch.zeros(2, dtype=D), atol=1e-9)
    assert R.score.abs().min() > 1e-3


def test_no_factor_is_given_where_zeros_carry_relevance() -> None:
    """Between 0 and what a flat rule gives to it there is no factor; the advice works."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(4, 8, 5), nn.ReLU(), nn.Flatten(), nn.Linear(96, 2)).eval()
    x = F.one_hot(torch.randint(4, (2, 16))).transpose(1, 2).float()
    for composite in ("epsilon_plus_flat", "gamma_flat", "deep_taylor"):
        with pytest.raises(relprop.errors.RuleError, match="composite='epsilon_plus'"):
            relprop.attribute(model, x, 0, composite=composite, multiply_by_inputs=False)
    factors = relprop.attribute(model, x, 0, composite="epsilon_plus", multiply_by_inputs=False).values
    torch.testing.assert_close(x * factors, relprop.attribute(model, x, 0, composite="epsilon_plus").values)


def _rms(t: Tensor) -> Tensor:
    return W8 / (t.square().mean(-1, keepdim=True) + 1e-3).sqrt()


W8 = torch.linspace(-1.0, 2.0, 8, dtype=D)
NORMS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "rms_norm": (lambda t: F.rms_norm(t, (8,), W8, 1e-3), _rms),
    "normalize": (lambda t: F.normalize(t, dim=-1), lambda t: 1 / t.norm(dim=-1, keepdim=True)),
    "local_response_norm": (lambda t: F.local_response_norm(t, 1), lambda t: F.local_response_norm(t, 1) / t),
}


@pytest.mark.parametrize("norm, factor", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("rule", FIRSTS.values(), ids=FIRSTS)
def test_norms_that_scale_keep_what_zeros_carry(norm, factor, rule) -> None:
    """They are products with a number that counts as a constant; with the same numbers, written as a product, the same map."""
    x = picture()
    assert (x == 0).any()
    constant = factor(x).nan_to_num(nan=1.0)
    composite = Composite({first: rule})
    model = net()
    found = relprop.attribute(lambda t: model(norm(t)), x, 1, composite=composite).values
    close(found, relprop.attribute(lambda t: model(t * constant), x, 1, composite=composite).values)
    assert found[x == 0].abs().max() > 0


SHIFTED: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda s: s - s.max(-1, keepdim=True)[0],
    "max without gradients": lambda s: s - s.detach().max(-1, keepdim=True)[0],
    "amax": lambda s: s - s.amax(-1, keepdim=True),
    "in place": lambda s: s.clone().sub_(s.detach().amax(-1, keepdim=True)),
    "scaled first": lambda s: (2 * s - 2 * s.detach().amax(-1, keepdim=True)) / 2,
    "times one": lambda s: (s - s.detach().amax(-1, keepdim=True)) * torch.ones(1, dtype=D),
}


@pytest.mark.parametrize("shift", SHIFTED.values(), ids=SHIFTED)
@pytest.mark.parametrize("rule", FIRSTS.values(), ids=FIRSTS)
def test_a_slope_at_a_zero_is_a_slope(shift, rule) -> None:
    """The largest score less itself is 0, and yet no zero of the input: its gradient goes on as it is."""
    torch.manual_seed(1)
    x, w = torch.randn(3, 5, dtype=D), torch.randn(2, 5, dtype=D)
    x[0, 1] = 0.0

    def written(x: Tensor) -> Tensor:
        e = shift(x).exp()
        return F.linear(e / e.sum(-1, keepdim=True), w)

    composite = Composite({first: rule})
    found = relprop.attribute(written, x, 1, composite=composite).values
    close(found, relprop.attribute(lambda x: F.linear(x.softmax(-1), w), x, 1, composite=composite).values)
    assert bool((found.abs().amax(-1) > 0).all())


# Functions that are 0 at 0, written as a difference that is 1 - 1 there.
DIFFERENCES: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "tanh by a sigmoid": lambda t: 2 * torch.sigmoid(2 * t) - 1,
    "tanh by a sigmoid, in place": lambda t: torch.sigmoid(2 * t).mul_(2).sub_(1),
    "tanh by a quotient": lambda t: 1 - 2 / ((2 * t).exp() + 1),
    "tanh by exponentials": lambda t: (t.exp() - (-t).exp()) / (t.exp() + (-t).exp()),
    "tanh by one exponential": lambda t: (lambda e: (e - 1) / (e + 1))((2 * t).exp()),
    "tanh by two sigmoids": lambda t: t.mul(2).sigmoid() - (-2 * t).sigmoid(),
    "tanh by a sigmoid and its rest": lambda t: (2 * t).sigmoid() - (1 - (2 * t).sigmoid()),
    "sinh": torch.sinh,
    "sinh by exponentials": lambda t: (t.exp() - (-t).exp()) / 2,
    "expm1": torch.expm1,
    "exp - 1": lambda t: t.exp() - 1,
    "exp - 1 by alpha": lambda t: torch.sub(t.exp(), 0.5, alpha=2),
    "1 - exp(-x)": lambda t: torch.rsub((-t).exp(), 1),
    "sigmoid - 1/2": lambda t: torch.sigmoid(t) + -0.5,
    "softplus - log 2": lambda t: F.softplus(t) - F.softplus(torch.zeros((), dtype=D)),
    "1 - cos": lambda t: 1 - t.cos(),
    "elu": lambda t: torch.where(t > 0, t, t.exp() - 1),
    "a relu of a difference": lambda t: (t.exp() - 1).relu(),
    "a difference, scaled and moved": lambda t: ((t.exp() - 1) * 3).flip(-1).flip(-1),
}  # fmt: skip


@pytest.mark.parametrize("function", DIFFERENCES.values(), ids=DIFFERENCES)
@pytest.mark.parametrize("rule", FIRSTS.values(), ids=FIRSTS)
def test_a_function_that_is_zero_at_zero_passes_on_what_zeros_carry(function, rule) -> None:
    """However it is written, its zeros hand their relevance to the zeros that made them."""
    model, x = net(), picture()
    composite = Composite({first: rule})
    y = function(x)
    wanted = relprop.attribute(model, y, 1, composite=composite)
    got = relprop.attribute(lambda t: model(function(t)), x, 1, composite=composite)
    assert bool(wanted.values[y == 0].any())
    close(got.values, wanted.values)


def test_a_score_of_zero_hands_out_nothing() -> None:
    """All entries are 0 by a bias, and so is the score: what a flat layer shares is 0 as well."""
    c, w = torch.tensor([[1.0, -2.0, 0.5]], dtype=D), torch.randn(4, 3, dtype=D)
    for model in (
        lambda x: F.linear(x - c, w),
        lambda x: F.linear(5 * (x - c), w),
        lambda x: F.linear((x - c).relu(), w),
    ):
        for composite in (Composite({relprop.last: Flat()}), Composite({first: Flat()}), "deep_taylor", "gamma_flat"):
            assert relprop.attribute(model, c, 1, composite=composite).values.abs().max() < 1e-100


def turned(t: Tensor) -> Tensor:
    return t.roll(1, -1) * 2 - 0.3 * t


HALF = torch.tensor([[False, True], [False, False]])
PRODUCTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "addcmul to nothing": (lambda t: torch.addcmul(torch.zeros((), dtype=D), t, turned(t)), lambda t: t * turned(t)),
    "addcmul to zeros": (
        lambda t: torch.addcmul(torch.zeros(4, dtype=D), t, turned(t)),
        lambda t: torch.zeros(4, dtype=D) + t * turned(t),
    ),
    "addcmul of one tensor": (
        lambda t: torch.addcmul(torch.zeros((), dtype=D), t, t.log_softmax(-1)),
        lambda t: t * t.log_softmax(-1),
    ),
    "addcmul of an activation with itself": (
        lambda t: F.softplus(torch.addcmul(torch.zeros((), dtype=D), F.softplus(t), F.softplus(t))),
        lambda t: F.softplus(F.softplus(t) * F.softplus(t)),
    ),
    "addcmul, all of it live": (lambda t: torch.addcmul(t, t, turned(t), value=2), lambda t: t + t * turned(t) * 2),
    "addcmul with a constant": (lambda t: torch.addcmul(t, t.tanh(), THREES[:4]), lambda t: t + t.tanh() * THREES[:4]),
    "addcmul in place": (lambda t: (t + 0).addcmul_(t, turned(t)), lambda t: t + t * turned(t)),
    "addcdiv": (lambda t: torch.addcdiv(t, turned(t), t.abs() + 1), lambda t: t + turned(t) / (t.abs() + 1)),
    "outer": (
        lambda t: torch.stack([torch.outer(row, turned(row)).sum(0) for row in t]),
        lambda t: torch.stack([(row[:, None] * turned(row)).sum(0) for row in t]),
    ),
    "ger of a gate": (
        lambda t: torch.stack([torch.ger(row.sigmoid(), turned(row)).sum(0) for row in t]),
        lambda t: torch.stack([(row.sigmoid()[:, None] * turned(row)).sum(0) for row in t]),
    ),
    "outer with a constant": (
        lambda t: torch.stack([torch.outer(row, THREES[:4]).sum(0) for row in t]),
        lambda t: torch.stack([(row[:, None] * THREES[:4]).sum(0) for row in t]),
    ),
    "xlogy": (lambda t: torch.xlogy(t, turned(t).abs() + 1), lambda t: t * torch.log(turned(t).abs() + 1)),
    "xlogy of a constant": (lambda t: torch.special.xlogy(2.0, t.abs() + 1), lambda t: 2.0 * torch.log(t.abs() + 1)),
    "an einsum that is written into": (
        lambda t: torch.einsum("ntd,nsd->nts", t.view(3, 2, 2), t.view(3, 2, 2)).masked_fill_(HALF, 0.0).flatten(1),
        lambda t: torch.einsum("ntd,nsd->nts", t.view(3, 2, 2), t.view(3, 2, 2)).masked_fill(HALF, 0.0).flatten(1),
    ),
    "a gated unit": (lambda t: F.glu(torch.cat([t, turned(t)], 1)), lambda t: t * turned(t).sigmoid()),
    "a gated unit of halves that are the same": (lambda t: F.glu(torch.cat([t, t], 1)), lambda t: t * t.sigmoid()),
    "a quotient that is a gate": (
        lambda t: t / (1 + (-turned(t).square()).exp()),
        lambda t: t * turned(t).square().sigmoid(),
    ),
    "an outer product by bmm": (
        lambda t: torch.bmm(t[:, :, None], turned(t)[:, None]).sum(1),
        lambda t: (t[:, :, None] * turned(t)[:, None]).sum(1),
    ),
    "an outer product by matmul": (
        lambda t: (turned(t)[:, :, None] @ t[:, None]).sum(1),
        lambda t: (turned(t)[:, :, None] * t[:, None]).sum(1),
    ),
    "an outer product by einsum": (
        lambda t: torch.einsum("ni,nj->nji", t, turned(t)).sum(2),
        lambda t: (t[:, None] * turned(t)[:, :, None]).sum(2),
    ),
    "an inner product by einsum": (
        lambda t: torch.einsum("nf,nf->n", t, turned(t))[:, None] * THREES[:4],
        lambda t: (t * turned(t)).sum(1, keepdim=True) * THREES[:4],
    ),
    "a sum of squares by einsum": (
        lambda t: torch.einsum("n...f,n...f->n...", t.tanh(), t.tanh())[:, None] * THREES[:4],
        lambda t: t.tanh().square().sum(1, keepdim=True) * THREES[:4],
    ),
    "a sum of squares by vecdot": (
        lambda t: torch.linalg.vecdot(F.softplus(t), F.softplus(t))[:, None] * THREES[:4],
        lambda t: F.softplus(t).square().sum(1, keepdim=True) * THREES[:4],
    ),
    "inner products by bmm": (
        lambda t: torch.bmm(t.view(-1, 1, 1), turned(t).view(-1, 1, 1)).view(t.shape),
        lambda t: t * turned(t),
    ),
    "a norm by einsum": (
        lambda t: t / (torch.einsum("nf,nf->n", t, t)[:, None] / 4 + 0.1).sqrt(),
        lambda t: t / (t.square().mean(1, keepdim=True) + 0.1).sqrt(),
    ),
}


@pytest.mark.parametrize("composite", ["zero", "gamma_flat", "gamma_box", "cp_lrp", "attnlrp"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_in_one_operation_keep_what_zeros_carry(name: str, composite: str) -> None:
    """As the operations that they stand for."""
    x = torch.tensor([[0.0, 1.0, 2.0, 0.5], [0.3, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.2]], dtype=D)
    w = torch.linspace(-1, 1, 8, dtype=D).reshape(4, 2)
    found, wanted = (
        relprop.attribute(lambda t, f=f: f(t) @ w, x, 0, composite=composite).values  # type: ignore[misc]
        for f in PRODUCTS[name]
    )
    close(found, wanted)


TO = torch.tensor([0, 1, 1, 2, 2, 2, 3, 3])
FROM = torch.tensor([1, 0, 2, 1, 3, 3, 2, 0])


def spread(t: Tensor) -> Tensor:
    return TO.expand(len(t), -1)


BY_INDEX: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "index_add": (lambda t: torch.zeros_like(t).index_add(1, TO, t[:, FROM]), False),
    "scatter_add": (lambda t: torch.zeros_like(t).scatter_add(1, spread(t), t[:, FROM]), False),
    "scatter_reduce": (lambda t: torch.zeros_like(t).scatter_reduce(1, spread(t), t[:, FROM], "sum"), False),
    "scatter_reduce in place": (lambda t: torch.zeros_like(t).scatter_reduce_(1, spread(t), t[:, FROM], "sum"), False),
    "scatter_reduce without itself": (
        lambda t: torch.ones_like(t).scatter_reduce(1, spread(t), t[:, FROM], "sum", include_self=False),
        False,
    ),
    "segment_reduce": (
        lambda t: torch.segment_reduce(t[:, FROM], "sum", lengths=torch.tensor([1, 2, 3, 2]).expand(len(t), -1), axis=1),
        False,
    ),
    "a mean by scatter_reduce": (
        lambda t: torch.zeros_like(t).scatter_reduce(1, spread(t), t[:, FROM], "mean", include_self=False),
        True,
    ),
    "a mean by index_reduce": (
        lambda t: torch.zeros_like(t).index_reduce(1, TO, t[:, FROM], "mean", include_self=False),
        True,
    ),
    "a mean by segment_reduce": (
        lambda t: torch.segment_reduce(t[:, FROM], "mean", lengths=torch.tensor([1, 2, 3, 2]).expand(len(t), -1), axis=1),
        True,
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:index_reduce")  # torch says once that it is in beta
@pytest.mark.parametrize("rule", [Flat(), ZBox(), relprop.WSquare()])
@pytest.mark.parametrize("name", BY_INDEX)
def test_sums_by_index_share_what_zeros_carry(name: str, rule: relprop.WeightedRule) -> None:
    """Of zeros that are all summed up, each gets its share: as where the sums are written one by one."""
    x = torch.tensor([[0.0, 1.0, 2.0, 0.5], [0.3, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.2], [0.0, 0.0, 0.0, 0.0]], dtype=D)
    w = torch.linspace(-1, 1, 8, dtype=D).reshape(4, 2)
    act, mean = BY_INDEX[name]

    def one_by_one(t: Tensor) -> Tensor:
        parts = [t[:, FROM[n == TO]] for n in range(4)]
        return torch.stack([part.mean(1) if mean else part.sum(1) for part in parts], 1)

    found, wanted = (
        relprop.attribute(lambda t, f=f: f(t) @ w, x, 0, composite=Composite({first: rule})).values  # type: ignore[misc]
        for f in (act, one_by_one)
    )
    close(found, wanted)
    assert found[3].abs().sum() == wanted[3].abs().sum()


@pytest.mark.parametrize("row", [[0.0, 0.0, 3.0], [0.0, 2.0, 3.0]])
def test_a_product_by_index_drops_what_zeros_carry(row: list[float]) -> None:
    """What it cannot share becomes part of the residual, and no number explodes."""
    torch.manual_seed(1)
    layer, x = nn.Linear(1, 2).double(), torch.tensor([row], dtype=D)
    to = torch.zeros((1, 3), dtype=torch.long)

    def model(t: Tensor) -> Tensor:
        return layer(torch.ones(1, 1, dtype=D).scatter_reduce(1, to, t, "prod", include_self=False))

    R = relprop.attribute(model, x, 0, composite=Composite({first: Flat()}))
    assert R.score.abs() > 1e-3
    assert R.values.abs().max() < 1e-100
    close(R.residual, R.score)


LENGTHS = torch.tensor([4, 2, 3])


def packed(x: Tensor) -> Tensor:
    pack = nn.utils.rnn.pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    return nn.utils.rnn.pad_packed_sequence(pack, batch_first=True)[0]


def without_padding(x: Tensor) -> Tensor:
    return torch.where((torch.arange(4) < LENGTHS[:, None])[..., None], x, 0.0)


@pytest.mark.parametrize("rule", [Flat(), WSquare(), ZBox(-1.0, 2.0)], ids=str)
def test_packed_sequences_keep_what_zeros_carry(rule: relprop.WeightedRule) -> None:
    torch.manual_seed(0)
    x, layer = torch.randn(3, 4, 5, dtype=D), nn.Linear(5, 2).to(D)
    x[..., :2] = 0
    rules = Composite({first: rule})
    maps = [
        relprop.attribute(lambda x, f=f: layer(f(x))[..., 0].sum(1), x, composite=rules).values
        for f in (packed, without_padding)
    ]
    close(maps[0], maps[1])


@pytest.mark.parametrize("composite", ["gamma_flat", "epsilon_plus_flat"])
def test_packed_sequences_in_a_recurrent_layer(composite: str) -> None:
    torch.manual_seed(0)
    x, layer = torch.randn(3, 4, 5, dtype=D), nn.LSTM(5, 2, batch_first=True, bidirectional=True).to(D)
    x[..., :2] = 0

    def model(x: Tensor) -> Tensor:
        pack = nn.utils.rnn.pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(layer(pack)[0], batch_first=True)[0].sum(1)

    R = relprop.attribute(model, x, 0, composite=composite)
    for n, length in enumerate(LENGTHS):
        alone = relprop.attribute(lambda x: layer(x)[0].sum(1), x[n : n + 1, :length], 0, composite=composite)
        close(R.values[n, :length], alone.values[0])
        assert not R.values[n, length:].any()


def test_an_operation_of_several_results() -> None:
    """Each slope is a difference of neighbours: a zero of it hands on nothing, as no difference of zeros does."""
    x = torch.rand(2, 5, 4, dtype=D)
    x[:, :, 0] = 0
    layer = nn.Linear(4, 3).to(D)
    R = relprop.attribute(
        lambda x: layer(torch.gradient(x, dim=(1, 2))[0]).sum(1), x, 0, composite=Composite({first: Flat()})
    )
    close(R.values.sum((1, 2)) + R.residual, R.score)
