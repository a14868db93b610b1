"""Norms: 1/std is a constant, the mean that is taken off stays linear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reference
import relprop
from helpers import close, weighed_by


def filled(norm: nn.Module) -> nn.Module:
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm.double().eval()


# The norm, a sample's shape, how many runs of units share a statistic, and whether a mean is taken off.
NORMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int, bool]] = {
    "layer norm": (lambda: nn.LayerNorm(6), (6,), 1, True),
    "layer norm on tokens": (lambda: nn.LayerNorm(4), (3, 4), 3, True),
    "layer norm of two dimensions": (lambda: nn.LayerNorm((3, 4)), (3, 4), 1, True),
    "layer norm without bias": (lambda: nn.LayerNorm(6, bias=False), (6,), 1, True),
    "rms norm": (lambda: nn.RMSNorm(6, eps=1e-5), (6,), 1, False),
    "rms norm on tokens": (lambda: nn.RMSNorm(4, eps=1e-5), (3, 4), 3, False),
    "group norm": (lambda: nn.GroupNorm(2, 4), (4, 3), 2, True),
    "group norm of images": (lambda: nn.GroupNorm(3, 6), (6, 2, 2), 3, True),
    "instance norm": (lambda: nn.InstanceNorm2d(3, affine=True), (3, 2, 2), 3, True),
    "instance norm, not affine": (lambda: nn.InstanceNorm1d(3), (3, 5), 3, True),
}


def weight_of(norm: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """The norm's own weight, for each unit of a sample."""
    if norm.weight is None:
        return torch.ones(shape).double()
    per_channel = isinstance(norm, nn.GroupNorm | nn.InstanceNorm1d | nn.InstanceNorm2d)
    weight = norm.weight.detach()
    return weight.reshape(-1, *[1] * (len(shape) - 1)).expand(shape) if per_channel else weight.expand(shape)


@pytest.mark.parametrize("name", NORMS)
def test_the_statistic_is_a_constant(name: str) -> None:
    """R_i = x_i sum_j a_ij v_j for a score v y, with y = a x + bias once 1/std is held constant."""
    build, shape, runs, centred = NORMS[name]
    norm = filled(build())
    x, v = torch.randn(3, *shape).double(), torch.randn(shape).double()
    relevance = relprop.attribute(norm, x, weighed_by(v), composite="zero")

    linear = reference.normalisation(x.flatten(1), runs, centred=centred, eps=1e-5)
    leaf = x.flatten(1).requires_grad_()
    y = linear(leaf).reshape(x.shape) * weight_of(norm, shape)
    (gradient,) = torch.autograd.grad((y * v).sum(), leaf)
    close(relevance.values, (leaf * gradient).detach().reshape(x.shape))


@pytest.mark.parametrize("name", ["layer norm", "rms norm", "group norm"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_bias_free_norms_conserve(name: str, scale: float) -> None:
    build, shape, _, _ = NORMS[name]
    norm = filled(build())
    if getattr(norm, "bias", None) is not None:
        norm.bias.data.zero_()
    x = scale * torch.randn(3, *shape).double()
    relevance = relprop.attribute(norm, x, lambda y: y.flatten(1)[:, 0], composite="zero")
    close(relevance.values.flatten(1).sum(1), relevance.score)


def centred(x: Tensor) -> Tensor:
    return x - x.mean(-1, keepdim=True)


EPS = 1e-5
LAYER_NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "var, sqrt": lambda x: centred(x) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + EPS),
    "var, rsqrt": lambda x: centred(x) * torch.rsqrt(x.var(-1, correction=0, keepdim=True) + EPS),
    "mean of pow": lambda x: centred(x) / (centred(x).pow(2).mean(-1, keepdim=True) + EPS).sqrt(),
    "mean of product": lambda x: centred(x) * (((centred(x) * centred(x)).mean(-1, keepdim=True) + EPS) ** -0.5),
    "square, reciprocal": lambda x: (
        centred(x) * centred(x).square().mean(-1, keepdim=True).add(EPS).sqrt().reciprocal()
    ),
    "one over": lambda x: centred(x) * (1 / ((centred(x) ** 2).mean(-1, keepdim=True) + EPS).sqrt()),
    "var_mean": lambda x: (lambda v, m: (x - m) / torch.sqrt(v + EPS))(
        *torch.var_mean(x, -1, correction=0, keepdim=True)
    ),
    "sum of squares": lambda x: centred(x) / ((centred(x) ** 2).sum(-1, keepdim=True) / x.shape[-1] + EPS) ** 0.5,
}
RMS_NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "rsqrt of mean": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS),
    "in float32": lambda x: (x.double() * (x.double().pow(2).mean(-1, keepdim=True) + EPS).rsqrt()).to(x.dtype),
    "divided": lambda x: x / torch.sqrt(torch.mean(x * x, dim=-1, keepdim=True) + EPS),
    "power": lambda x: x * torch.pow(x.square().mean(-1, keepdim=True) + EPS, -0.5),
    "vector norm": lambda x: x / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) ** 2 / x.shape[-1] + EPS).sqrt(),
    "einsum": lambda x: x * torch.rsqrt(torch.einsum("...i,...i->...", x, x)[..., None] / x.shape[-1] + EPS),
    "matmul": lambda x: x * torch.rsqrt((x[..., None, :] @ x[..., None])[..., 0] / x.shape[-1] + EPS),
}


