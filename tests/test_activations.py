"""An elementwise function multiplies the modified gradient by its secant from zero, however it is spelled."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reference
import relprop
from helpers import Pair, close
from relprop.engine.registry import TABLE

MODULES = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "leaky_relu": nn.LeakyReLU(0.2),
    "prelu": nn.PReLU(3),
    "rrelu": nn.RReLU(),
    "elu": nn.ELU(0.7),
    "celu": nn.CELU(0.7),
    "selu": nn.SELU(),
    "gelu": nn.GELU(),
    "gelu tanh": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(),
    "mish": nn.Mish(),
    "hardswish": nn.Hardswish(),
    "tanh": nn.Tanh(),
    "tanhshrink": nn.Tanhshrink(),
    "softshrink": nn.Softshrink(0.3),
    "hardshrink": nn.Hardshrink(0.3),
    "softsign": nn.Softsign(),
    "hardtanh": nn.Hardtanh(-0.5, 0.8),
    # Those that are not 0 at 0 have a bias there, which keeps its share.
    "sigmoid": nn.Sigmoid(),
    "hardsigmoid": nn.Hardsigmoid(),
    "logsigmoid": nn.LogSigmoid(),
    "softplus": nn.Softplus(2.0),
    "threshold": nn.Threshold(0.1, 0.4),
}

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "expm1": torch.expm1,
    "sin": torch.sin,
    "cos": torch.cos,
    "atan": torch.atan,
    "erf": torch.erf,
    "square": torch.square,
    "cube": lambda x: x**3,
    "clamp": lambda x: x.clamp(-0.6, 0.9),
    "clamp, in place": lambda x: (x * 1).clamp_(-0.6, 0.9),
    "clamp to whole numbers": lambda x: x.clamp(1, 2),
    "clamp from 1": lambda x: x.clamp(min=1),
    "clamp from 1, in place": lambda x: (x * 1).clamp_(min=1.0),
    "clamp from -1": lambda x: x.clamp_min(-1),
    "clamp from -1, in place": lambda x: (x * 1).clamp_min_(-1),
    "clamp up to 1": lambda x: x.clamp(max=1),
    "clamp up to 1, in place": lambda x: (x * 1).clamp_max_(1),
    "clamp up to -0.5": lambda x: x.clamp_max(-0.5),
    "hardtanh, in place": lambda x: F.hardtanh(x * 1, -0.3, 1.1, inplace=True),
    "threshold, in place": lambda x: F.threshold(x * 1, 0.1, 0.4, inplace=True),
    "rrelu as it comes": F.rrelu,
    "torch.rrelu as it comes": torch.rrelu,
    "leaky relu as it comes": F.leaky_relu,
    "elu as it comes": F.elu,
    "celu as it comes": F.celu,
    "softshrink as it comes": F.softshrink,
    "hardshrink as it comes": F.hardshrink,
    "softplus as it comes": F.softplus,
    "hardtanh as it comes": F.hardtanh,
    "maximum with 1": lambda x: torch.maximum(x, torch.ones_like(x)),
    "abs": torch.abs,
    "log1p of a square": lambda x: torch.log1p(x**2),
}


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def selected(x: Tensor) -> Tensor:
    """The slopes of a threshold at 0.1."""
    return (x > 0.1).double()


BOUNDS: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp to whole numbers": partial(reference.bounds, low=1.0, high=2.0),
    "clamp from 1": partial(reference.bounds, low=1.0),
    "clamp from 1, in place": partial(reference.bounds, low=1.0),
    "clamp up to -0.5": partial(reference.bounds, high=-0.5),
    "maximum with 1": partial(reference.bounds, low=1.0),
    "threshold": selected,
    "threshold, in place": selected,
}
"""What they multiply the modified gradient by: they are no activations, but pick x or a number."""


def factor(name: str, f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What an elementwise function multiplies the modified gradient by."""
    return BOUNDS[name](x) if name in BOUNDS else reference.secant(f, x)


ALL = MODULES | {name: Function(function) for name, function in FUNCTIONS.items()}


