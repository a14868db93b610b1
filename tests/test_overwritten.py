"""Tensors that are written into, by whatever name: the maps are those of the model that makes new tensors instead."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import relprop
from relprop.composites import epsilon, gamma_flat

torch.manual_seed(0)
A, B, C = (torch.randn(4, 4, dtype=torch.float64) for _ in range(3))
SCALE, SHIFT = (torch.rand(4, dtype=torch.float64) + 0.5 for _ in range(2))
X = torch.randn(3, 4, dtype=torch.float64)

Model = Callable[[Tensor], Tensor]


def tripled(y: Tensor) -> Tensor:
    """With the first column times 3."""
    return torch.cat([y[:, :1] * 3, y[:, 1:]], 1)


def gate_written(x: Tensor) -> Tensor:
    h = x @ A
    y = torch.sigmoid(h)
    y[:, 0].mul_(3)
    return (h * y) @ C


def gate_made(x: Tensor) -> Tensor:
    h = x @ A
    return (h * tripled(torch.sigmoid(h))) @ C


def source_written(x: Tensor) -> Tensor:
    h = x @ A
    y = torch.sigmoid(h)
    h[:, 0].mul_(3)
    return (h * y) @ C


def source_made(x: Tensor) -> Tensor:
    h = x @ A
    return (tripled(h) * torch.sigmoid(h)) @ C


def base_written(x: Tensor) -> Tensor:
    y = torch.relu(x @ A)
    view = y[:, :2]
    gate = view.sigmoid()
    y.add_(1)
    return (view * gate) @ C[:2]


def base_made(x: Tensor) -> Tensor:
    y = torch.relu(x @ A)
    return ((y + 1)[:, :2] * y[:, :2].sigmoid()) @ C[:2]


def layer_written(x: Tensor) -> Tensor:
    h = F.linear(x, A)
    h[:, 0].mul_(3)
    return (h + SHIFT).relu() @ C


def layer_made(x: Tensor) -> Tensor:
    return (tripled(F.linear(x, A)) + SHIFT).relu() @ C


def layer_input_written(x: Tensor) -> Tensor:
    before = (x @ A).tanh()
    h = F.linear(before, B)
    before.mul_(2)
    return (h * SCALE + SHIFT).relu() @ C + before @ C


def layer_input_made(x: Tensor) -> Tensor:
    before = (x @ A).tanh()
    return (F.linear(before, B) * SCALE + SHIFT).relu() @ C + (before * 2) @ C


def normed_input_written(x: Tensor) -> Tensor:
    before = (x @ A).tanh()
    h = F.linear(before, B)
    before.mul_(2)
    return F.batch_norm(h, SHIFT, SCALE).relu() @ C + before @ C


def normed_input_made(x: Tensor) -> Tensor:
    before = (x @ A).tanh()
    return F.batch_norm(F.linear(before, B), SHIFT, SCALE).relu() @ C + (before * 2) @ C


PAIRS = {
    "a gate, through a view": (gate_written, gate_made),
    "the source of a gate, through a view": (source_written, source_made),
    "the base of a view": (base_written, base_made),
    "a layer's output, through a view": (layer_written, layer_made),
}
MERGED = {
    "the input of a layer with a bias written by hand": (layer_input_written, layer_input_made),
    "the input of a layer with a batch norm": (normed_input_written, normed_input_made),
}


@pytest.mark.parametrize("composite", ["attnlrp", epsilon(0.1), gamma_flat()], ids=lambda c: getattr(c, "name", c))
@pytest.mark.parametrize("written, made", PAIRS.values(), ids=PAIRS)
def test_what_is_written_into_is_not_what_it_was(written: Model, made: Model, composite: object) -> None:
    expected = relprop.attribute(made, X, 1, composite=composite)
    torch.testing.assert_close(relprop.attribute(written, X, 1, composite=composite).values, expected.values)


@pytest.mark.parametrize("written, made", MERGED.values(), ids=MERGED)
def test_a_layer_whose_input_was_overwritten_is_right_by_the_gradient(written: Model, made: Model) -> None:
    """Where nothing merges the layers are two, so LRP-0 is the definition that both agree on."""
    expected = relprop.attribute(made, X, 1, composite="zero")
    torch.testing.assert_close(relprop.attribute(written, X, 1, composite="zero").values, expected.values)


@pytest.mark.parametrize("written, made", MERGED.values(), ids=MERGED)
def test_a_layer_whose_input_was_overwritten_stays_on_its_own(written: Model, made: Model) -> None:
    """LRP-epsilon at a negligible epsilon is LRP-0, whether layers merge or not; on overwritten numbers it was neither."""
    expected = relprop.attribute(made, X, 1, composite="zero")
    found = relprop.attribute(written, X, 1, composite=epsilon(1e-12))
    torch.testing.assert_close(found.values, expected.values, rtol=1e-6, atol=1e-8)


PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "by what was made of it": lambda a, b: b.mul_(a * b),
    "both": lambda a, b: (a * b) * a.mul_(2) + b.add_(1),
    "the product": lambda a, b: (a * b).mul_(3),
    "a slice": lambda a, b: (a * b) + b[:, :1].mul_(5),
}


@pytest.mark.parametrize("composite", ["zero", "auto", "gamma_flat", "cp_lrp"])
@pytest.mark.parametrize("written", PRODUCTS)
def test_factors_that_are_overwritten(written: str, composite: str) -> None:
    """A product keeps what it needs of both, whatever the model does with them."""
    plain: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "by what was made of it": lambda a, b: b * (a * b),
        "both": lambda a, b: (a * b) * (a * 2) + (b + 1),
        "the product": lambda a, b: (a * b) * 3,
        "a slice": lambda a, b: (a * b) + b[:, :1] * 5,
    }
    torch.manual_seed(0)
    x = torch.randn(3, 4, dtype=torch.float64)
    x[0, 1] = 0.0

    def model(act: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: act(x * 2, x.flip(1).clone())

    found, wanted = (relprop.attribute(model(f[written]), x, 1, composite=composite) for f in (PRODUCTS, plain))
    torch.testing.assert_close(found.values, wanted.values)
    torch.testing.assert_close(found.residual, wanted.residual)


IN_PLACE: dict[str, Callable[[Tensor], object]] = {
    "silu": lambda h: F.silu(h, inplace=True),
    "sigmoid": torch.sigmoid_,
    "mish": lambda h: F.mish(h, inplace=True),
    "elu": F.elu_,
    "exp": torch.exp_,
    "a power": lambda h: h.abs_().pow_(1.7),
    "a product with itself": lambda h: h.mul_(h).tanh_(),
    "a quotient": lambda h: h.div_(3.3).erf_(),
}
SEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "every second": lambda h: h[..., ::2],
    "a column": lambda h: h[:, :, 1],
    "some rows": lambda h: h.flip(1)[:, ::3],
    "a real part": lambda h: torch.view_as_complex(h.unflatten(2, (3, 2)).contiguous()).real,
}


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("write", IN_PLACE)
def test_what_is_written_into_a_view_with_gaps_is_the_models_own_bit_for_bit(write: str, seen: str) -> None:
    """Torch rounds entries that lie side by side otherwise than lone ones."""

    def model(x: Tensor) -> Tensor:
        h = SEEN[seen](x * 1.0)
        IN_PLACE[write](h)
        return h.flatten(1)

    x = torch.randn(4, 16, 6, generator=torch.Generator().manual_seed(0))
    for composite in ("auto", "zero"):
        assert torch.equal(relprop.attribute(model, x, 0, composite=composite).output, model(x))


CUTS: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {
    "narrow": lambda h: (h.narrow(1, 0, 2), h.narrow(1, 2, 2)),
    "chunk": lambda h: h.chunk(2, 1),
    "chunk by name": lambda h: torch.chunk(h, chunks=2, dim=-1),
    "split": lambda h: h.split(2, 1),
    "split with sizes": lambda h: torch.split_with_sizes(h, [2, 2], 1),
    "tensor_split": lambda h: torch.tensor_split(h, 2, 1),
    "unbind": lambda h: h.view(-1, 2, 2).unbind(1),
    "iteration": lambda h: tuple(h.view(-1, 2, 2).transpose(0, 1)),
}
PARTS_WRITTEN: dict[str, Callable[[Tensor, Tensor], object]] = {
    "a product": lambda a, b: a.mul_(b.sigmoid()),
    "an activation": lambda a, b: a.mul_(b.sigmoid_()),
    "a sum": lambda a, b: a.__iadd__(b),
    "an entry": lambda a, b: a.__setitem__((slice(None), 0), b[:, 1]),
    "a view of it": lambda a, b: a[:, 0].relu_(),
}


@pytest.mark.parametrize("write", PARTS_WRITTEN)
@pytest.mark.parametrize("cut", CUTS)
def test_one_of_several_views_may_be_written_into(cut: str, write: str) -> None:
    """With gradients, torch refuses a write into one of several views of one operation; without them, models do it."""

    def by(cut: str) -> Model:
        def model(x: Tensor) -> Tensor:
            h = x @ A
            PARTS_WRITTEN[write](*CUTS[cut](h))
            return h @ C

        return model

    for composite in ("zero", "gamma_flat"):
        R, plain = (relprop.attribute(by(c), X, 0, composite=composite, ledger=True) for c in (cut, "narrow"))
        torch.testing.assert_close(R.values, plain.values)
        assert torch.equal(R.output, by(cut)(X))


def test_pixels_that_are_standardised_in_a_loop_over_channels() -> None:
    """By every entry of the library that runs a model."""
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 2))

    class InPlace(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            x = x.clone()
            for channel in x.unbind(1):
                channel.sub_(0.4).div_(0.2)
            y: Tensor = self.net(x)
            return y

    model, x = InPlace().eval(), torch.rand(2, 3, 6, 6)
    plain = relprop.attribute(lambda x: net((x - 0.4) / 0.2), x, 0).values
    torch.testing.assert_close(relprop.attribute(model, x, 0).values, plain)
    assert relprop.survey(model, x).shape == (2, 2)
    assert relprop.attribute(model, x, 0, against=x.flip(0)).values.shape == x.shape
    assert relprop.graph(model, x[:1], 0, nodes=["net.0"], keep=2).nodes
