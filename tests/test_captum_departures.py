"""Where captum's LRP departs from the definitions, and relprop does not: ours against `reference.py`, captum beside.

The table of docs/captum.md is made here: `PYTHONPATH=src:tests python -m test_captum_departures` writes it anew.

Each case is a network, its inputs, and what the definitions say, layer by layer; `r` is the relevance that arrives.
"""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reference as ref
import relprop.captum as ours
from networks import Written, settle

PAGE = Path(__file__).parent.parent / "docs" / "captum.md"
MARKS = "<!-- departures: begin -->\n", "<!-- departures: end -->\n"
TARGET = 1

# What both put below the line where no rule is set; in float64 it is below what is compared.
layer = ref.weighted(partial(ref.epsilon, epsilon=1e-9))
Expected = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A network, what goes in, what should come out, and the rules set by name of module."""

    make: Callable[[], nn.Module]
    expected: Expected
    shape: tuple[int, ...] = (2, 6)
    rules: Callable[[nn.Module, Any], None] = lambda model, rules: None
    calls: int = 1
    nonnegative: bool = False


CASES: dict[str, Case] = {}


def case(name: str, make: Callable[[], nn.Module], **options: Any) -> Callable[[Expected], Expected]:
    def add(expected: Expected) -> Expected:
        CASES[name] = Case(make, expected, **options)
        return expected

    return add


def seed(output: Tensor) -> Tensor:
    r = torch.zeros_like(output)
    r[:, TARGET] = output[:, TARGET]
    return r.detach()


def linear(i: int, o: int) -> nn.Linear:
    return nn.Linear(i, o)


def conv(i: int, o: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(i, o, kernel, padding=kernel // 2)


# ------------------------------------------------------------------------------------------------- sums and joins


def residual(m: Any, x: Tensor) -> Tensor:
    a = F.relu(m.a(x))
    return m.c(a + F.relu(m.b(a)))


@case("functional residual sum", lambda: Written(residual, a=linear(6, 5), b=linear(5, 5), c=linear(5, 3)))
def _(m: Any, x: Tensor) -> Tensor:
    a = F.relu(m.a(x))
    b = F.relu(m.b(a))
    r_a, r_b = ref.residual_sum(a, b, layer(m.c, a + b, seed(m.c(a + b))))
    return layer(m.a, x, r_a + layer(m.b, a, r_b))


def preactivation(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    h = h + m.b(F.relu(m.n(h)))
    return m.c(h.flatten(1))


@case(
    "pre-activation residual block",
    lambda: settle(Written(preactivation, a=conv(2, 3), n=nn.BatchNorm2d(3), b=conv(3, 3), c=linear(48, 3))),
    shape=(2, 2, 4, 4),
)
def _(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    n = m.n(h)
    b = m.b(F.relu(n))
    flat = (h + b).flatten(1)
    r_h, r_b = ref.residual_sum(h, b, layer(m.c, flat, seed(m.c(flat))).reshape(h.shape))
    r_n = layer(m.b, F.relu(n), r_b)
    return layer(m.a, x, r_h + layer(m.n, h, r_n))


def dense(m: Any, x: Tensor) -> Tensor:
    a = F.relu(m.a(x))
    return m.c(torch.cat([a, F.relu(m.b(a))], 1))


@case(
    "dense block: concatenation with what came before",
    lambda: Written(dense, a=linear(6, 4), b=linear(4, 4), c=linear(8, 3)),
)
def _(m: Any, x: Tensor) -> Tensor:
    a = F.relu(m.a(x))
    joined = torch.cat([a, F.relu(m.b(a))], 1)
    r_a, r_b = layer(m.c, joined, seed(m.c(joined))).split(4, 1)
    return layer(m.a, x, r_a + layer(m.b, a, r_b))


def unet(m: Any, x: Tensor) -> Tensor:
    down = F.relu(m.a(x))
    mid = F.relu(m.b(m.pool(down)))
    return m.c(torch.cat([m.up(mid), down], 1).flatten(1))


def unet_modules() -> dict[str, nn.Module]:
    up = nn.ConvTranspose2d(3, 2, 2, 2)
    return dict(a=conv(2, 2), pool=nn.MaxPool2d(2), b=conv(2, 3), up=up, c=linear(64, 3))


@case("U-Net skip with a transposed convolution", lambda: Written(unet, **unet_modules()), shape=(2, 2, 4, 4))
def _(m: Any, x: Tensor) -> Tensor:
    down = F.relu(m.a(x))
    pooled = m.pool(down)
    mid = F.relu(m.b(pooled))
    joined = torch.cat([m.up(mid), down], 1)
    r_up, r_down = layer(m.c, joined.flatten(1), seed(m.c(joined.flatten(1)))).reshape(joined.shape).split(2, 1)
    r_pooled = layer(m.b, pooled, layer(m.up, mid, r_up))
    return layer(m.a, x, r_down + ref.winner_takes_all(m.pool, down, r_pooled))


def upsampled(m: Any, x: Tensor) -> Tensor:
    down = F.relu(m.a(x))
    mid = F.interpolate(F.relu(m.b(m.pool(down))), scale_factor=2)
    return m.c(torch.cat([mid, down], 1).flatten(1))


def upsampled_modules() -> dict[str, nn.Module]:
    return dict(a=conv(2, 2), pool=nn.MaxPool2d(2), b=conv(2, 3), c=linear(80, 3))


@case("U-Net skip with interpolation", lambda: Written(upsampled, **upsampled_modules()), shape=(2, 2, 4, 4))
def _(m: Any, x: Tensor) -> Tensor:
    down = F.relu(m.a(x))
    pooled = m.pool(down)
    mid = F.relu(m.b(pooled))
    joined = torch.cat([F.interpolate(mid, scale_factor=2), down], 1)
    r_up, r_down = layer(m.c, joined.flatten(1), seed(m.c(joined.flatten(1)))).reshape(joined.shape).split([3, 2], 1)
    r_pooled = layer(m.b, pooled, layer(partial(F.interpolate, scale_factor=2), mid, r_up))
    return layer(m.a, x, r_down + ref.winner_takes_all(m.pool, down, r_pooled))


# --------------------------------------------------------------------------------------- arithmetic between layers


def mean(m: Any, x: Tensor) -> Tensor:
    return m.c(F.relu(m.a(x)).mean((2, 3)))


@case("mean over pixels", lambda: Written(mean, a=conv(2, 4), c=linear(4, 3)), shape=(2, 2, 4, 4))
def _(m: Any, x: Tensor) -> Tensor:
    a = F.relu(m.a(x))
    return layer(m.a, x, layer(lambda t: t.mean((2, 3)), a, layer(m.c, a.mean((2, 3)), seed(mean(m, x)))))


def total(m: Any, x: Tensor) -> Tensor:
    return m.c(F.relu(m.a(x)).sum(1))


@case("sum over tokens", lambda: Written(total, a=linear(6, 4), c=linear(4, 3)), shape=(2, 3, 6))
def _(m: Any, x: Tensor) -> Tensor:
    a = F.relu(m.a(x))
    return layer(m.a, x, layer(lambda t: t.sum(1), a, layer(m.c, a.sum(1), seed(total(m, x)))))


def scale(m: Any, x: Tensor) -> Tensor:
    return m.c(0.5 * F.relu(m.a(x)))


@case("scale by a constant", lambda: Written(scale, a=linear(6, 5), c=linear(5, 3)))
def _(m: Any, x: Tensor) -> Tensor:
    a = F.relu(m.a(x))
    return layer(m.a, x, layer(m.c, 0.5 * a, seed(scale(m, x))))


def shift(m: Any, x: Tensor) -> Tensor:
    return m.c(F.relu(m.a(x)) - 0.5)


@case("shift by a constant", lambda: Written(shift, a=linear(6, 5), c=linear(5, 3)))
def _(m: Any, x: Tensor) -> Tensor:
    a = F.relu(m.a(x))
    r_a, _ = ref.residual_sum(a, torch.full_like(a, -0.5), layer(m.c, a - 0.5, seed(shift(m, x))))
    return layer(m.a, x, r_a)


def gate(m: Any, x: Tensor) -> Tensor:
    return m.c(m.a(x) * torch.sigmoid(m.b(x)))


@case("gate: a product of two branches", lambda: Written(gate, a=linear(6, 5), b=linear(6, 5), c=linear(5, 3)))
def _(m: Any, x: Tensor) -> Tensor:
    a, b = m.a(x), m.b(x)
    r_a, r_gate = ref.product(a, b.sigmoid(), layer(m.c, a * b.sigmoid(), seed(gate(m, x))))
    return layer(m.a, x, r_a) + layer(m.b, x, ref.activation(torch.sigmoid, b, r_gate))


def tanh(m: Any, x: Tensor) -> Tensor:
    return m.c(torch.tanh(m.a(x)))


@case("tanh as a function", lambda: Written(tanh, a=linear(6, 5), c=linear(5, 3)))
def _(m: Any, x: Tensor) -> Tensor:
    return layer(m.a, x, layer(m.c, m.a(x).tanh(), seed(tanh(m, x))))


# ------------------------------------------------------------------------------------------------- modules refused


def chain(m: Any, x: Tensor) -> Tensor:
    return m.c(m.f(m.a(x)))


def activated(f: nn.Module) -> Callable[[], nn.Module]:
    return lambda: Written(chain, a=linear(6, 5), f=copy.deepcopy(f), c=linear(5, 3))


def through_activation(m: Any, x: Tensor) -> Tensor:
    a = m.a(x)
    return layer(m.a, x, ref.activation(m.f, a, layer(m.c, m.f(a), seed(chain(m, x)))))


for _name, _f in {
    "sigmoid": nn.Sigmoid(),
    "ELU": nn.ELU(),
    "GELU": nn.GELU(),
    "SiLU": nn.SiLU(),
    "leaky ReLU": nn.LeakyReLU(),
}.items():
    case(f"{_name} module", activated(_f))(through_activation)
for _name, _f in {"Flatten": nn.Flatten(), "Identity": nn.Identity()}.items():
    case(f"{_name} module", activated(_f))(through_activation)


def layer_norm() -> nn.Module:
    norm = nn.LayerNorm(5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


@case("LayerNorm module", activated(layer_norm()))
def _(m: Any, x: Tensor) -> Tensor:
    a = m.a(x)
    r = layer(m.c, m.f(a), seed(chain(m, x)))

    def one(a: Tensor, r: Tensor) -> Tensor:
        normalised = ref.normalisation(a, 1, centred=True, eps=m.f.eps)
        return layer(lambda t: normalised(t) * m.f.weight + m.f.bias, a, r)

    return layer(m.a, x, torch.cat([one(a[b : b + 1], r[b : b + 1]) for b in range(len(a))]))


def signal(m: Any, x: Tensor) -> Tensor:
    return m.c(m.f(m.a(x)).flatten(1))


@case("Conv1d module", lambda: Written(signal, a=nn.Conv1d(2, 3, 3), f=nn.ReLU(), c=linear(12, 3)), shape=(2, 2, 6))
def _(m: Any, x: Tensor) -> Tensor:
    a = m.a(x).relu()
    return layer(m.a, x, layer(m.c, a.flatten(1), seed(signal(m, x))).reshape(a.shape))


def reused(m: Any, x: Tensor) -> Tensor:
    return m.c(F.relu(m.a(F.relu(m.a(x)))))


@case("module used twice", lambda: Written(reused, a=linear(6, 6), c=linear(6, 3)))
def _(m: Any, x: Tensor) -> Tensor:
    first = m.a(x).relu()
    second = m.a(first).relu()
    return layer(m.a, x, layer(m.a, first, layer(m.c, second, seed(m.c(second)))))


# ------------------------------------------------------------------------------------------------------------ rules


def plain(m: Any, x: Tensor) -> Tensor:
    return m.c(F.relu(m.b(F.relu(m.a(x)))))


def three(bias: bool = True) -> nn.Module:
    return Written(plain, **{name: nn.Linear(6, size, bias) for name, size in (("a", 6), ("b", 6), ("c", 3))})


def without_bias() -> nn.Module:
    """Where inputs are not negative either, captum's rules are the definitions."""
    return three(bias=False)