def modified_gradient(function: nn.Module, x: Tensor, composite: relprop.Composite) -> Tensor:
    """What reaches x of a gradient of one, under the composite."""
    relevance = relprop.attribute(function, x, target=lambda y: y.sum(1), composite=composite, multiply_by_inputs=False)
    return relevance.values


@pytest.mark.parametrize("name", [name for name in ALL if name != "hardsigmoid"])
def test_secant_from_zero(name: str) -> None:
    f = ALL[name].double().eval()
    x = torch.cat([torch.randn(4, 3), torch.zeros(1, 3), 1e-3 * torch.randn(2, 3), 8 * torch.randn(2, 3)])
    x = x.double()
    expected = factor(name, f, x)
    if name == "relu":
        expected = (x > 0).double()  # its native gradient: at 0 both 0 and 1 are right
    # A quotient of differences loses as many digits of float64 as x has left of 1: here three, at worst six
    # when squared.
    torch.testing.assert_close(modified_gradient(f, x, relprop.composites.zero()), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_between_layers(name: str) -> None:
    """R_z = (f(z) - f(0)) v for a score v f(z), or z v where a bound selects z; and below it LRP-0."""
    f = ALL[name].double().eval()
    below = nn.Linear(4, 3).double()
    x, v = torch.randn(5, 4).double(), torch.randn(3).double()
    relevance = relprop.attribute(
        nn.Sequential(below, f), x, target=lambda y: y @ v, composite=relprop.composites.zero()
    )
    z = below(x).detach()
    share = factor(name, f, z) * z * v
    close(relevance.values, reference.weighted(reference.zero)(below, x, share))


def test_a_hard_sigmoid_is_bounded_behind_its_shift() -> None:
    """`relu6(x + 3) / 6`: the bound acts on `x + 3`, of which the 3 is a bias; between the bounds that is the slope 1/6."""
    x = torch.tensor([[-8.0, -3.0, -1.0, 0.0, 2.0, 3.0, 9.0]], dtype=torch.float64)
    R = relprop.attribute(lambda x: F.hardsigmoid(x).sum(1), x, composite="zero")
    close(R.values, x / 6 * torch.tensor([[0, 0, 1, 1, 1, 1, 6 / 12]], dtype=torch.float64), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"relu", "threshold", "hardsigmoid"}))
def test_a_unit_at_zero_has_the_slope_of_zero(name: str) -> None:
    f = MODULES[name].double().eval()
    difference = nn.Linear(2, 3, bias=False).double()
    difference.weight.data = torch.tensor([[1.0, -1.0]] * 3).double()
    x = torch.ones(1, 2).double()
    relevance = relprop.attribute(
        nn.Sequential(difference, f), x, target=lambda y: y.sum(1), composite=relprop.composites.zero()
    )
    slope = reference.secant(f, torch.zeros(1, 3).double()).sum()
    close(relevance.values, torch.stack([slope, -slope])[None])


