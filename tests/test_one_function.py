"""One function, one map: each thing that is recognised by its structure, in the forms in which programs write it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import relprop
from helpers import D

close = partial(torch.testing.assert_close, rtol=1e-8, atol=1e-10)
Form = Callable[[Tensor], Tensor]

ZEROS = torch.zeros(3, 6, dtype=D)
SIX = torch.full((3, 6), 6.0, dtype=D)
W = torch.randn(6, dtype=D, generator=torch.Generator().manual_seed(2))
B = torch.randn(6, dtype=D, generator=torch.Generator().manual_seed(3))
ROOT = math.sqrt(0.5)
OUTER = math.sqrt(2 / math.pi)


def erf_gelu(t: Tensor) -> Tensor:
    return 0.5 * t * (1 + (t * ROOT).erf())


def tanh_gelu(t: Tensor) -> Tensor:
    return 0.5 * t * (1 + torch.tanh(OUTER * (t + 0.044715 * t**3)))


FUNCTIONS: dict[str, dict[str, Form]] = {
    "relu": {
        "F.relu": F.relu,
        "method": lambda t: t.relu(),
        "clamp": lambda t: t.clamp(min=0),
        "clamp by position": lambda t: torch.clamp(t, 0),
        "clip": lambda t: t.clip(0.0, None),
        "clamp with a tensor": lambda t: t.clamp(min=torch.tensor(0.0, dtype=D)),
        "clamp_min": lambda t: t.clamp_min(0),
        "threshold": lambda t: F.threshold(t, 0, 0),
        "torch.threshold": lambda t: torch.threshold(t, 0.0, 0.0),
        "hardtanh": lambda t: F.hardtanh(t, 0, 1e9),
        "maximum": lambda t: torch.maximum(t, ZEROS),
        "max of two": lambda t: torch.max(ZEROS, t),
        "fmax": lambda t: torch.fmax(t, torch.tensor(0.0, dtype=D)),
        "minimum, negated": lambda t: -torch.minimum(-t, ZEROS),
        "where": lambda t: torch.where(t > 0, t, 0.0),
        "a mask": lambda t: t * (t > 0),
        "a mask of its dtype": lambda t: t * (t > 0).to(t.dtype),
        "masked_fill": lambda t: t.masked_fill(t < 0, 0.0),
        "half of it and its size": lambda t: (t + t.abs()) / 2,
        "leaky by nothing": lambda t: F.leaky_relu(t, 0.0),
        "in place": lambda t: (t + 0).relu_(),
        "clamp in place": lambda t: (t + 0).clamp_(min=0),
        "threshold in place": lambda t: F.threshold(t + 0, 0, 0, inplace=True),
        "by an index": lambda t: (lambda u: u.__setitem__(u < 0, 0.0) or u)(t.clone()),
    },
    "leaky relu": {
        "F.leaky_relu": lambda t: F.leaky_relu(t, 0.1),
        "where": lambda t: torch.where(t > 0, t, 0.1 * t),
        "maximum": lambda t: torch.maximum(t, 0.1 * t),
        "prelu": lambda t: F.prelu(t, torch.tensor([0.1], dtype=D)),
        "clamps": lambda t: t.clamp(min=0) + 0.1 * t.clamp(max=0),
    },
    "abs": {
        "abs": torch.abs,
        "two relus": lambda t: F.relu(t) + F.relu(-t),
        "maximum": lambda t: torch.maximum(t, -t),
        "by its sign": lambda t: t * t.sign(),
        "where": lambda t: torch.where(t < 0, -t, t),
        "a root of a square": lambda t: (t * t).sqrt(),
    },
    "relu6": {
        "F.relu6": F.relu6,
        "hardtanh": lambda t: F.hardtanh(t, 0.0, 6.0),
        "clamp": lambda t: t.clamp(0, 6),
        "relu, then clamp": lambda t: F.relu(t).clamp(max=6),
        "clamp twice": lambda t: t.clamp_min(0).clamp_max(6),
        "minimum of relu": lambda t: torch.minimum(F.relu(t), SIX),
        "in place": lambda t: F.relu6(t + 0, inplace=True),
    },
    "hardsigmoid": {
        "F.hardsigmoid": F.hardsigmoid,
        "relu6": lambda t: F.relu6(t + 3) / 6,
        "clamp": lambda t: (t / 6 + 0.5).clamp(0, 1),
        "relu and a cap": lambda t: F.relu(t + 3).clamp(max=6) / 6,
        "hardtanh": lambda t: F.hardtanh(t + 3, 0, 6) * (1 / 6),
    },
    "hardswish": {
        "F.hardswish": F.hardswish,
        "hardsigmoid": lambda t: t * F.hardsigmoid(t),
        "relu6": lambda t: t * F.relu6(t + 3) / 6,
        "clamp": lambda t: t * (t + 3).clamp(0, 6) * (1 / 6),
        "relu and a cap": lambda t: F.relu(t + 3).clamp(max=6) / 6 * t,
    },
    "sigmoid": {
        "sigmoid": torch.sigmoid,
        "F.sigmoid": lambda t: torch.special.expit(t),
        "a quotient": lambda t: 1 / (1 + torch.exp(-t)),
        "reciprocal": lambda t: (1 + (-t).exp()).reciprocal(),
        "a negative power": lambda t: (1 + torch.exp(-t)) ** -1,
        "exp over exp": lambda t: t.exp() / (1 + t.exp()),
        "tanh": lambda t: 0.5 * (1 + torch.tanh(t / 2)),
        "logsigmoid": lambda t: F.logsigmoid(t).exp(),
    },
    "tanh": {
        "tanh": torch.tanh,
        "sigmoid": lambda t: 2 * torch.sigmoid(2 * t) - 1,
        "exponentials": lambda t: (t.exp() - (-t).exp()) / (t.exp() + (-t).exp()),
        "a quotient": lambda t: 1 - 2 / ((2 * t).exp() + 1),
        "sinh over cosh": lambda t: t.sinh() / t.cosh(),
    },
    "silu": {
        "F.silu": F.silu,
        "a product": lambda t: t * torch.sigmoid(t),
        "reversed": lambda t: torch.sigmoid(t) * t,
        "a quotient": lambda t: t / (1 + torch.exp(-t)),
        "in place": lambda t: t.clone().mul_(t.sigmoid()),
        "of a copy": lambda t: t * t.clone().sigmoid(),
        "of a view": lambda t: t * t.view(-1).sigmoid().view(3, 6),
        "moved and back": lambda t: t * t.t().sigmoid().t(),
        "half and tanh": lambda t: t / 2 * (1 + torch.tanh(t / 2)),
        "of slices": lambda t: torch.cat([t[:, :2] * t[:, :2].sigmoid(), t[:, 2:] * torch.sigmoid(t[:, 2:])], 1),
        "of picked columns": lambda t: (lambda i: t[:, i] * t[:, i].sigmoid())(torch.arange(6)),
        "through a cast": lambda t: t * t.to(torch.float64).sigmoid().to(t.dtype),
    },
    "gelu": {
        "F.gelu": F.gelu,
        "erf": erf_gelu,
        "the normal distribution": lambda t: t * torch.special.ndtr(t),
        "a square root of two": lambda t: t * 0.5 * (1.0 + torch.erf(t / math.sqrt(2.0))),
        "erfc": lambda t: 0.5 * t * torch.erfc(-t * ROOT),
    },
    "gelu by tanh": {
        "F.gelu": lambda t: F.gelu(t, approximate="tanh"),
        "written": tanh_gelu,
        "pow": lambda t: t * 0.5 * (1 + (OUTER * (t + 0.044715 * t.pow(3))).tanh()),
        "factored": lambda t: 0.5 * t * (1 + torch.tanh(t * 0.7978845608028654 * (1 + 0.044715 * t * t))),
    },
    "softplus": {
        "F.softplus": F.softplus,
        "log": lambda t: (1 + t.exp()).log(),
        "log1p": lambda t: torch.log1p(t.exp()),
        "logaddexp": lambda t: torch.logaddexp(t, torch.zeros((), dtype=D)),
        "logsigmoid": lambda t: -F.logsigmoid(-t),
        "stable": lambda t: F.relu(t) + torch.log1p(torch.exp(-t.abs())),
    },
    "elu": {
        "F.elu": F.elu,
        "where": lambda t: torch.where(t > 0, t, t.exp() - 1),
        "expm1": lambda t: torch.where(t > 0, t, torch.expm1(t)),
        "two parts": lambda t: F.relu(t) + (t.clamp(max=0).exp() - 1),
    },
    "mish": {
        "F.mish": F.mish,
        "written": lambda t: t * torch.tanh(F.softplus(t)),
        "by exponentials": lambda t: t * torch.tanh(torch.log1p(t.exp())),
    },
    "square": {
        "square": torch.square,
        "addcmul": lambda t: torch.addcmul(torch.zeros((), dtype=t.dtype), t, t),
        "pow": lambda t: t.pow(2),
        "operator": lambda t: t**2,
        "product": lambda t: t * t,
        "of copies": lambda t: t.clone() * t,
        "in place": lambda t: (t + 0).pow_(2),
    },
    "mean": {
        "mean": lambda t: t.mean(-1),
        "sum": lambda t: t.sum(-1) / 6,
        "a pool": lambda t: F.adaptive_avg_pool1d(t[:, None], 1)[:, 0, 0],
        "average pool": lambda t: F.avg_pool1d(t[:, None], 6).flatten(),
        "einsum": lambda t: torch.einsum("bi->b", t) / 6,
    },
    "variance": {
        "var": lambda t: t.var(-1, unbiased=False),
        "torch.var": lambda t: torch.var(t, -1, correction=0),
        "written": lambda t: ((t - t.mean(-1, keepdim=True)) ** 2).mean(-1),
        "square of centred": lambda t: (t - t.mean(-1, keepdim=True)).square().mean(-1),
        "of moments": lambda t: (t**2).mean(-1) - t.mean(-1) ** 2,
        "var_mean": lambda t: torch.var_mean(t, -1, correction=0)[0],
    },
    "layer norm": {
        "F.layer_norm": lambda t: F.layer_norm(t, (6,), W, B, 1e-3),
        "torch.layer_norm": lambda t: torch.layer_norm(t, (6,), W, B, 1e-3),
        "var": lambda t: (t - t.mean(-1, keepdim=True)) / (t.var(-1, keepdim=True, correction=0) + 1e-3).sqrt() * W + B,
        "rsqrt": lambda t: (
            (t - t.mean(-1, keepdim=True)) * torch.rsqrt(t.var(-1, unbiased=False, keepdim=True) + 1e-3) * W + B
        ),
        "a negative power": lambda t: (
            (t - t.mean(-1, keepdim=True)) * (t.var(-1, unbiased=False, keepdim=True) + 1e-3).pow(-0.5) * W + B
        ),
        "centred squares": lambda t: (lambda c: W * (c / torch.sqrt((c * c).mean(-1, keepdim=True) + 1e-3)) + B)(
            t - t.mean(-1, keepdim=True)
        ),
        "moments": lambda t: (
            W
            * (
                (t - t.mean(-1, keepdim=True))
                / ((t**2).mean(-1, keepdim=True) - t.mean(-1, keepdim=True) ** 2 + 1e-3).sqrt()
            )
            + B
        ),
        "var_mean": lambda t: (lambda v, m: (t - m) * (v + 1e-3).rsqrt() * W + B)(
            *torch.var_mean(t, -1, correction=0, keepdim=True)
        ),
        "a group of one": lambda t: F.group_norm(t[:, :, None], 1, W, B, 1e-3)[..., 0],
        "a quotient of one": lambda t: (
            (t - t.mean(-1, keepdim=True)) * (1 / (t.var(-1, unbiased=False, keepdim=True) + 1e-3).sqrt()) * W + B
        ),
    },
    "rms norm": {
        "F.rms_norm": lambda t: F.rms_norm(t, (6,), W, 1e-3),
        "rsqrt": lambda t: W * (t * torch.rsqrt(t.pow(2).mean(-1, keepdim=True) + 1e-3)),
        "sqrt": lambda t: t / (t.square().mean(-1, keepdim=True) + 1e-3).sqrt() * W,
        "product": lambda t: t / torch.sqrt((t * t).sum(-1, keepdim=True) / 6 + 1e-3) * W,
        "through a cast": lambda t: (
            W * (t.double() * torch.rsqrt(t.double().pow(2).mean(-1, keepdim=True) + 1e-3)).to(D)
        ),
    },
    "unit length": {
        "F.normalize": lambda t: F.normalize(t, dim=-1),
        "norm": lambda t: t / t.norm(dim=-1, keepdim=True),
        "linalg": lambda t: t / torch.linalg.vector_norm(t, dim=-1, keepdim=True),
        "clamped": lambda t: t / t.norm(2, -1, keepdim=True).clamp_min(1e-12),
        "a root of squares": lambda t: t / t.pow(2).sum(-1, keepdim=True).sqrt(),
        "rsqrt": lambda t: t * (t * t).sum(-1, keepdim=True).rsqrt(),
        "a reciprocal": lambda t: t * t.norm(dim=-1, keepdim=True).reciprocal(),
    },
    "a gated unit": {
        "F.glu": lambda t: F.glu(t, -1),
        "chunks": lambda t: (lambda a, b: a * torch.sigmoid(b))(*t.chunk(2, -1)),
        "slices": lambda t: t[:, :3] * t[:, 3:].sigmoid(),
        "a quotient": lambda t: t[:, :3] * (1 / (1 + torch.exp(-t[:, 3:]))),
        "split": lambda t: (lambda a, b: b.sigmoid() * a)(*t.split(3, 1)),
    },
}
PAIRS = [(name, form) for name, forms in FUNCTIONS.items() for form in list(forms)[1:]]
COMPOSITES = ["zero", "attnlrp", "cp_lrp", "epsilon", "gamma_flat"]
SHIFTS: dict[str, Form] = {
    "as it is": lambda t: t,
    "behind a number": lambda t: t + 0.3,
    "behind a factor": lambda t: 1.7 * t - 0.2,
}


def operands(behind: str) -> tuple[Tensor, Form]:
    """An input, and what is done before: nothing, or a layer."""
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(3, 6, dtype=D, generator=generator)
    w = torch.randn(6, 6, dtype=D, generator=generator)
    return x, (lambda t: F.linear(t, w)) if behind == "a layer" else (lambda t: t)


@pytest.mark.parametrize("behind", ["the input", "a layer"])
@pytest.mark.parametrize("name, form", PAIRS)
def test_every_form_gives_one_map(name: str, form: str, behind: str) -> None:
    x, before = operands(behind)
    shifts = {"as it is": SHIFTS["as it is"]} if name in ("square", "mean", "variance") else SHIFTS
    first = next(iter(FUNCTIONS[name].values()))
    other = FUNCTIONS[name][form]
    for where, shift in shifts.items():
        for composite in COMPOSITES:
            one, two = (
                relprop.attribute(
                    lambda t, f=f, shift=shift: (f(shift(before(t))) * torch.arange(1.0, 4, dtype=D).reshape(3, *[1] * (f(x).ndim - 1))).reshape(3, -1).sum(1),  # type: ignore[misc]
                    x, composite=composite,
                )
                for f in (first, other)
            )  # fmt: skip
            close(two.values, one.values, msg=lambda m, w=where, c=composite: f"{name}, {form}, {w}, {c}: {m}")  # type: ignore[misc]
            close(two.score, one.score)


def test_a_kink_at_an_exact_zero_has_one_slope() -> None:
    """A cap or a relu of `1 - 1` passes nothing on, however many entries are capped, in any spelling."""
    spellings: dict[str, Callable[[Tensor], Tensor]] = {
        "relu and cap": lambda t: t.relu().clamp_max(0.7),
        "clamp": lambda t: t.clamp(0, 0.7),
        "clamp in place": lambda t: t.clone().clamp_(0, 0.7),
        "hardtanh": lambda t: F.hardtanh(t, 0.0, 0.7),
        "relu6": lambda t: F.relu6(t * (6 / 0.7)) * (0.7 / 6),
    }
    below: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": lambda t: -(-t).relu(),
        "clamp": lambda t: t.clamp(max=0),
        "minimum": lambda t: torch.minimum(t, torch.zeros_like(t)),
        "hardtanh": lambda t: F.hardtanh(t, -100.0, 0.0),
    }
    for x in (torch.tensor([[1.0, 1.0], [2.0, 1.0]], dtype=D), torch.tensor([[1.0, 1.0]] * 20, dtype=D)):
        for forms in (spellings, below):
            found = {
                name: relprop.attribute(lambda x, f=f: f(x[:, 0] - x[:, 1]) + x[:, 0], x, composite="zero").values
                for name, f in forms.items()
            }
            for values in found.values():
                torch.testing.assert_close(values, next(iter(found.values())))
            assert torch.equal(values[0], torch.tensor([1.0, 0.0], dtype=D))


def test_a_sigmoid_of_an_activation_of_a_sum_is_an_activation() -> None:
    """Not a normaliser: `1 / (1 + exp(-sin(sum)))` is the sigmoid that it is by name."""
    x = torch.randn(2, 3, 4, dtype=D)
    forms: list[Callable[[Tensor], Tensor]] = [
        lambda x: torch.sigmoid(x.sum(1).sin()),
        lambda x: 1 / (1 + (-x.sum(1).sin()).exp()),
        lambda x: (1 + torch.exp(-x.sum(1).sin())).reciprocal(),
    ]
    maps = [relprop.attribute(f, x, lambda y: y.sum(1), composite="zero").values for f in forms]
    for values in maps[1:]:
        torch.testing.assert_close(values, maps[0])


def test_an_activation_of_a_logarithm_has_its_own_gradient() -> None:
    """`log(s) * sigmoid(log(s))` has no value at s = 0, from where a secant would start."""
    x = torch.rand(2, 4, dtype=D) + 0.5

    def written(x: Tensor) -> Tensor:
        h = (1 + x.softmax(-1)).log()
        return h * torch.sigmoid(h)

    named = relprop.attribute(lambda x: F.silu((1 + x.softmax(-1)).log()), x, 0, composite="zero")
    torch.testing.assert_close(relprop.attribute(written, x, 0, composite="zero").values, named.values)


def filled(t: Tensor, mask: Tensor, **kwargs: bool) -> Tensor:
    u = t.clone() if kwargs.get("copy") else t * 1
    u[mask] = 0.0
    return u


MASKED: dict[str, Form] = {
    "where": lambda t: torch.where(t > 0, t, 0.0),
    "where, above or at zero": lambda t: torch.where(t >= 0, t, torch.zeros_like(t)),
    "where, turned": lambda t: torch.where(t <= 0, 0.0, t),
    "where, negated": lambda t: torch.where(~(t > 0), torch.zeros((), dtype=D), t),
    "where of a method": lambda t: t.where(t.gt(0), torch.zeros((), dtype=D)),
    "zero is less": lambda t: torch.where(torch.lt(ZEROS, t), t, 0.0),
    "greater than a tensor": lambda t: t * torch.greater(t, ZEROS),
    "a mask": lambda t: t * (t > 0),
    "a mask in front": lambda t: (t >= 0) * t,
    "a mask of numbers": lambda t: t * (t > 0).double(),
    "a mask as its type": lambda t: t * (t > 0).type_as(t),
    "a mask, logically not": lambda t: t * torch.logical_not(t < 0).to(t.dtype),
    "a mask in place": lambda t: (lambda u: u.mul_(u > 0))(t + 0),
    "a mask by an operator in place": lambda t: (lambda u: u.__imul__(u >= 0))(t * 1),
    "masked_fill": lambda t: t.masked_fill(t < 0, 0.0),
    "torch.masked_fill": lambda t: torch.masked_fill(t, t <= 0, torch.zeros((), dtype=D)),
    "masked_fill in place": lambda t: (lambda u: u.masked_fill_(u < 0, 0))(t.clone()),
    "by an index": lambda t: filled(t, t < 0, copy=True),
    "by its own index": lambda t: (lambda u: u.__setitem__(u < 0, 0.0) or u)(t.clone()),
    "by an index in a tuple": lambda t: (lambda u: u.__setitem__((u < 0,), 0.0) or u)(t.clone()),
    "the mask of a copy": lambda t: t * (t.clone() > 0),
    "the mask of a view": lambda t: t * (t.view_as(t) > 0),
}
BELOW: dict[str, Form] = {
    "where": lambda t: torch.where(t < 0, t, 0.0),
    "where, turned": lambda t: torch.where(t >= 0, 0.0, t),
    "a mask": lambda t: t * (t < 0),
    "masked_fill": lambda t: t.masked_fill(t > 0, 0.0),
    "by an index": lambda t: (lambda u: u.__setitem__(u > 0, 0.0) or u)(t.clone()),
}


@pytest.mark.parametrize("around", ["alone", "between activations", "as a gate", "before a flat layer", "twice"])
@pytest.mark.parametrize("below, form", [(False, form) for form in MASKED] + [(True, form) for form in BELOW])
def test_a_mask_by_sign_is_a_relu(form: str, below: bool, around: str) -> None:
    """Between other activations too, as a gate, and for what exact zeros carry."""
    x, layer = operands("a layer")
    x[:, :2] = -x[:, :2].abs()  # what is not kept carries relevance under a flat layer

    def model(relu: Form) -> Form:
        made: dict[str, Form] = {
            "alone": lambda t: relu(layer(t)),
            "between activations": lambda t: F.silu(relu(F.gelu(layer(t)) - 0.1)),
            "as a gate": lambda t: relu(layer(t)) * (t + 0.2),
            "before a flat layer": lambda t: layer(relu(t)),
            "twice": lambda t: relu(torch.tanh(relu(layer(t)))),
        }
        return lambda t: made[around](t) @ W

    plain: Form = (lambda t: t.clamp(max=0)) if below else F.relu
    for composite in ("zero", "cp_lrp", "gamma_flat", "guided_backprop"):
        one, two = (
            relprop.attribute(model(f), x, composite=composite) for f in (plain, (BELOW if below else MASKED)[form])
        )
        close(two.values, one.values, msg=lambda m, c=composite: f"{c}: {m}")  # type: ignore[misc]
        assert torch.equal(two.output, model((BELOW if below else MASKED)[form])(x))


CENTRES, SPREADS = torch.linspace(-0.3, 0.4, 6, dtype=D), torch.linspace(0.5, 2.0, 6, dtype=D)
NORMS_OF_GATES: dict[str, list[Form]] = {
    "rms norm": list(FUNCTIONS["rms norm"].values()),
    "unit length": list(FUNCTIONS["unit length"].values()),
    "layer norm": list(FUNCTIONS["layer norm"].values())[:2],
    "batch norm": [
        lambda t: F.batch_norm(t, CENTRES, SPREADS, W, B, eps=0.0),
        lambda t: (t - CENTRES) / SPREADS.sqrt() * W + B,
    ],
}


@pytest.mark.parametrize("composite", ["cp_lrp", "attnlrp", "gamma_flat"])
@pytest.mark.parametrize("name", NORMS_OF_GATES)
def test_a_norm_of_a_gate_is_a_gate_or_none_however_it_is_written(name: str, composite: str) -> None:
    x, layer = operands("a layer")
    plain, *others = (
        relprop.attribute(lambda t, f=f: (t + 0.2) * f(F.softplus(layer(t))) @ W, x, composite=composite)  # type: ignore[misc]
        for f in NORMS_OF_GATES[name]
    )
    for other in others:
        close(other.values, plain.values)


def full(value: float) -> Tensor:
    return torch.full((3, 6), value, dtype=D)


INF = math.inf
BOUNDED: dict[str, dict[str, Form]] = {
    "from 0.3": {
        "clamp": lambda t: t.clamp(min=0.3),
        "clamp_min, in place": lambda t: (t * 1).clamp_min_(0.3),
        "a tensor": lambda t: t.clamp(min=torch.tensor(0.3, dtype=D)),
        "maximum": lambda t: torch.maximum(t, full(0.3)),
        "fmax": lambda t: torch.fmax(torch.full_like(t, 0.3), t),
        "where": lambda t: torch.where(t > 0.3, t, 0.3),
        "where, turned": lambda t: torch.where(t <= 0.3, torch.full_like(t, 0.3), t),
        "masked_fill": lambda t: t.masked_fill(t < 0.3, 0.3),
        "by an index": lambda t: (lambda u: u.__setitem__(u < 0.3, 0.3) or u)(t.clone()),
        "a relu of a shift": lambda t: F.relu(t - 0.3) + 0.3,
        "threshold": lambda t: F.threshold(t, 0.3, 0.3),
        "threshold, in place": lambda t: F.threshold(t * 1, 0.3, 0.3, inplace=True),
        "hardtanh": lambda t: F.hardtanh(t, 0.3, INF),
        "turned twice": lambda t: -(-t).clamp(max=-0.3),
        "another mask of it": lambda t: torch.where(t.clone() > 0.3, t, 0.3),
        "a mask of each entry": lambda t: torch.where(t > full(0.3), t, full(0.3)),
    },
    "up to -0.3": {
        "clamp": lambda t: t.clamp(max=-0.3),
        "minimum": lambda t: torch.minimum(t, full(-0.3)),
        "where": lambda t: torch.where(t < -0.3, t, -0.3),
        "a relu of a shift": lambda t: -0.3 - F.relu(-0.3 - t),
        "hardtanh": lambda t: F.hardtanh(t, -INF, -0.3),
    },
    "up to 0.3": {
        "clamp": lambda t: t.clamp(max=0.3),
        "minimum": lambda t: torch.minimum(t, full(0.3)),
        "where": lambda t: torch.where(t < 0.3, t, 0.3),
        "where, turned": lambda t: torch.where(t > 0.3, torch.full_like(t, 0.3), t),
        "masked_fill": lambda t: t.masked_fill(t > 0.3, 0.3),
        "masked_fill, in place": lambda t: (lambda u: u.masked_fill_(u > 0.3, 0.3))(t * 1),
        "by an index": lambda t: (lambda u: u.__setitem__((u > 0.3,), 0.3) or u)(t.clone()),
        "hardtanh": lambda t: F.hardtanh(t, -INF, 0.3),
        "threshold, turned twice": lambda t: -F.threshold(-t, -0.3, -0.3),
    },
    "from -0.3": {
        "clamp": lambda t: t.clamp(min=-0.3),
        "where": lambda t: torch.where(t > -0.3, t, -0.3),
        "threshold": lambda t: F.threshold(t, -0.3, -0.3),
        "maximum": lambda t: torch.maximum(t, full(-0.3)),
    },
    "between 0.1 and 0.4": {
        "clamp": lambda t: t.clamp(0.1, 0.4),
        "clamp, in place": lambda t: (t * 1).clamp_(0.1, 0.4),
        "hardtanh": lambda t: F.hardtanh(t, 0.1, 0.4),
        "one after the other": lambda t: t.clamp(min=0.1).clamp(max=0.4),
        "maximum and minimum": lambda t: torch.minimum(torch.maximum(t, full(0.1)), full(0.4)),
        "a relu and a cap": lambda t: (F.relu(t - 0.1) + 0.1).clamp(max=0.4),
        "where and where": lambda t: (lambda u: torch.where(u < 0.4, u, 0.4))(torch.where(t > 0.1, t, 0.1)),
        "turned twice": lambda t: -(-t).clamp(-0.4, -0.1),
    },
    "a threshold": {
        "F.threshold": lambda t: F.threshold(t, 0.3, 0.1),
        "where": lambda t: torch.where(t > 0.3, t, 0.1),
    },
    "a leaky relu": {
        "F.leaky_relu": lambda t: F.leaky_relu(t, 0.1),
        "where": lambda t: torch.where(t > 0, t, 0.1 * t),
        "maximum": lambda t: torch.maximum(t, 0.1 * t),
        "F.prelu": lambda t: F.prelu(t, torch.tensor([0.1], dtype=D)),
    },
}
AROUND: dict[str, Callable[[Form, Form], Form]] = {
    "alone": lambda f, layer: lambda t: f(layer(t)),
    "a bias before": lambda f, layer: lambda t: f(layer(t) - 0.2),
    "of the input": lambda f, layer: lambda t: layer(f(t)),
    "a shift and an activation behind": lambda f, layer: lambda t: F.silu(f(layer(t)) - 0.7),
    "a bias before, an activation behind": lambda f, layer: lambda t: F.silu(f(layer(t) + 0.1) - 0.7),
    "an activation behind": lambda f, layer: lambda t: F.gelu(f(layer(t))),
}
MEETS: dict[str, Callable[[Form, Form], Form]] = {
    "where it meets its operand": lambda f, layer: lambda t: (lambda h: h / (f(h).exp() + 1))(layer(t)),
    "where it meets its operand, shifted": lambda f, layer: (
        lambda t: (lambda h: h * torch.sigmoid(f(h - 0.1)))(layer(t))
    ),
}
OFF_ZERO = ("from 0.3", "up to -0.3", "between 0.1 and 0.4", "a threshold")
"""Bounds that select: whether they are seen as functions of an operand that they meet hangs on how they are written."""
NAMED: dict[str, Callable[[Form, Form], Form]] = {
    "as a gate": lambda f, layer: lambda t: f(layer(t)) * (t + 0.2),
    "between activations": lambda f, layer: lambda t: F.silu(f(F.gelu(layer(t)) - 0.1) - 0.2),
}


@pytest.mark.parametrize("composite", ["zero", "cp_lrp", "gamma_flat"])
@pytest.mark.parametrize("name", BOUNDED)
def test_a_bound_is_one_however_it_is_written(name: str, composite: str) -> None:
    """A bound on the way from 0 to x is picked or not; one beyond 0 or x saturates. What follows starts anew behind it."""
    x, layer = operands("a layer")
    plain, *others = BOUNDED[name].items()
    around = AROUND if name == "a threshold" else AROUND | NAMED  # a selection of two numbers has no name
    around = around if name in OFF_ZERO else around | MEETS
    for where, model in around.items():
        wanted = relprop.attribute(lambda t, m=model: m(plain[1], layer)(t) @ W, x, composite=composite)  # type: ignore[misc]
        for form, function in others:
            got = relprop.attribute(lambda t, m=model, f=function: m(f, layer)(t) @ W, x, composite=composite)  # type: ignore[misc]
            close(got.values, wanted.values, msg=lambda m, n=form, w=where: f"{n}, {w}: {m}")  # type: ignore[misc]


def test_a_mask_of_another_tensor_or_of_older_numbers_is_a_mask() -> None:
    """Only `x * (x > 0)` is a relu of x."""
    x, layer = operands("a layer")
    other = torch.randn(3, 6, dtype=D, generator=torch.Generator().manual_seed(5))

    def overwritten(t: Tensor) -> Tensor:
        h = F.gelu(layer(t))
        mask = h > 0
        h = h * 1
        h += other
        return F.silu(h * mask) @ W

    def as_constant(t: Tensor) -> Tensor:
        h = F.gelu(layer(t))
        mask = (h > 0).tolist()
        return F.silu((h + other) * torch.tensor(mask, dtype=D)) @ W

    for composite in ("zero", "cp_lrp", "gamma_flat"):
        one, two = (relprop.attribute(f, x, composite=composite).values for f in (as_constant, overwritten))
        close(two, one)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_a_slope_for_each_channel_between_activations(composite: str) -> None:
    """It is no function of a single number, so the next activation begins a chain of its own, as behind a product."""
    w = torch.rand(3, dtype=D, generator=torch.Generator().manual_seed(6))
    x = torch.randn(2, 3, 4, dtype=D, generator=torch.Generator().manual_seed(7))

    def by_mask(h: Tensor) -> Tensor:
        kept = torch.tensor((h > 0).tolist())
        return h * torch.where(kept, torch.ones((), dtype=D), w[:, None])

    one, other = (
        relprop.attribute(lambda t, f=f: torch.cat([f(F.softplus(t) - 1).exp(), t.sigmoid()], 1).flatten(1).sum(1), x, composite=composite)  # type: ignore[misc]
        for f in (by_mask, lambda h: F.prelu(h, w))
    )  # fmt: skip
    close(other.values, one.values)
