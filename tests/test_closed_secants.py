"""Secants in closed form against their definition `(f(s) - f(0)) / s` in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import relprop
from relprop.engine.origins import SOURCE, ChainStep
from relprop.operations.closed_secants import closed, is_sigmoid, of_sigmoid
from relprop.operations.secants import secant

GRID = torch.cat(
    [torch.linspace(-30, 30, 4001), torch.logspace(-44, 0, 500), -torch.logspace(-44, 0, 500), torch.zeros(1)]
)
STEPS: dict[str, tuple[ChainStep, Callable[[Tensor], Tensor], float]] = {
    "silu": (ChainStep(F.silu, (SOURCE,), {}), torch.sigmoid, 0.5),
    "silu, in place": (ChainStep(F.silu, (SOURCE,), {"inplace": False}), torch.sigmoid, 0.5),
    "hardswish": (ChainStep(F.hardswish, (SOURCE,), {}), lambda s: (s / 6 + 0.5).clamp(0, 1), 0.5),
    "sigmoid": (ChainStep(torch.sigmoid, (SOURCE,), {}), lambda s: (s / 2).tanh() / (2 * s), 0.25),
    "sigmoid, as a method": (ChainStep(Tensor.sigmoid, (SOURCE,), {}), lambda s: (s / 2).tanh() / (2 * s), 0.25),
    "quick gelu": (
        ChainStep(torch.mul, (SOURCE, ChainStep(torch.sigmoid, (ChainStep(torch.mul, (SOURCE, 1.702), {}, True),), {})), {}),
        lambda s: (1.702 * s).sigmoid(),
        0.5,
    ),
    "mish": (
        ChainStep(torch.mul, (ChainStep(torch.tanh, (ChainStep(F.softplus, (SOURCE,), {}),), {}), SOURCE), {}),
        lambda s: F.softplus(s).tanh(),
        0.6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_a_closed_form_is_the_secant_to_a_few_units_in_the_last_place(name: str) -> None:
    step, exact, at_zero = STEPS[name]
    s = GRID
    assert is_sigmoid(step) or closed(step, s) is not None
    found, wanted = secant(step, s, False), exact(s.double())
    wanted = torch.where(s == 0, at_zero, wanted)
    assert found.dtype == s.dtype
    slack = 8 if name == "quick gelu" else 1  # its argument is rounded before the exponential
    torch.testing.assert_close(found.double(), wanted, rtol=slack * 6e-7, atol=1e-37)


@pytest.mark.parametrize("name", STEPS)
def test_a_closed_form_agrees_with_the_quotient_in_float64(name: str) -> None:
    step, _, _ = STEPS[name]
    s = torch.linspace(-20, 20, 2000, dtype=torch.float64)
    quotient = (step(s) - step(torch.zeros(1, dtype=torch.float64))) / s
    torch.testing.assert_close(secant(step, s, False), quotient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", STEPS)
def test_narrow_dtypes_are_rounded_once(name: str, dtype: torch.dtype) -> None:
    step, exact, at_zero = STEPS[name]
    s = torch.linspace(-8, 8, 999).to(dtype)
    wanted = torch.where(s == 0, at_zero, exact(s.double()))
    torch.testing.assert_close(secant(step, s, False).double(), wanted, rtol=1.1 * torch.finfo(dtype).eps, atol=1e-6)


def test_the_form_of_gelu_is_its_normal_distribution() -> None:
    """It is used on devices whose kernels are as quick for it; a CPU divides."""
    step, s = ChainStep(F.gelu, (SOURCE,), {"approximate": "none"}), GRID
    assert closed(step, s) is None
    form = closed(step, torch.empty(0, device="meta"))
    assert form is not None
    x = s.double()
    torch.testing.assert_close(form(x), torch.special.erfc(-x / 2**0.5) / 2, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(form(s), form(x).float(), rtol=1e-6, atol=1e-7)
    assert closed(ChainStep(F.gelu, (SOURCE,), {"approximate": "tanh"}), torch.empty(0, device="meta")) is None


def test_a_gate_that_returns_its_operand_is_not_overwritten() -> None:
    s = torch.tensor([1.0, -2.0, 3.0])
    step = ChainStep(torch.mul, (SOURCE, ChainStep(Tensor.contiguous, (SOURCE,), {})), {})
    found = secant(step, s, False)
    assert torch.equal(found, s)
    assert found.data_ptr() != s.data_ptr()
    x = torch.tensor([[1.0, -2.0, 3.0]])
    R = relprop.attribute(lambda x: (x * x.contiguous()).sum(1), x)
    torch.testing.assert_close(R.values, x**2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_chain_that_returns_its_source_does_not_overwrite_it(dtype: torch.dtype) -> None:
    """Such as `contiguous`; the secant of any other chain is made in its result's own memory."""
    s = torch.tensor([1.0, -2.0, 3.0], dtype=dtype)
    for function in (Tensor.contiguous, Tensor.cpu):
        with torch.no_grad():
            found = secant(ChainStep(function, (SOURCE,), {}), s, False)
        assert s.tolist() == [1.0, -2.0, 3.0]
        assert found.tolist() == [1.0, 1.0, 1.0]
        assert found.data_ptr() != s.data_ptr()


def test_the_sigmoid_is_exact_beside_zero() -> None:
    s = torch.tensor([1e-45, -1e-42, 1e-38, 1e-20, -1e-8, 1e-4])
    torch.testing.assert_close(of_sigmoid(s), torch.full_like(s, 0.25), rtol=1e-7, atol=0)


def test_spellings_of_silu_agree() -> None:
    x = torch.randn(4, 6, dtype=torch.float64)
    spelled: list[Callable[[Tensor], Tensor]] = [
        F.silu,
        lambda x: x * x.sigmoid(),
        lambda x: x.sigmoid() * x,
        lambda x: x * torch.special.expit(x),
        lambda x: x / (1 + (-x).exp()),
        lambda x: F.silu(x * 1, inplace=True),
    ]
    weight = torch.randn(6, dtype=torch.float64)
    maps = [relprop.attribute(lambda x, f=f: f(x) @ weight, x).values for f in spelled]
    for found in maps[1:]:
        torch.testing.assert_close(found, maps[0], rtol=1e-12, atol=1e-15)