@pytest.mark.parametrize("name", ["gelu", "gelu tanh", "silu", "mish", "tanh", "sigmoid", "softplus"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_smooth_near_zero(name: str, dtype: torch.dtype) -> None:
    """A difference quotient that has lost its digits is not what is handed down: near 0 stands the
    derivative.
    """
    x = torch.logspace(-12, -1, 56, dtype=torch.float64)
    x = torch.cat([x, -x])[None]
    f = MODULES[name]
    near = modified_gradient(f.to(dtype), x.to(dtype), relprop.composites.zero())
    slope = reference.secant(f.double(), torch.zeros_like(x))
    exact = reference.secant(f.double(), x)
    # The rounding of f(x) and f(0) cannot be told from slope below here, so the derivative stands in for the
    # quotient.
    exact = torch.where(x.abs() < 1e-6, slope, exact)
    # Where the derivative takes over it is off by f"(0) x / 2.
    tolerance = 2e-3 if dtype == torch.float32 else 1e-5
    torch.testing.assert_close(near.double(), exact, rtol=tolerance, atol=tolerance)


# One activation, in the words of the code it is found in, and what torch calls it.
SPELLINGS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "gelu as in BERT": (lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))), F.gelu),
    "gelu as in GPT-2": (
        lambda x: 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0)))),
        partial(F.gelu, approximate="tanh"),
    ),
    "gelu as in Megatron": (
        lambda x: 0.5 * x * (1.0 + torch.tanh(0.7978845608028654 * x * (1.0 + 0.044715 * x * x))),
        partial(F.gelu, approximate="tanh"),
    ),
    "silu as a product": (lambda x: x * torch.sigmoid(x), F.silu),
    "silu, the gate first": (lambda x: x.sigmoid() * x, F.silu),
    "silu in place": (lambda x: x.sigmoid().mul_(x), F.silu),
    "silu as a quotient": (lambda x: x / (1 + torch.exp(-x)), F.silu),
    "hardswish": (lambda x: x * F.relu6(x + 3) / 6, F.hardswish),
    "hardswish by clamp": (lambda x: x * ((x + 3).clamp(0, 6) / 6), F.hardswish),
    "hardswish by hardsigmoid": (lambda x: x * F.hardsigmoid(x), F.hardswish),
    "mish": (lambda x: x * torch.tanh(F.softplus(x)), F.mish),
    "mish by log and exp": (lambda x: x * torch.tanh(torch.log(1 + torch.exp(x))), F.mish),
    "relu by maximum": (lambda x: torch.maximum(x, torch.zeros_like(x)), F.relu),
    "relu by clamp": (lambda x: x.clamp(min=0), F.relu),
    "relu by where": (lambda x: torch.where(x > 0, x, 0.0), F.relu),
    "relu by a mask": (lambda x: x * (x > 0), F.relu),
    "softsign": (lambda x: x / (1 + x.abs()), F.softsign),
    "tanhshrink": (lambda x: x - torch.tanh(x), F.tanhshrink),
    "square": (lambda x: x * x, torch.square),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_written_out_equals_fused(name: str) -> None:
    written, fused = SPELLINGS[name]
    below, above = nn.Linear(4, 6).double(), nn.Linear(6, 2).double()
    x = torch.randn(5, 4).double()
    of_written, of_fused = (
        relprop.attribute(nn.Sequential(below, Function(f), above), x, 1, composite=relprop.composites.epsilon())
        for f in (written, fused)
    )
    close(of_written.output, of_fused.output)
    close(of_written.values, of_fused.values)


def test_quick_gelu_and_squared_relu_have_no_fused_spelling() -> None:
    """Both are 0 at 0: the activation passes relevance on unchanged."""
    x = torch.randn(5, 4).double()
    for f in (lambda x: x * torch.sigmoid(1.702 * x), lambda x: F.relu(x) ** 2, lambda x: F.relu(x).square()):
        relevance = relprop.attribute(Function(f), x, lambda y: y.sum(1), composite=relprop.composites.zero())
        close(relevance.values, f(x))


def test_two_sources_are_a_product() -> None:
    """SwiGLU: gate and up projection come from different tensors; half goes to either."""
    gate, up = torch.randn(2, 3, 4).double()
    model = Pair(lambda gate, up: F.silu(gate) * up)
    relevance = relprop.attribute(model, (gate, up), lambda y: y.sum(1), composite=relprop.composites.zero())
    for values, half in zip(relevance.values, reference.product(gate, up, F.silu(gate) * up), strict=True):
        close(values, half)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (relprop.GuidedBackprop(), lambda x, g: g.clamp(min=0) * (x > 0)),
        (relprop.Deconvnet(), lambda x, g: g.clamp(min=0).expand_as(x)),
        (relprop.BetaSmooth(), lambda x, g: g * torch.sigmoid(10 * x)),
        (relprop.BetaSmooth(3.0), lambda x, g: g * torch.sigmoid(3 * x)),
        (relprop.Native(), lambda x, g: g * (x > 0)),
        (relprop.Pass(), lambda x, g: torch.where(x == 0, 0, x.clamp(min=0) / x) * g),
        (relprop.Block(), lambda x, g: 0 * x),
    ],
    ids=lambda value: repr(value) if isinstance(value, relprop.rules.Rule) else "",
)
def test_other_rules_for_relu(rule: relprop.rules.Rule, expected: Callable[[Tensor, Tensor], Tensor]) -> None:
    x, g = torch.randn(5, 6).double(), torch.randn(6).double()
    relevance = relprop.attribute(
        nn.ReLU(),
        x,
        target=lambda y: y @ g,
        composite=relprop.Composite({"activation": rule}),
        multiply_by_inputs=False,
    )
    close(relevance.values, expected(x, g))