def tied() -> nn.Module:
    model = without_bias()
    model.b.weight = model.a.weight
    return model


def on_a(make: Callable[[Any], Any]) -> Callable[[nn.Module, Any], None]:
    def rules(model: Any, of: Any) -> None:
        model.a.rule = make(of)

    return rules


def on_both(make: Callable[[Any], Any]) -> Callable[[nn.Module, Any], None]:
    def rules(model: Any, of: Any) -> None:
        model.a.rule, model.b.rule = make(of), make(of)

    return rules


def three_layers(first: ref.HandDown, second: ref.HandDown) -> Expected:
    def expected(m: Any, x: Tensor) -> Tensor:
        a = m.a(x).relu()
        b = m.b(a).relu()
        return first(m.a, x, second(m.b, a, layer(m.c, b, seed(m.c(b)))))

    return expected


gamma = ref.weighted(partial(ref.gamma, gamma=0.25))
z_plus = ref.weighted(ref.z_plus)
case("GammaRule, inputs of both signs", three, rules=on_a(lambda of: of.GammaRule()))(three_layers(gamma, layer))
case("GammaRule, positive biases", three, rules=on_a(lambda of: of.GammaRule()), nonnegative=True)(
    three_layers(gamma, layer)
)
case("GammaRule, tied weights", tied, rules=on_both(lambda of: of.GammaRule()), nonnegative=True)(
    three_layers(gamma, gamma)
)
case(
    "GammaRule set by hand, second call",
    without_bias,
    rules=on_a(lambda of: of.GammaRule()),
    nonnegative=True,
    calls=2,
)(three_layers(gamma, layer))
case("Alpha1_Beta0_Rule, inputs of both signs", three, rules=on_a(lambda of: of.Alpha1_Beta0_Rule()))(
    three_layers(z_plus, layer)
)
case("Alpha1_Beta0_Rule, negative biases", three, rules=on_both(lambda of: of.Alpha1_Beta0_Rule()), nonnegative=True)(
    three_layers(z_plus, z_plus)
)


