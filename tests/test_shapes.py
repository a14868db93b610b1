"""Shapes, strides and broadcasts of every size: the map has the input's shape, and is right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from helpers import total
from networks import convolutional

# The drawn shapes are small and a first call pays for imports: a deadline would measure those.
few = settings(max_examples=40, deadline=None, derandomize=True)
sizes = st.integers(1, 4)


class Written(nn.Module):
    def __init__(self, function: Callable[..., Tensor]):
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def native(model: nn.Module, *inputs: Tensor) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    gradients = torch.autograd.grad(total(model(*leaves)).sum(), leaves)
    return [(x * g).detach() for x, g in zip(leaves, gradients, strict=True)]


def close(a: Tensor, b: Tensor) -> None:
    # The same operations in float64.
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@few
@given(
    batch=sizes,
    channels=sizes,
    out=sizes,
    height=st.integers(3, 6),
    width=st.integers(3, 6),
    k=st.integers(1, 3),
)
def test_convolutions(batch: int, channels: int, out: int, height: int, width: int, k: int) -> None:
    model = nn.Sequential(nn.Conv2d(channels, out, k), nn.ReLU(), nn.Conv2d(out, 2, 1)).double()
    x = numbers(batch, channels, height, width)
    close(relprop.attribute(model, x, total, composite="zero").values, *native(model, x))
    for composite in ("epsilon_plus_flat", "gamma_flat"):
        values = relprop.attribute(model, x, total, composite=composite).values
        assert values.shape == x.shape and values.isfinite().all()


@few
@given(batch=sizes, lead=st.lists(sizes, max_size=3), features=sizes, out=sizes)
def test_linear_over_any_leading_dimensions(batch: int, lead: list[int], features: int, out: int) -> None:
    model = nn.Sequential(nn.Linear(features, out), nn.ReLU(), nn.Linear(out, 2)).double()
    x = numbers(batch, *lead, features)
    close(relprop.attribute(model, x, total, composite="zero").values, *native(model, x))
    for rule in (relprop.Gamma(), relprop.AlphaBeta(), relprop.Flat(), relprop.ZBox(-3.0, 3.0)):
        composite = relprop.Composite({"linear": rule})
        values = relprop.attribute(model, x, total, composite=composite).values
        # Every row of every leading dimension is a sample of its own.
        rows = relprop.attribute(model, x.reshape(-1, features), lambda y: y.sum(1), composite=composite).values
        close(values, rows.reshape(x.shape))


@st.composite
def broadcastable(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes that share the batch and broadcast elsewhere."""
    batch, full = draw(sizes), draw(st.lists(sizes, min_size=1, max_size=3))
    shrink = [draw(st.sampled_from((n, 1))) for n in full]
    other = [n if m == n else draw(st.sampled_from((n, 1))) for n, m in zip(full, shrink, strict=True)]
    return (batch, *shrink), (batch, *other)