@pytest.mark.parametrize("rounds", [300, 3000])
def test_a_chain_longer_than_pythons_stack_is_one_function(rounds):
    """What 2 rounds of scalar operations make is what the tanh is given: its secant, and biases that keep their share."""

    def model(x):
        for _ in range(rounds):
            x = x * 0.9999 + 0.0001
        return x.tanh().sum(1)

    x = torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(2, 3)
    R = relprop.attribute(model, x)
    slope = 0.9999**rounds
    offset = 1 - slope
    z = slope * x + offset
    torch.testing.assert_close(R.values, slope * x * z.tanh() / z)


def test_a_chain_that_reads_itself_twice_at_each_step_is_evaluated_once_per_step():
    """x (x + 1) fifty times over has 2^50 paths."""

    def model(x):
        for _ in range(50):
            x = x * (x + 1)
        return x.sum(1)

    x = torch.full((1, 2), 1e-20, dtype=torch.float64)
    torch.testing.assert_close(relprop.attribute(model, x).values, x)


def test_an_activation_of_ones_own_that_jumps_starts_before_a_shift() -> None:
    """No secant describes a jump at 0: the relevance is that of the function with the shift in it."""

    @torch.library.custom_op("relprop_tests::opens", mutates_args=())
    def opens(x: Tensor) -> Tensor:
        return torch.where(x > 0, x + 1, torch.zeros_like(x))

    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * (ctx.saved_tensors[0] > 0)

    opens.register_autograd(backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))
    operation = torch.ops.relprop_tests.opens.default
    relprop.register(operation, family="activation")
    try:
        x = torch.tensor([[0.2, 0.8, 2.0, -1.0]], dtype=torch.float64)
        R = relprop.attribute(lambda x: operation(x - 0.5), x, lambda y: y.sum(1), composite="zero")
        torch.testing.assert_close(R.values, torch.tensor([[0.0, 1.3, 2.5, 0.0]], dtype=torch.float64))
    finally:
        TABLE.pop(operation)


# Bounds of their own for each entry: of each feature, or of each row.
LOWS = torch.linspace(-0.6, 0.35, 13, dtype=torch.float64)
BY_ENTRY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "clamp, below": lambda x, low: x.clamp(min=low),
    "clamp, above": lambda x, low: x.clamp(max=low),
    "clamp": lambda x, low: torch.clamp(x, low, low + 0.5),
    "clip": lambda x, low: torch.clip(x, low, low + 0.5),
    "clamp in place": lambda x, low: (x * 1).clamp_(low, low + 0.5),
    "maximum": lambda x, low: torch.maximum(x, low),
    "maximum, turned": lambda x, low: torch.maximum(low, x),
    "minimum": lambda x, low: torch.minimum(x, low),
    "fmax": lambda x, low: torch.fmax(x, low),
    "a minimum of a maximum": lambda x, low: torch.minimum(torch.maximum(x, low), low + 0.5),
}


@pytest.mark.parametrize("shape", [(3,), (13,), (2, 1), (2, 13)], ids=str)
@pytest.mark.parametrize("name", BY_ENTRY)
def test_bounds_of_each_entry(name: str, shape: tuple[int, ...]) -> None:
    """The winner takes all: at the end of a model, between layers, and as a factor of what it is a function of."""
    low = torch.cat([LOWS, LOWS - 0.2])[: torch.Size(shape).numel()].reshape(shape)
    f = partial(BY_ENTRY[name], low=low)
    x = torch.randn(2, max(3, shape[-1]), dtype=torch.float64)
    x[0, 0], x[1, 1], x[0, 2] = 0.0, 1e-7, 0.2
    v = torch.randn(x.shape[1], dtype=torch.float64)
    options: dict[str, Any] = {"composite": "zero", "multiply_by_inputs": False}

    def won(x: Tensor) -> Tensor:
        return (f(x) == x).double()

    close(relprop.attribute(f, x, lambda y: y @ v, **options).values, won(x) * v)
    inside = relprop.attribute(lambda x: f(x * 2 - 0.1) * v, x, lambda y: y.sum(1), **options)
    close(inside.values, 2 * won(2 * x - 0.1) * v)
    product = relprop.attribute(lambda x: x * f(x), x, lambda y: y @ v, **options)
    close(product.values, 0.5 * (f(x) + x * won(x)) * v)  # half to each factor


IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "clamp": lambda x: x.clamp_(-0.6, 0.9),
    "clamp from 0": lambda x: x.clamp_(min=0),
    "clamp from 1": lambda x: x.clamp_(min=1),
    "clamp from -1": lambda x: torch.clamp_min_(x, -1.0),
    "clamp up to 0": lambda x: x.clamp_(max=0),
    "clamp up to 1": lambda x: x.clamp_max_(1),
    "clamp from 0 up to 1": lambda x: x.clamp_(0, 1),
    "hardtanh": lambda x: F.hardtanh(x, -0.3, 1.1, inplace=True),
    "threshold": lambda x: F.threshold(x, 0.1, 0.4, inplace=True),
    "clamp up to -0.5": lambda x: x.clamp_max_(-0.5),
    "clamp to whole numbers": lambda x: x.clamp_(1, 2),
}


@pytest.mark.parametrize("composite", ["zero", "epsilon", "gradient"])
@pytest.mark.parametrize("name", IN_PLACE)
def test_written_into_a_layers_output(name: str, composite: str) -> None:
    """As out of place: the value, the secant above the layer, and torch's own gradient."""
    f, below = IN_PLACE[name], nn.Linear(4, 3).double()
    x, v = torch.randn(5, 4).double(), torch.randn(3).double()
    found = relprop.attribute(lambda x: f(below(x)), x, lambda y: y @ v, composite=composite)
    z = below(x).detach()
    assert torch.equal(found.output, f(z.clone()))
    if composite == "gradient":
        leaf = x.clone().requires_grad_()
        (wanted,) = torch.autograd.grad((f(below(leaf)) @ v).sum(), leaf)
        close(found.values, wanted)
    else:
        share = factor(name, lambda t: f(t.clone()), z) * z * v
        naive = partial(reference.epsilon, epsilon=0.0 if composite == "zero" else 1e-6)
        close(found.values, reference.weighted(naive)(below, x, share))


@pytest.mark.parametrize("name", BY_ENTRY)
def test_the_gradient_of_bounds_of_each_entry(name: str) -> None:
    f, x = partial(BY_ENTRY[name], low=LOWS), torch.randn(3, 13, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(f(leaf).sum(), leaf)
    close(relprop.attribute(f, x, lambda y: y.sum(1), composite="gradient").values, wanted)
    if name.startswith("cl"):  # an activation, which a rule may act on: here relevance goes straight through
        passing = relprop.Composite({"activation": relprop.Pass()})
        close(relprop.attribute(f, x, lambda y: y.sum(1), composite=passing).values, f(x))


ROOTS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid of a root": lambda x: torch.sigmoid(torch.sqrt(x)),
    "exponential of a root": lambda x: torch.exp(x**0.5),
    "cosine of a cube root": lambda x: torch.cos(x ** (1 / 3)),
    "exponential of x^1.5": lambda x: torch.exp(x**1.5),
    "softplus of a root": lambda x: F.softplus(x.sqrt()),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ROOTS)
def test_an_infinite_slope_at_0_loses_nothing_near_it(name: str, dtype: torch.dtype) -> None:
    x = torch.logspace(-12, 1, 14, dtype=dtype)[None]
    R = relprop.attribute(ROOTS[name], x, lambda y: y.sum(1), composite="zero")
    rise = ROOTS[name](x.double()) - ROOTS[name](torch.zeros_like(x.double()))
    torch.testing.assert_close(R.values.double(), rise, rtol=1e-4, atol=1e-12 if dtype is torch.float64 else 1e-7)
