"""The ledger: causes sum to the residual, and each operation is charged with what it kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import relprop
from helpers import close
from networks import settle

BIASES = "biases and stabilisers"


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten()]
    return settle(nn.Sequential(*layers, nn.Linear(36, 6), nn.ReLU(), nn.Linear(6, 3))).double()


def gradients_of_constants(model: nn.Module, x: Tensor, target: int) -> Tensor:
    """What biases keep under LRP-0 on a piecewise linear network: each its gradient times itself."""
    constants = [p for name, p in model.named_parameters() if name.endswith("bias")]
    shifts = [torch.zeros(m.num_features).double().requires_grad_() for m in model if isinstance(m, nn.BatchNorm2d)]

    def score(one: Tensor) -> Tensor:
        """The network with its BatchNorms written out, their means as constants that have a gradient."""
        for layer in model:
            if isinstance(layer, nn.BatchNorm2d):
                scale = layer.weight / (layer.running_var + layer.eps).sqrt()
                offset = shifts[0] - layer.running_mean
                one = (one + offset[:, None, None]) * scale[:, None, None] + layer.bias[:, None, None]
            else:
                one = layer(one)
        return one[0, target]

    means = [-m.running_mean for m in model if isinstance(m, nn.BatchNorm2d)]
    values = [*constants, *means]
    kept = [
        sum(
            (b * g).sum()
            for b, g in zip(values, torch.autograd.grad(score(one[None]), constants + shifts), strict=True)
        )
        for one in x
    ]
    return torch.stack([k.detach() for k in kept])


def test_biases_keep_their_gradient_under_lrp_0() -> None:
    model, x = network(), torch.randn(3, 2, 8, 8).double()
    relevance = relprop.attribute(model, x, 1, composite="zero", ledger=True)
    assert list(relevance.ledger) == [BIASES]
    close(relevance.ledger[BIASES], gradients_of_constants(model, x, 1))
    close(relevance.ledger[BIASES], relevance.residual)


@pytest.mark.parametrize("name", [*sorted(set(relprop.composites.NAMES) - {"epsilon_gamma_box"}), "auto"])
def test_causes_sum_to_the_residual(name: str) -> None:
    model, x = network(), torch.randn(3, 2, 8, 8).double()
    relevance = relprop.attribute(model, x, [0, 1, 2], composite=name, ledger=True, multiply_by_inputs=True)
    close(sum(relevance.ledger.values(), torch.zeros(3).double()), relevance.residual)
    plain = relprop.attribute(model, x, [0, 1, 2], composite=name, multiply_by_inputs=True)
    close(relevance.values, plain.values)
    assert not plain.ledger


class Residual(nn.Module):
    """Written with writes in place, a reused relu, a gate, an attention and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(5, 5, bias=False) for _ in range(3))
        self.relu = nn.ReLU(inplace=True)
        self.out = nn.Linear(5, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.a(x))
        h += x
        h[:, 1:3] *= 2
        weights = torch.softmax(self.b(h) @ self.c(h).transpose(1, 2), -1)
        h = h + weights @ h
        h = torch.cat([h, torch.ones_like(h[:, :1])], 1)
        return self.out(self.relu(h) + 0.5).mean(1)


def test_each_operation_is_charged_with_its_own() -> None:
    torch.manual_seed(1)
    model, x = Residual().double(), torch.randn(2, 3, 5).double()
    relevance = relprop.attribute(model, x, 0, composite="zero", ledger=True)
    close(sum(relevance.ledger.values()), relevance.residual)
    assert set(relevance.ledger) == {"softmax", "constants in sums", "other constants"}
    half = (model.out.weight[0] * 0.5).sum().expand(2)
    close(relevance.ledger["constants in sums"], half.detach())
    ones = [e for e in relevance.ledger.entries if e.name == "cat"]
    close(ones[0].absorbed, (model.out.weight[0].sum() / 4).expand(2).detach())


def test_of_one_sample_and_of_batches() -> None:
    model, x = network(), torch.randn(4, 2, 8, 8).double()
    whole = relprop.attribute(model, x, 0, composite="epsilon_plus", ledger=True)
    parts = relprop.attribute(model, x, 0, composite="epsilon_plus", ledger=True, batch_size=3)
    close(parts.ledger[BIASES], whole.ledger[BIASES])
    close(whole[2].ledger[BIASES], whole.ledger[BIASES][2:3])
    assert "linear (linear) in module '5'" in str(whole.ledger)