@few
@given(shapes=broadcastable())
@pytest.mark.parametrize(("name", "factor"), [("add", 1.0), ("sub", 1.0), ("mul", 0.5), ("maximum", 1.0)])
def test_broadcasts_of_two_inputs(name: str, factor: float, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    model = Written(getattr(torch, name))
    a, b = (numbers(*shape) for shape in shapes)
    relevance = relprop.attribute(model, (a, b), total, composite="zero")
    for values, expected in zip(relevance.values, native(model, a, b), strict=True):
        close(values, factor * expected)


@few
@given(batch=sizes, rows=sizes, inner=sizes, columns=sizes)
@pytest.mark.parametrize("product", [torch.matmul, torch.bmm, lambda a, b: torch.einsum("bij,bjk->bik", a, b)])
def test_products_of_matrices(
    product: Callable[[Tensor, Tensor], Tensor], batch: int, rows: int, inner: int, columns: int
) -> None:
    model = Written(product)
    a, b = numbers(batch, rows, inner), numbers(batch, inner, columns)
    relevance = relprop.attribute(model, (a, b), total, composite="zero")
    for values, expected in zip(relevance.values, native(model, a, b), strict=True):
        close(values, expected / 2)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "every other": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "flipped twice": lambda x: x.flip(3).contiguous().flip(3),
    "offset": lambda x: torch.cat([x[:1], x])[1:],
    "a view": lambda x: x.flatten().view(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("composite", ["zero", "epsilon_plus_flat", "gamma_flat", "epsilon_alpha2_beta1"])
def test_layouts_in_memory(layout: str, composite: str) -> None:
    model, x = convolutional().double(), numbers(2, 3, 8, 8)
    expected = relprop.attribute(model, x, 1, composite=composite).values
    laid_out = LAYOUTS[layout](x)
    assert torch.equal(laid_out, x)
    values = relprop.attribute(model, laid_out, 1, composite=composite).values
    torch.testing.assert_close(values, expected, rtol=1e-8, atol=1e-11)
    model = model.to(memory_format=torch.channels_last)
    values = relprop.attribute(model, laid_out, 1, composite=composite).values
    torch.testing.assert_close(values, expected, rtol=1e-8, atol=1e-11)


def test_an_expanded_input() -> None:
    """One number in memory, many units: each has its own relevance."""
    model, x = convolutional().double(), numbers(1, 3, 1, 1).expand(2, 3, 8, 8)
    values = relprop.attribute(model, x, 1, composite="epsilon_plus").values
    expected = relprop.attribute(model, x.contiguous(), 1, composite="epsilon_plus").values
    torch.testing.assert_close(values, expected, rtol=1e-8, atol=1e-11)
    assert values.shape == x.shape


def test_a_sample_without_dimensions() -> None:
    model = Written(lambda x: x * 3 + 1)
    relevance = relprop.attribute(model, numbers(4), composite="zero")
    assert relevance.values.shape == (4,)


def test_the_structure_of_the_inputs_is_the_structure_of_the_values() -> None:
    a, b = numbers(2, 3), numbers(2, 3)

    class Keywords(nn.Module):
        def forward(self, left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
            return (left - scale * right).sum(1)

    class OneList(nn.Module):
        def forward(self, both: list[Tensor]) -> Tensor:
            return (both[0] - 2.0 * both[1]).sum(1)

    expected = [a, -2 * b]
    values = relprop.attribute(
        Keywords(), {"left": a, "right": b}, forward_kwargs={"scale": 2.0}, composite="zero"
    ).values
    assert isinstance(values, dict) and list(values) == ["left", "right"]
    given_as_tuple = relprop.attribute(Keywords(), (a, b), forward_args=(2.0,), composite="zero").values
    assert isinstance(given_as_tuple, tuple)
    given_as_list = relprop.attribute(OneList(), [a, b], composite="zero").values
    assert isinstance(given_as_list, list)
    for structure in (list(values.values()), given_as_tuple, given_as_list):
        for value, wanted in zip(structure, expected, strict=True):
            close(value, wanted)


@few
@given(batch=sizes, classes=sizes, height=sizes, width=sizes)
def test_targets_among_several_dimensions(batch: int, classes: int, height: int, width: int) -> None:
    """A tuple indexes what lies behind the batch, for all samples or for each."""
    model = nn.Conv2d(1, classes, 1).double()
    x = numbers(batch, 1, height, width)
    place = (classes - 1, 0, width - 1)
    relevance = relprop.attribute(model, x, place, composite="zero")
    close(relevance.score, model(x).detach()[:, place[0], place[1], place[2]])
    each = relprop.attribute(model, x, [place] * batch, composite="zero")
    close(each.values, relevance.values)
    alone = F.one_hot(torch.tensor(width - 1), width).double() * (relevance.values != 0)
    assert (alone[..., 1:, :] == 0).all()
