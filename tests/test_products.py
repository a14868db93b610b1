"""Products share by halves, a divisor is a constant, a residual sum shares by contribution with its sign."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import reference
import relprop
from helpers import D, Pair, close

Definition = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@pytest.mark.parametrize(
    ("function", "definition"),
    [
        (torch.mul, reference.product),
        (torch.div, reference.quotient_of_two),
        (torch.add, reference.residual_sum),
        (lambda a, b: a - b, lambda a, b, r: reference.residual_sum(a, -b, r)),
        (
            lambda a, b: torch.addcmul(a, b, torch.tensor(2.0)),
            lambda a, b, r: reference.residual_sum(a, 2 * b, r),
        ),
        (lambda a, b: torch.lerp(a, b, 0.25), lambda a, b, r: reference.residual_sum(0.75 * a, 0.25 * b, r)),
    ],
    ids=["product", "quotient", "sum", "difference", "addcmul", "lerp"],
)
def test_of_two_inputs(function: Callable[[Tensor, Tensor], Tensor], definition: Definition) -> None:
    a, b, v = torch.randn(3, 2, 5).double()
    model = Pair(function)
    relevance = relprop.attribute(model, (a, b), target=lambda y: y @ v[0], composite="zero")
    for values, expected in zip(relevance.values, definition(a, b, function(a, b) * v[0]), strict=True):
        close(values, expected)


def test_a_matrix_product_is_a_sum_of_products() -> None:
    """R(a_tk) = sum_d a_tk b_kd / 2 r_td / y_td, and likewise for b."""
    a, b = torch.randn(2, 3, 4).double(), torch.randn(2, 4, 5).double()
    v = torch.randn(3, 5).double()
    relevance = relprop.attribute(Pair(torch.matmul), (a, b), target=lambda y: (y * v).sum((1, 2)), composite="zero")
    parts = torch.einsum("btk,bkd,td->btkd", a, b, v) / 2
    close(relevance.values[0], parts.sum(3))
    close(relevance.values[1], parts.sum(1))
    close(relevance.values[0].sum((1, 2)) + relevance.values[1].sum((1, 2)), relevance.score)


def test_cubes_of_different_tensors_share_by_halves_of_halves() -> None:
    """(a b) c: half to c, a quarter each to a and b."""
    a, b, c = torch.randn(3, 2, 5).double()

    class Triple(nn.Module):
        def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
            return a * b * c

    relevance = relprop.attribute(Triple(), (a, b, c), target=lambda y: y.sum(1), composite="zero")
    for values, share in zip(relevance.values, (0.25, 0.25, 0.5), strict=True):
        close(values, share * a * b * c)


def test_a_residual_block() -> None:
    """x + f(x) under a rule that is not LRP-0: f's relevance goes down by the rule, x's stays with x."""
    f = nn.Linear(4, 4).double()

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = f

        def forward(self, x: Tensor) -> Tensor:
            return x + torch.relu(self.f(x))

    x, v = torch.randn(3, 4).double(), torch.randn(4).double()
    composite = relprop.Composite({"linear": relprop.Gamma()})
    relevance = relprop.attribute(Residual(), x, target=lambda y: y @ v, composite=composite)
    branch = torch.relu(f(x)).detach()
    to_x, to_branch = reference.residual_sum(x, branch, (x + branch) * v)
    close(relevance.values, to_x + reference.weighted(reference.gamma)(f, x, to_branch))


@pytest.mark.parametrize("dim", [1, -1, 2])
def test_a_cumulative_product_shares_equally_among_its_factors(dim: int) -> None:
    """The k-th result is a product of k factors: R_i = sum over k >= i of R_k / k."""
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    weights = torch.randn(3, 4, dtype=torch.float64)
    relevance = relprop.attribute(lambda x: (x.cumprod(dim) * weights).sum((1, 2)), x, composite="zero")
    arrived = x.cumprod(dim) * weights
    shape = [-1 if d == dim % 3 else 1 for d in range(3)]
    one = arrived / torch.arange(1, x.shape[dim] + 1, dtype=torch.float64).reshape(shape)
    close(relevance.values, one.flip(dim).cumsum(dim).flip(dim))


def test_a_product_over_an_axis_shares_equally() -> None:
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    relevance = relprop.attribute(lambda x: x.prod(2).sum(1), x, composite="zero")
    close(relevance.values, (x.prod(2, keepdim=True) / 4).expand_as(x))


def test_an_einsum_by_entry_is_a_product() -> None:
    """Also where an ellipsis lines up otherwise than broadcasting does, which is not a product by entry."""
    a, b = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 4, 3, dtype=torch.float64)
    same = relprop.attribute(lambda a, c: torch.einsum("n...,n...->n...", a, c).sum(1), (a, a + 1), composite="zero")
    plain = relprop.attribute(lambda a, c: (a * c).sum(1), (a, a + 1), composite="zero")
    for one, other in zip(same.values, plain.values, strict=True):
        torch.testing.assert_close(one, other)
    apart = relprop.attribute(lambda a, b: torch.einsum("n...,n...->n...", a, b).sum((1, 2)), (a, b), composite="zero")
    of_a, of_b = apart.values
    wanted = a[:, None] * b / 2
    torch.testing.assert_close(apart.output, (a[:, None] * b).sum((1, 2)))
    torch.testing.assert_close(of_b, wanted)
    torch.testing.assert_close(of_a, wanted.sum(1))


def test_three_factors_take_a_third_each() -> None:
    a, b, c = torch.randn(3, 2, 4, dtype=torch.float64)
    found = relprop.attribute(lambda a, b, c: torch.einsum("nd,nd,nd->n", a, b, c), (a, b, c), composite="zero")
    for values in found.values:
        torch.testing.assert_close(values, a * b * c / 3)


def test_a_sum_scaled_by_alpha_is_a_step_of_a_chain() -> None:
    x = torch.randn(2, 4, dtype=torch.float64)
    forms = [
        lambda x: (x * torch.sigmoid(torch.add(x, 0.5, alpha=2.0))).sum(1),
        lambda x: (x * torch.sigmoid(x + 1.0)).sum(1),
    ]
    one, other = (relprop.attribute(f, x, composite="zero").values for f in forms)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("composite", ["zero", "cp_lrp", "attnlrp"])
def test_a_quotient_by_what_makes_a_sigmoid_is_a_gated_product(composite: str) -> None:
    a, b = torch.randn(2, 3, 4, dtype=torch.float64)
    wanted = relprop.attribute(lambda a, b: (a * b.sigmoid()).sum(1), (a, b), composite=composite).values
    forms = [
        lambda a, b: (a / (1 + torch.exp(-b))).sum(1),
        lambda a, b: (a / (1 + (-b).exp()).clone()).sum(1),
        lambda a, b: (a * (1 / (1 + torch.exp(-b)))).sum(1),
    ]
    for form in forms:
        for values, right in zip(relprop.attribute(form, (a, b), composite=composite).values, wanted, strict=True):
            close(values, right)


@pytest.mark.parametrize("composite", ["zero", "cp_lrp", "attnlrp"])
def test_a_divisor_with_bounds_is_the_same_gate_in_all_spellings(composite: str) -> None:
    """Where its chain starts does not matter: a relu before it says that only its right half is a gate's."""
    a, b = torch.randn(2, 3, 4, dtype=torch.float64)
    forms = [
        lambda a, b: (a / (b.clamp(0, 0.7) + 1)).sum(1),
        lambda a, b: (a / (b.relu().clamp_max(0.7) + 1)).sum(1),
        lambda a, b: (a / (torch.minimum(b.relu(), torch.tensor(0.7, dtype=b.dtype)).abs() + 1)).sum(1),
        lambda a, b: (a / (torch.nn.functional.relu6(b * (6 / 0.7)) * (0.7 / 6) + 1)).sum(1),
    ]
    wanted, *others = (relprop.attribute(form, (a, b), composite=composite).values for form in forms)
    for found in others:
        for values, right in zip(found, wanted, strict=True):
            close(values, right)
    assert bool(wanted[1].any()) == (composite != "cp_lrp")  # there a gate takes nothing


