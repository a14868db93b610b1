"""The derivative of relevance is right, or there is a warning. What a rule holds constant is constant in the derivative."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from relprop.errors import RelpropWarning

torch.manual_seed(0)
A, B, C = (torch.randn(6, 6, dtype=torch.float64) for _ in range(3))
Program = Callable[[Tensor], Tensor]


def _relus(x: Tensor) -> Tensor:
    return (F.linear(F.linear(F.linear(x, A).relu(), B).relu(), C)).sum(1)


def _pooled(x: Tensor) -> Tensor:
    return F.max_pool1d(F.linear(F.linear(x, A).relu(), B)[:, None], 2)[:, 0].sum(1)


def _with_biases(x: Tensor) -> Tensor:
    return F.linear(F.linear(x, A, A[0]).relu(), B, B[0]).relu().sum(1)


def _after(activation: Program) -> Program:
    return lambda x: F.linear(activation(F.linear(x, A)), B).relu().sum(1)


def _product(x: Tensor) -> Tensor:
    return (F.linear(x, A).relu() * F.linear(x, B)).sum(1)


def _product_above(x: Tensor) -> Tensor:
    h = F.linear(x, A).relu()
    return F.linear(F.linear(h, B) * F.linear(h, C), A).relu().sum(1)


def _gated(x: Tensor) -> Tensor:
    h = F.linear(x, A)
    return F.linear(F.silu(h) * F.linear(h, B), C).sum(1)


def _normalised(x: Tensor) -> Tensor:
    return F.linear(F.layer_norm(F.linear(x, A), (6,)), B).relu().sum(1)


def _attention(x: Tensor) -> Tensor:
    h = F.linear(x[:, None] * A, B)
    return F.linear(torch.softmax(h @ h.transpose(1, 2), -1) @ h, C).sum((1, 2))


PROGRAMS: dict[str, Program] = {
    "relus": _relus, "relus and biases": _with_biases, "max pooling": _pooled, "tanh": _after(torch.tanh),
    "gelu": _after(F.gelu), "sigmoid": _after(torch.sigmoid), "softplus": _after(F.softplus), "abs": _after(torch.abs),
    "product": _product, "product above": _product_above, "gated": _gated, "norm": _normalised, "attention": _attention,
}  # fmt: skip


def relevance(program: Program, x: Tensor, composite: str, differentiable: bool = False) -> Tensor:
    with relprop.propagate(composite, inputs=x):
        score = program(x).sum()
    return x * torch.autograd.grad(score, x, create_graph=differentiable)[0]


def differences(program: Program, x: Tensor, composite: str) -> Tensor:
    """The derivative of the first feature's relevance by all features, from both sides."""
    found = torch.zeros_like(x)
    for n in range(x.shape[1]):
        step = torch.zeros_like(x)
        step[:, n] = 1e-6
        up, down = ((x.detach() + s).requires_grad_() for s in (step, -step))
        found[:, n] = relevance(program, up, composite)[:, 0] - relevance(program, down, composite)[:, 0]
    return found.detach() / 2e-6


@pytest.mark.parametrize("composite", ["zero", "epsilon", "gamma", "epsilon_plus", "attnlrp", "auto"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_derivative_is_right_or_said_to_be_none(program: str, composite: str) -> None:
    x = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    first = relevance(PROGRAMS[program], x, composite, differentiable=True)[:, 0].sum()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        (found,) = torch.autograd.grad(first, x)
    if not any(issubclass(each.category, RelpropWarning) for each in said):
        torch.testing.assert_close(found, differences(PROGRAMS[program], x, composite), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("program", ["relus", "relus and biases", "max pooling"])
def test_where_it_is_right_nothing_is_said(program: str) -> None:
    x = torch.randn(3, 6, dtype=torch.float64).requires_grad_()
    first = relevance(PROGRAMS[program], x, "zero", differentiable=True)[:, 0].sum()
    (found,) = torch.autograd.grad(first, x)
    torch.testing.assert_close(found, differences(PROGRAMS[program], x, "zero"), rtol=1e-5, atol=1e-6)


def test_derivatives_by_the_seed_are_right() -> None:
    """Relevance is linear in what is handed to the score, whatever the rules of hidden layers."""
    x = torch.randn(3, 6, dtype=torch.float64).requires_grad_()
    seed = torch.ones(3, dtype=torch.float64, requires_grad=True)
    with relprop.propagate("gamma", inputs=x):
        score = _after(F.gelu)(x)
    (g,) = torch.autograd.grad(score, x, seed, create_graph=True)
    (found,) = torch.autograd.grad((x * g).sum(), seed)
    torch.testing.assert_close(found, (x * g).sum(1).detach())


def test_a_constant_of_a_rule_is_constant_in_the_derivative() -> None:
    """CP-LRP holds the attention constant."""
    x = torch.randn(3, 6, dtype=torch.float64).requires_grad_()

    def program(x: Tensor, weights: Tensor | None = None) -> Tensor:
        h = x[:, None] * A
        return ((torch.softmax(h @ B @ h.mT, -1) if weights is None else weights) @ h).square().sum((1, 2))

    h = x.detach()[:, None] * A
    constant = torch.softmax(h @ B @ h.mT, -1)
    found = []
    for chosen in (program, lambda x: program(x, constant)):
        first = relevance(chosen, x, "cp_lrp", differentiable=True)[:, 0].sum()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RelpropWarning)
            found.append(torch.autograd.grad(first, x)[0])
    torch.testing.assert_close(found[0], found[1])


def test_a_plain_call_does_not_warn() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 2)).double().eval()
    x = torch.randn(2, 6, dtype=torch.float64)
    relprop.attribute(model, x, 0, composite="gamma_flat", ledger=True, layers="*")
