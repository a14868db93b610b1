"""What goes in comes out: LRP-0 is input times gradient, and without biases the relevance adds up to the
score.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from networks import ResNet, convolutional, mlp, normalised, settle


class Written(nn.Module):
    """A network of two linear layers and two convolutions, whatever its forward makes of them."""

    def __init__(self, forward: Callable[[Written, Tensor], Tensor], bias: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1, bias=bias)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=bias)
        self.up = nn.ConvTranspose2d(4, 4, 2, 2, bias=bias)
        self.linear1 = nn.Linear(4, 4, bias=bias)
        self.linear2 = nn.Linear(4, 3, bias=bias)
        self.written = forward

    def forward(self, x: Tensor) -> Tensor:
        h = self.written(self, F.relu(self.conv1(x)))
        return self.linear2(h if h.dim() == 2 else h.mean((2, 3)))


def residual_in_place(m: Written, h: Tensor) -> Tensor:
    out = m.conv2(h)
    out += h
    return F.relu(out, inplace=True)


def branches_in_a_buffer(m: Written, h: Tensor) -> Tensor:
    out = torch.zeros_like(h)
    out[:, :2] = m.conv2(h)[:, :2]
    out[:, 2:] += h[:, :2] * 3
    return out


def ignored_return_value(m: Written, h: Tensor) -> Tensor:
    out = m.conv2(h)
    F.relu(out, inplace=True)
    return out


# Everything is linear or picks a winner, so relevance is input times gradient, biases or not.
WRITTEN: dict[str, Callable[[Written, Tensor], Tensor]] = {
    "chain": lambda m, h: F.relu(m.conv2(h)),
    "residual sum": lambda m, h: F.relu(h + m.conv2(h)),
    "residual +=": residual_in_place,
    "residual torch.add": lambda m, h: torch.add(h, m.conv2(h), alpha=0.5),
    "difference": lambda m, h: F.relu(m.conv2(h) - h),
    "reflected difference": lambda m, h: 1.0 * h - (0 - m.conv2(h)),
    "negation": lambda m, h: -m.conv2(h),
    "scaled": lambda m, h: 0.1 * h + m.conv2(h) / 3,
    "weighed by a parameter": lambda m, h: h * m.linear1.weight[0, :, None, None],
    "sum": lambda m, h: m.linear1(h.sum((2, 3))),
    "mean": lambda m, h: m.linear1(h.mean(dim=(-2, -1))),
    "Python's sum": lambda m, h: sum([h, m.conv2(h), h]),
    "stacked sum": lambda m, h: torch.stack([h, m.conv2(h)]).sum(0),
    "cat": lambda m, h: torch.cat([h[:, :2], m.conv2(h)[:, 2:]], 1),
    "dense connection": lambda m, h: m.conv2(torch.cat([h[:, :1], m.conv2(h)[:, :3]], dim=1)),
    "split and chunk": lambda m, h: sum(h.split(1, 1)) + torch.cat(m.conv2(h).chunk(2, 1), 1),
    "average pool": lambda m, h: F.avg_pool2d(m.conv2(h), 2),
    "adaptive average pool": lambda m, h: F.adaptive_avg_pool2d(h, 1).flatten(1),
    "max pool": lambda m, h: F.max_pool2d(m.conv2(h), 3, 2, 1),
    "maximum": lambda m, h: torch.maximum(h, m.conv2(h)),
    "amax": lambda m, h: m.linear1(h.amax((2, 3))),
    "leaky relu": lambda m, h: F.leaky_relu(m.conv2(h), 0.1),
    "pixel shuffle": lambda m, h: F.pixel_shuffle(h, 2).expand(-1, 4, -1, -1),
    "interpolate": lambda m, h: F.interpolate(m.conv2(h), scale_factor=2, mode="bilinear"),
    "interpolate nearest": lambda m, h: m.conv2(F.interpolate(h, size=7)),
    "transposed convolution": lambda m, h: F.relu(m.up(h)),
    "pad": lambda m, h: m.conv2(F.pad(h, (1, 0, 2, 1), mode="replicate")),
    "flip, roll, permute": lambda m, h: h.flip(2).roll(1, 3).permute(0, 1, 3, 2) + m.conv2(h),
    "einsum with a weight": lambda m, h: torch.einsum("bchw,cd->bdhw", h, m.linear1.weight),
    "matmul with a weight": lambda m, h: h.flatten(2).mean(2) @ m.linear1.weight.t(),
    "cumulative sum": lambda m, h: h.cumsum(3) - m.conv2(h),
    "buffer": branches_in_a_buffer,
    "return value ignored": ignored_return_value,
    "unfold": lambda m, h: F.unfold(h, 2)[:, :4].unsqueeze(3),
    "indexing": lambda m, h: h[:, [3, 1, 1, 0]][..., 1:] * 2,
    "masked": lambda m, h: h.masked_fill(torch.ones(6, 6).triu().bool(), 0.0),
    "identity": lambda m, h: nn.Identity()(h).clone().contiguous(),
}


def gradient_times_input(model: nn.Module, x: Tensor, target: int) -> Tensor:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[:, target].sum(), x)
    return (x * gradient).detach()


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", WRITTEN)
def test_zero_is_input_times_gradient(name: str, bias: bool) -> None:
    model = Written(WRITTEN[name], bias).double().eval()
    x = torch.randn(3, 2, 6, 6).double()
    relevance = relprop.attribute(model, x, 1, composite="zero")
    # The same operations in the same order, except where relprop may choose its kernels.
    torch.testing.assert_close(relevance.values, gradient_times_input(model, x, 1), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(relevance.output, model(x).detach(), rtol=0, atol=0)
    if not bias:
        torch.testing.assert_close(relevance.values.flatten(1).sum(1), relevance.score, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (convolutional, (3, 8, 8)),
        (normalised, (3, 8, 8)),
        (ResNet, (3, 16, 16)),
        (lambda: mlp(6, 5), (5,)),
    ],
    ids=["convolutional", "normalised", "resnet", "mlp"],
)
def test_zero_on_whole_networks(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    model = build().double()
    x = torch.randn(3, *shape).double()
    relevance = relprop.attribute(model, x, 2, composite="zero")
    torch.testing.assert_close(relevance.values, gradient_times_input(model, x, 2), rtol=1e-12, atol=1e-14)


# The rules that hand down all they receive where there is no bias.
CONSERVING = [
    relprop.Zero(),
    relprop.Epsilon(1e-15),
    relprop.Gamma(0.25),
    relprop.Gamma(100.0),
    relprop.ZPlus(),
    relprop.WSquare(),
    relprop.Flat(),
    relprop.ZBox(-4.0, 4.0, epsilon=1e-12),
]


def everywhere(rule: relprop.rules.Rule) -> relprop.Composite:
    return relprop.Composite({"linear": rule, "conv": rule})


@pytest.mark.parametrize("rule", CONSERVING, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("depth", [2, 10, 100])
def test_depth(rule: relprop.rules.Rule, dtype: torch.dtype, depth: int) -> None:
    model = mlp(depth, 24, bias=False).to(dtype)
    x = torch.randn(3, 24, dtype=dtype)
    relevance = relprop.attribute(model, x, 0, composite=everywhere(rule))
    # Rounding is relative to what is summed up, positive and negative parts apart.
    size = relevance.values.abs().sum(1).amax()
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    assert (relevance.values.sum(1) - relevance.score).abs().amax() <= tolerance * size
    torch.testing.assert_close(relevance.residual, relevance.score - relevance.values.sum(1))


@pytest.mark.parametrize("rule", CONSERVING, ids=repr)
@pytest.mark.parametrize("build", [convolutional, ResNet], ids=["convolutional", "resnet"])
def test_images(rule: relprop.rules.Rule, build: Callable[..., nn.Module]) -> None:
    if build is ResNet and isinstance(rule, relprop.ZPlus):
        pytest.skip(
            "a block's sum hands relevance to convolutions without a positive contribution: z+ has no share for it"
        )
    model = build(bias=False).double()
    if build is ResNet:
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                module.bias.data.zero_()
    x = torch.randn(3, 3, 16, 16).double()[..., : 8 if build is convolutional else 16, :]
    x = x[..., : x.shape[-2]]
    # The largest score is positive, so z+ finds positive contributions to hand it to.
    relevance = relprop.attribute(model, x, None, composite=everywhere(rule))
    size = relevance.values.abs().flatten(1).sum(1).amax()
    assert (relevance.values.flatten(1).sum(1) - relevance.score).abs().amax() <= 1e-9 * size


@pytest.mark.parametrize("name", ["zero", "epsilon_plus", "epsilon_plus_flat", "gamma_flat"])
def test_the_residual_is_what_is_missing(name: str) -> None:
    model = settle(ResNet()).double()
    x = torch.randn(2, 3, 16, 16).double()
    relevance = relprop.attribute(model, x, [0, 3], composite=name)
    torch.testing.assert_close(relevance.residual, relevance.score - relevance.values.flatten(1).sum(1))
    torch.testing.assert_close(relevance.score, relevance.output[[0, 1], [0, 3]], rtol=0, atol=0)


def test_a_seed_is_what_is_handed_out() -> None:
    model = convolutional(bias=False).double()
    x = torch.randn(3, 3, 8, 8).double()
    for seed in (1.0, torch.tensor([1.0, -2.0, 0.5]).double()):
        relevance = relprop.attribute(model, x, 1, composite="zero", seed=seed)
        expected = torch.as_tensor(seed).double().expand(3)
        torch.testing.assert_close(relevance.values.flatten(1).sum(1), expected, rtol=1e-9, atol=1e-12)


def test_a_contrast_is_a_difference_of_maps() -> None:
    model = convolutional().double()
    x = torch.randn(3, 3, 8, 8).double()
    one, other = (relprop.attribute(model, x, k, composite="zero") for k in (1, 4))
    contrast = relprop.attribute(model, x, relprop.Contrast(1, 4), composite="zero")
    torch.testing.assert_close(contrast.score, one.score - other.score, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(contrast.values, one.values - other.values, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("inplace", [False, True], ids=["beside", "in place"])
def test_a_layer_read_by_a_relu_and_by_something_else(inplace: bool) -> None:
    """What a rule knows of a layer's output must hold where the relu is not the only reader."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(4, 6, bias=False), nn.Linear(6, 2, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = self.inner(x)
            other = z * 2
            return self.head(F.relu(z, inplace=inplace) + other)

    model = Both().double()
    x = torch.randn(5, 4).double()
    relevance = relprop.attribute(model, x, 1, composite=everywhere(relprop.Epsilon(1e-15)))
    torch.testing.assert_close(relevance.values, gradient_times_input(model, x, 1), rtol=1e-9, atol=1e-12)
