"""Models that take a gradient themselves: its number is the model's own, or the model is refused for the true reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad, functional

import relprop
from relprop.errors import RelpropWarning, UnsupportedOperationError

torch.manual_seed(0)
NET = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double().eval()
X = torch.randn(3, 4, dtype=torch.float64)
Model = Callable[[Tensor], Tensor]


def total(x: Tensor) -> Tensor:
    return NET(x).sum()


def by_grad(x: Tensor) -> Tensor:
    x = x.requires_grad_()
    y = NET(x)
    (g,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    return y[:, 0] * g.norm(dim=1)


def by_method(x: Tensor) -> Tensor:
    x.retain_grad()
    y = NET(x)
    y.sum().backward()
    return y[:, 0] * x.grad.norm(dim=1)


def by_function(x: Tensor) -> Tensor:
    x.retain_grad()
    y = NET(x)
    torch.autograd.backward([y.sum()])
    return y[:, 0] * x.grad.norm(dim=1)


def of_parameters(x: Tensor) -> Tensor:
    y = NET(x)
    (g,) = torch.autograd.grad(y.sum(), NET[0].weight)
    return y[:, 0] * g.norm()


def by_vmap(x: Tensor) -> Tensor:
    return (torch.func.vmap(torch.func.grad(total))(x) * x).sum(1)


def by_jvp(x: Tensor) -> Tensor:
    return torch.func.jvp(NET, (x,), (torch.ones_like(x),))[1].sum(1)


def by_duals(x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(NET(forward_ad.make_dual(x, torch.ones_like(x)))).tangent.sum(1)


def by_jacobian(x: Tensor) -> Tensor:
    return (functional.jacobian(total, x, create_graph=True) * x).sum(1)


def of_a_feature(x: Tensor) -> Tensor:
    h = NET[0](x)
    (g,) = torch.autograd.grad(NET[1:](h).sum(), h)
    return (g * h).sum(1)


class Force(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.energy = NET

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x.requires_grad_(True)
            return -torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0].sum(1)


REFUSED = [
    by_grad,
    by_method,
    by_function,
    of_parameters,
    by_vmap,
    by_jvp,
    by_duals,
    by_jacobian,
    of_a_feature,
    Force().eval(),
]


@pytest.mark.filterwarnings("ignore:.*jit.script.*")  # torch's own, at the first forward derivative
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("model", REFUSED, ids=lambda m: getattr(m, "__name__", "module"))
def test_a_gradient_of_what_carries_relevance_is_refused(model: Model, strict: bool) -> None:
    strict = strict or model is by_duals  # a forward derivative is an operation like others, whose gradient can be used
    with pytest.raises(UnsupportedOperationError, match="gradient") as refusal:
        relprop.attribute(model, X.clone(), strict=strict)
    assert "TorchScript" not in str(refusal.value)


def test_a_module_in_propagate_takes_no_gradient_either() -> None:
    x = X.clone().requires_grad_()
    for inputs in (x, None):
        with relprop.propagate("zero", inputs=inputs), pytest.raises(UnsupportedOperationError, match="gradient"):
            Force().eval()(x)


def test_the_caller_of_propagate_takes_what_gradients_it_likes() -> None:
    x = X.clone().requires_grad_()
    with relprop.propagate("zero", inputs=x):
        y = NET(x).sum()
        (g,) = torch.autograd.grad(y, x, create_graph=True)
    with pytest.warns(RelpropWarning, match="differentiated"):  # there is a tanh
        (g * x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.detach() * g.detach(), relprop.attribute(NET, X, 0, composite="zero").values)


def plain(x: Tensor) -> Tensor:
    z = x.detach().requires_grad_()
    return torch.autograd.grad(total(z), z)[0]


def set_flag(x: Tensor) -> Tensor:
    z = x.detach().clone()
    z.requires_grad = True
    with torch.enable_grad():
        return torch.autograd.grad(total(z), z)[0]


def backward(x: Tensor) -> Tensor:
    z = x.detach().requires_grad_()
    total(z).backward()
    assert z.grad is not None
    return z.grad


def twice(x: Tensor) -> Tensor:
    z = x.detach().requires_grad_()
    (g,) = torch.autograd.grad(total(z), z, create_graph=True)
    return torch.autograd.grad(g.square().sum(), z)[0]


def jacobian(x: Tensor) -> Tensor:
    return functional.jacobian(total, x)


def jvp(x: Tensor) -> Tensor:
    return functional.jvp(lambda v: v.tanh(), x, torch.ones_like(x))[1]


def of_a_weight(x: Tensor) -> Tensor:
    w = NET[0].weight.detach().requires_grad_()
    return torch.autograd.grad((x.detach() @ w.T).tanh().sum(), w)[0].sum(0)


def functional_grad(x: Tensor) -> Tensor:
    return torch.func.grad(total)(x.detach())


def descent(x: Tensor) -> Tensor:
    z = torch.zeros_like(x, requires_grad=True)
    optimizer = torch.optim.SGD([z], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (NET(z) - x.detach().sum()).square().sum().backward()
        optimizer.step()
    return z.detach()


PLAIN = [plain, set_flag, backward, twice, jacobian, jvp, of_a_weight, functional_grad, descent]


@pytest.mark.parametrize("composite", ["auto", "epsilon_plus"])
@pytest.mark.parametrize("gradient", PLAIN, ids=lambda f: f.__name__)
def test_a_gradient_of_constants_is_plain_arithmetic(gradient: Model, composite: str) -> None:
    """`x` times a constant: all of the score is the input's, and the constant is torch's, bit for bit."""
    expected = (X * gradient(X.clone())).detach()
    NET.zero_grad()

    def model(x: Tensor) -> Tensor:
        return (x * gradient(x)).sum(1)

    found = relprop.attribute(model, X.clone(), composite=composite)
    assert torch.equal(found.output, expected.sum(1))
    torch.testing.assert_close(found.values, expected)
    assert all(p.grad is None for p in NET.parameters())


def test_a_model_that_returns_such_a_gradient_depends_on_nothing_that_carries_relevance() -> None:
    with pytest.raises(relprop.errors.SeveredGraphError, match="gradient"):
        relprop.attribute(lambda x: plain(x).sum(1), X)


def test_the_advice_to_differentiate_a_copy_works() -> None:
    with pytest.raises(UnsupportedOperationError) as refusal:
        relprop.attribute(by_grad, X.clone())
    assert "x.detach().requires_grad_()" in str(refusal.value)
    with pytest.raises(UnsupportedOperationError) as refusal:
        relprop.attribute(lambda x: (x * of_parameter_alone(x)).sum(1), X)
    assert "w = weight.detach().requires_grad_()" in str(refusal.value)
    relprop.attribute(lambda x: (x * of_a_weight(x)).sum(1), X)


def of_parameter_alone(x: Tensor) -> Any:
    return torch.autograd.grad((x.detach() @ NET[0].weight.T).tanh().sum(), NET[0].weight)[0].sum(0)