def test_both_parts_of_complex_numbers_are_booked() -> None:
    """A Fourier transform, its filter and the way back are linear without a constant: none keeps anything."""
    torch.manual_seed(0)
    weight = torch.randn(5, dtype=torch.complex128)
    x = torch.randn(2, 8, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(x) * weight, n=8).sum(1)

    R = relprop.attribute(model, x, composite="zero", ledger=True)
    assert R.ledger.entries and not any(bool((e.absorbed.abs() > 1e-12).any()) for e in R.ledger.entries)
    torch.testing.assert_close(R.values.sum(1), R.score)


MADE: dict[str, Callable[[Tensor], Tensor]] = {
    "product": lambda x: x[:, :, :2] * 2,
    "view of a product": lambda x: (x * 2)[:, :, :2],
    "pooling, which keeps a tensor to itself": lambda x: F.avg_pool1d(x, 2),
}
WRITTEN: dict[str, Callable[[Tensor], Any]] = {
    "scale": lambda h: h[:, :1].mul_(2.0),
    "relu": lambda h: h[:, 1:].relu_(),
    "tanh of a part": lambda h: h[:, :, :1].tanh_(),
    "tanh": lambda h: h.tanh_(),
    "difference": lambda h: h[:, :1].sub_(0.5 * h[:, 1:]),
}


@pytest.mark.parametrize("composite", ["zero", "gamma_flat"])
@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("writes", list(itertools.product(WRITTEN, repeat=2)), ids=", ".join)
def test_what_is_written_into_views(writes: tuple[str, str], made: str, composite: str) -> None:
    """None of these absorbs anything, and the books of each say so, also where views share a node of the graph."""
    x, w = torch.randn(2, 2, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    x[0, 0, :2] = 0.0

    def model(x: Tensor) -> Tensor:
        h = MADE[made](x)
        for write in (*writes, writes[0]):
            WRITTEN[write](h)
        return F.linear(h.flatten(1), w)

    found = relprop.attribute(model, x, 1, composite=composite, ledger=True)
    assert found.ledger and all(
        torch.allclose(kept, torch.zeros_like(kept), atol=1e-9) for kept in found.ledger.values()
    )
    assert torch.equal(found.values, relprop.attribute(model, x, 1, composite=composite).values)


@pytest.mark.parametrize("unset", [0.0, float("nan"), float("inf")])
def test_memory_that_is_filled_part_by_part(unset: float) -> None:
    """What `empty` left there is no number of the model's: it takes nothing."""
    x, w = torch.randn(2, 3, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        h = x.new_full((2, 6), unset)
        h[:, :3].copy_(x.tanh())
        h[:, 3:] = 1 - x
        return F.linear(h, w)

    found = relprop.attribute(model, x, 1, composite="zero", ledger=True)
    close(sum(found.ledger.values()), found.residual)
    plain = relprop.attribute(
        lambda x: F.linear(torch.cat([x.tanh(), 1 - x], 1), w), x, 1, composite="zero", ledger=True
    )
    close(found.values, plain.values)
    for cause, kept in plain.ledger.items():
        close(found.ledger[cause], kept)


INSIDE: dict[str, Callable[[Tensor], Tensor]] = {
    "sparse": lambda h: h.to_sparse().to_dense(),
    "sparse rows": lambda h: h.to_sparse_csr().to_dense(),
    "nested": lambda h: torch.nested.to_padded_tensor(torch.nested.as_nested_tensor(list(h)), 0.0),
    "jagged": lambda h: torch.nested.as_nested_tensor(list(h), layout=torch.jagged).mul(1.0).to_padded_tensor(0.0),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.parametrize("form", INSIDE)
def test_tensors_that_do_not_hold_a_number_in_each_place(form: str) -> None:
    torch.manual_seed(0)
    first, last, x = nn.Linear(4, 5), nn.Linear(5, 2), torch.randn(3, 4)
    plain = relprop.attribute(lambda x: last(first(x)), x, 0, ledger=True)
    R = relprop.attribute(lambda x: last(INSIDE[form](first(x))), x, 0, ledger=True)
    torch.testing.assert_close(R.values, plain.values)
    torch.testing.assert_close(sum(R.ledger.values()).float(), R.residual, rtol=1e-4, atol=1e-6)