@pytest.mark.parametrize(
    ("written", "fused"),
    [pytest.param(f, nn.LayerNorm, id=f"layer norm, {name}") for name, f in LAYER_NORMS.items()]
    + [pytest.param(f, nn.RMSNorm, id=f"rms norm, {name}") for name, f in RMS_NORMS.items()],
)
def test_written_out_equals_fused(written: Callable[[Tensor], Tensor], fused: type[nn.Module]) -> None:
    """Statistic, root and quotient in the model's own words."""
    layer = fused(6, eps=EPS, elementwise_affine=False).double()  # type: ignore[call-arg]
    x, v = torch.randn(3, 4, 6).double(), torch.randn(4, 6).double()
    found, expected = (
        relprop.attribute(model, x, lambda y: (y * v).sum((1, 2)), composite="attnlrp").values
        for model in (written, layer)
    )
    close(found, expected)


@pytest.mark.parametrize("part", ["weight", "bias"])
@pytest.mark.parametrize(
    "norm",
    [
        lambda x, w, b: F.layer_norm(x, (4,), w[0], b[0]),
        lambda x, w, b: torch.layer_norm(x, (4,), w[0], b[0]),
        lambda x, w, b: F.group_norm(x, 2, w[0], b[0]),
        lambda x, w, b: F.instance_norm(
            x[:, :, None].expand(-1, -1, 3) * torch.arange(3.0).double(), weight=w[0], bias=b[0]
        ),
        lambda x, w, b: F.rms_norm(x, (4,), w[0]) + b[0],
    ],
)
def test_a_scale_or_a_shift_that_carries_relevance(norm: Any, part: str) -> None:
    """A scale shares a product by halves, a shift is a summand: nothing that is handed out is lost."""
    x, w, b = torch.randn(1, 4).double(), torch.randn(1, 4).double(), torch.randn(1, 4).double()
    mixed = (x, w) if part == "weight" else (x, b)
    model = (lambda x, w: norm(x, w, b * 0)) if part == "weight" else (lambda x, b: norm(x, w, b))
    found = relprop.attribute(model, mixed, lambda y: y.sum(), composite="zero")
    plain = norm(x, w, b * 0)
    if part == "weight":
        torch.testing.assert_close(found.values[1].sum(), plain.sum() / 2)
    else:
        torch.testing.assert_close(found.values[1], b * (norm(x, w, b).numel() // 4))
    assert torch.equal(found.output, norm(x, w, b * 0 if part == "weight" else b))


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("rule", ["flat", "zero"])
def test_relevance_that_goes_straight_through(name: str, rule: str) -> None:
    """Under `Pass` also that of exact zeros, which a flat layer gives some: a whole sample of them and single ones."""
    build, shape, _, _ = NORMS[name]
    rules = {"flat": (relprop.Flat(), reference.flat), "zero": (relprop.Zero(), reference.zero)}
    own, naive = rules[rule]
    head = nn.Linear(torch.Size(shape).numel(), 3).double()
    norm = filled(build())
    if getattr(norm, "bias", None) is not None:
        norm.bias.data.zero_()  # what is 0 before may be 0 behind
    x, v = torch.randn(3, *shape).double(), torch.randn(3).double()
    x[0] = 0.0
    x[1:][torch.rand(2, *shape) < 0.3] = 0.0

    composite = relprop.Composite({"norm": relprop.Pass(), "linear": own})
    model = nn.Sequential(norm, nn.Flatten(), head)
    found = relprop.attribute(model, x, lambda y: y @ v, composite=composite)
    wanted = reference.weighted(naive)(head, norm(x).flatten(1), model(x) * v)
    close(found.values, wanted.reshape(x.shape).detach())


@pytest.mark.parametrize("composite", ["zero", "epsilon", "epsilon_plus"])
def test_a_length_of_zeros_is_no_nan(composite: str) -> None:
    """The strength of an edge, as a Sobel filter gives it, is 0 where a picture is black. torch's gradient of hypot is NaN."""
    torch.manual_seed(0)
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    x[..., 2:] = 0
    scale = torch.randn(5, dtype=torch.float64)
    lengths: list[Callable[[Tensor], Tensor]] = [
        lambda x: (x**2 + x[:, :1] ** 2).sqrt(),
        lambda x: torch.hypot(x, x[:, :1]),
        lambda x: (x + 0).hypot_(x[:, :1]),
        lambda x: torch.complex(x, x[:, :1].expand_as(x)).abs(),
    ]
    maps = [relprop.attribute(lambda x, f=f: (f(x) * scale).sum(1), x, 0, composite=composite).values for f in lengths]
    for other in maps[1:]:
        torch.testing.assert_close(other, maps[0])