def normalised(m: Any, x: Tensor) -> Tensor:
    return m.c(F.relu(m.n(m.a(x))).flatten(1))


@case(
    "GammaRule before a BatchNorm, which is merged",
    lambda: settle(Written(normalised, a=conv(2, 3), n=nn.BatchNorm2d(3), c=linear(48, 3))),
    shape=(2, 2, 4, 4),
    rules=on_a(lambda of: of.GammaRule()),
    nonnegative=True,
)
def _(m: Any, x: Tensor) -> Tensor:
    y = m.n(m.a(x)).relu()
    return gamma(lambda t: m.n(m.a(t)), x, layer(m.c, y.flatten(1), seed(normalised(m, x))).reshape(y.shape))


# ----------------------------------------------------------------------------------------------------------- checks


def built(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(sum(map(ord, name)))
    chosen = CASES[name]
    model = chosen.make().double().eval()
    x = torch.randn(chosen.shape, dtype=torch.float64)
    return model, x.abs() if chosen.nonnegative else x


def run(library: Any, rules: Any, name: str) -> Tensor:
    model, x = built(name)
    CASES[name].rules(model, rules)
    lrp = library.LRP(model)
    for _ in range(CASES[name].calls):
        result = lrp.attribute(x, target=TARGET)
    return result.detach()


@pytest.mark.parametrize("name", CASES)
def test_ours_is_the_definition(name: str) -> None:
    model, x = built(name)
    expected = CASES[name].expected(model, x).detach()
    torch.testing.assert_close(run(ours, ours, name), expected, rtol=1e-6, atol=1e-8)


def outcome(name: str) -> str:
    """What captum does instead: an error, or how far off it is, in units of the largest relevance."""
    attr, rules = (importlib.import_module(path) for path in ("captum.attr", "captum.attr._utils.lrp_rules"))
    model, x = built(name)
    expected = CASES[name].expected(model, x).detach()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = run(attr, rules, name)
    except Exception as error:
        return f"`{type(error).__name__}`"
    if not bool(found.isfinite().all()):
        return "NaN"
    off = float((found - expected).abs().max() / expected.abs().max())
    return "equal" if off < 1e-6 else f"off by {off:.2g}"


def table() -> str:
    rows = ["| network or rule | captum 0.9.0, in units of the largest relevance | relprop |", "|---|---|---|"]
    return "\n".join([*rows, *(f"| {name} | {outcome(name)} | the definition |" for name in CASES)]) + "\n"


@pytest.mark.skipif(importlib.util.find_spec("captum") is None, reason="captum is not installed")
def test_the_table_of_the_page_is_what_captum_does() -> None:
    _, rest = PAGE.read_text(encoding="utf-8").split(MARKS[0])
    written, _ = rest.split(MARKS[1])
    rows = [row for row in written.splitlines() if row]
    made = table().splitlines()
    assert "equal" not in "".join(made), "captum agrees where the page says that it does not"
    # The figures may differ in the last digit from one torch to the next; what is listed and how it ends may not.
    assert [kind(row) for row in rows] == [kind(row) for row in made]


def kind(row: str) -> tuple[str, str]:
    name, captum = (cell.strip() for cell in row.split("|")[1:3])
    return name, captum.split(" by ")[0]


if __name__ == "__main__":
    start, rest = PAGE.read_text(encoding="utf-8").split(MARKS[0])
    PAGE.write_text(start + MARKS[0] + table() + MARKS[1] + rest.split(MARKS[1])[1], encoding="utf-8")