POWERS: dict[str, Callable[[Tensor], Tensor]] = {
    "**": lambda x: 2.0**x,
    "torch.pow": lambda x: torch.pow(2.0, x),
    "of a tensor": lambda x: torch.tensor(2.0, dtype=x.dtype) ** x,
    "of several": lambda x: torch.full((4,), 2.0, dtype=x.dtype) ** x,
    "of one for each entry": lambda x: torch.pow(torch.full_like(x, 2.0), x),
    "torch.exp2": torch.exp2,
    "float_power": lambda x: torch.float_power(2.0, x),
    "of a square": lambda x: 4.0 ** (x / 2),
    "exp": lambda x: torch.exp(x * math.log(2)),
    "ldexp": lambda x: torch.ldexp(torch.tensor(1.0, dtype=x.dtype), x),
}


@pytest.mark.parametrize("composite", ["zero", "cp_lrp", "gamma_flat"])
@pytest.mark.parametrize("name", POWERS)
def test_a_power_of_a_constant_is_an_activation(name: str, composite: str) -> None:
    """`R = 2^x - 1`: the 1 is what it is at 0."""
    x = torch.tensor([[1.0, -2.0, 0.0, 3.0], [0.5, 1e-9, -1.0, 7.0]], dtype=torch.float64)
    R = relprop.attribute(lambda x: POWERS[name](x).sum(1), x, composite=composite)
    torch.testing.assert_close(R.values, torch.expm1(x * math.log(2)), rtol=1e-5, atol=1e-14)


def test_powers_of_several_constants() -> None:
    x, base = torch.randn(3, 4, dtype=torch.float64), torch.tensor([2.0, 3.0, 0.5, 1.0], dtype=torch.float64)
    R = relprop.attribute(lambda x: (base**x).sum(1), x, composite="epsilon")
    torch.testing.assert_close(R.values, base**x - 1)
    R = relprop.attribute(lambda x: (base[:, None] ** x[:, None, :]).flatten(1).sum(1), x, composite="epsilon")
    torch.testing.assert_close(R.values, (base[:, None] ** x[:, None, :] - 1).sum(1))


@pytest.mark.parametrize("composite", ["zero", "epsilon", "cp_lrp", "gamma_flat"])
def test_an_exponent_that_carries_relevance_is_a_constant(composite: str) -> None:
    """`x ** y` is the activation of x that it is where the exponent is a number of the model: its relevance goes to x."""
    x, y = torch.rand(2, 4, dtype=D) + 0.1, 1 + torch.rand(2, 4, dtype=D)
    x[0, 0] = 0.0
    for power in (torch.pow, torch.Tensor.__pow__):
        both = relprop.attribute(lambda x, y, p=power: p(x, y).sum(1) + y.sum(1), (x, y), composite=composite)  # type: ignore[misc]
        alone = relprop.attribute(lambda x, p=power: p(x, y).sum(1), x, composite=composite)  # type: ignore[misc]
        close(both.values[0], alone.values)
        close(both.values[0], x**y)
