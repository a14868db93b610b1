"""A composite says which rule goes where; every named one equals a layer-by-layer propagation of what it
says.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reference
import relprop
from helpers import close
from networks import convolutional
from relprop import Block, Composite, Epsilon, Flat, Gamma, Zero, ZPlus, composites, first, last, path, where

LOW, HIGH = -3.0, 3.0
epsilon = partial(reference.epsilon, epsilon=1e-6)
box = partial(reference.z_box, low=LOW, high=HIGH)
without_bias = reference.zero_bias(reference.z_plus)

# The rule of the first convolution, of the second, and of the linear layers.
NAMED: dict[str, tuple[Composite, reference.Rule, reference.Rule, reference.Rule]] = {
    "zero": (composites.zero(), reference.zero, reference.zero, reference.zero),
    "epsilon": (composites.epsilon(), epsilon, epsilon, epsilon),
    "epsilon 0.1": (composites.epsilon(0.1), *[partial(reference.epsilon, epsilon=0.1)] * 3),
    "epsilon_plus": (composites.epsilon_plus(), reference.z_plus, reference.z_plus, epsilon),
    "epsilon_plus_flat": (composites.epsilon_plus_flat(), reference.flat, reference.z_plus, epsilon),
    "epsilon_gamma_box": (
        composites.epsilon_gamma_box(LOW, HIGH),
        box,
        partial(reference.gamma, gamma=0.25),
        epsilon,
    ),
    "epsilon_gamma_box, numbers of its own": (
        composites.epsilon_gamma_box(LOW, HIGH, epsilon=0.1, gamma=0.5),
        box,
        partial(reference.gamma, gamma=0.5),
        partial(reference.epsilon, epsilon=0.1),
    ),
    "epsilon_alpha2_beta1": (
        composites.epsilon_alpha2_beta1(),
        reference.alpha_beta,
        reference.alpha_beta,
        epsilon,
    ),
    "epsilon_alpha2_beta1_flat": (
        composites.epsilon_alpha2_beta1_flat(),
        reference.flat,
        reference.alpha_beta,
        epsilon,
    ),
    "deep_taylor": (composites.deep_taylor(), reference.w_square, *[reference.z_plus] * 2),
    "deep_taylor, bounds": (composites.deep_taylor(LOW, HIGH), box, *[reference.z_plus] * 2),
    "excitation_backprop": (composites.excitation_backprop(), *[without_bias] * 3),
    "gamma": (composites.gamma(), *[partial(reference.gamma, gamma=0.5)] * 2, epsilon),
    "gamma_flat": (composites.gamma_flat(), reference.flat, partial(reference.gamma, gamma=0.25), epsilon),
    "gamma_box": (
        composites.gamma_box(),
        partial(reference.z_box_of_the_sample, channels=3),
        partial(reference.gamma, gamma=0.15),
        epsilon,
    ),
    "gamma_flat 0.5": (
        composites.gamma_flat(0.5),
        reference.flat,
        partial(reference.gamma, gamma=0.5),
        epsilon,
    ),
}


def network() -> nn.Sequential:
    """With biases that are not positive, as deep Taylor decomposition asks for."""
    model = convolutional().double()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.bias.data.abs_().neg_()
    return model


def layer_by_layer(model: Sequence[nn.Module], x: Tensor, target: int, first: Any, conv: Any, linear: Any) -> Tensor:
    steps: list[tuple[nn.Module, reference.HandDown]] = []
    for n, module in enumerate(model):
        match module:
            case nn.Conv2d():
                steps.append((module, reference.weighted(conv if n else first)))
            case nn.Linear():
                steps.append((module, reference.weighted(linear)))
            case nn.ReLU():
                steps.append((module, reference.activation))
            case nn.MaxPool2d():
                steps.append((module, reference.winner_takes_all))
            case nn.AvgPool2d():
                steps.append((module, reference.average_pool))
            case nn.Flatten():
                steps.append((module, reference.moved))
    return reference.propagate(steps, x, lambda y: y * F.one_hot(torch.tensor(target), y.shape[1]))


@pytest.mark.parametrize("name", NAMED)
def test_named_composites(name: str) -> None:
    composite, first, conv, linear = NAMED[name]
    model, x = network(), torch.randn(2, 3, 8, 8).double().clamp(LOW, HIGH)
    relevance = relprop.attribute(model, x, 2, composite=composite)
    close(relevance.values, layer_by_layer(model, x, 2, first, conv, linear))


def test_auto_on_a_convolutional_network_is_gamma_box() -> None:
    model, x = network(), torch.randn(2, 3, 8, 8).double()
    auto = relprop.attribute(model, x, 2)
    close(auto.values, relprop.attribute(model, x, 2, composite=composites.gamma_box()).values)
    assert auto.composite.name == "gamma_box" and auto.composite == composites.by_name("gamma_box")
    assert relprop.Gamma(0.15) in [rule for _, rule in auto.composite.entries]
    of_the_papers = composites.epsilon_gamma_box(LOW, HIGH)
    assert relprop.Gamma(0.25) in [rule for _, rule in of_the_papers.entries]


def test_auto_on_patches_does_not_depend_on_how_they_are_cut() -> None:
    """A convolution that moves by its own size, or a linear layer on patches that a reshape cut out."""
    conv, head = nn.Conv2d(2, 5, 3, 3).double(), nn.Linear(20, 3).double()

    def by_linear(x: Tensor) -> Tensor:
        cut = x.unfold(2, 3, 3).unfold(3, 3, 3).permute(0, 2, 3, 1, 4, 5).reshape(len(x), 4, 18)
        return head(F.linear(cut, conv.weight.reshape(5, 18), conv.bias).transpose(1, 2).flatten(1).relu())

    def by_einsum(x: Tensor) -> Tensor:
        cut = x.unfold(2, 3, 3).unfold(3, 3, 3)
        return head((torch.einsum("ncijkl,ockl->noij", cut, conv.weight) + conv.bias[:, None, None]).flatten(1).relu())

    x = torch.randn(2, 2, 6, 6).double()
    one = relprop.attribute(nn.Sequential(conv, nn.Flatten(), nn.ReLU(), head), x, 1)
    others = [relprop.attribute(model, x, 1) for model in (by_linear, by_einsum)]
    assert {R.composite for R in (one, *others)} == {composites.gamma_flat()}
    close(others[0].values, others[1].values)


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("steps", [1, 2])
def test_auto_knows_attention_whatever_its_sizes(steps: int, width: int) -> None:
    w = torch.randn(4, 2 * width).double()

    def model(x: Tensor) -> Tensor:
        q, k = (x @ w).chunk(2, -1)
        return ((q @ k.mT).softmax(-1) @ x).flatten(1)

    def chained(x: Tensor) -> Tensor:
        return torch.linalg.multi_dot([x[0].softmax(-1), x[0].mT, x[0].tanh()]).reshape(1, -1)

    x = torch.randn(1, steps, 4).double()
    assert relprop.attribute(model, x, 0).composite == composites.attnlrp()
    assert relprop.attribute(chained, x, 0).composite == composites.attnlrp()


def test_auto_takes_a_bilinear_layer_for_no_attention() -> None:
    w = torch.randn(3, 4, 4).double()
    R = relprop.attribute(lambda x: F.bilinear(x.softmax(-1), x.tanh(), w), torch.randn(2, 4).double(), 0)
    assert R.composite.name == "epsilon"


def test_auto_takes_the_whole_input_for_no_patch() -> None:
    """A layer that sees all of a sample at once, as a linear layer or as a product over several axes."""
    w = torch.randn(3, 2, 4).double()
    x = torch.randn(2, 2, 4).double()
    for model in (
        lambda x: x.unfold(2, 4, 4).transpose(1, 2).flatten(1) @ w.flatten(1).T,
        lambda x: torch.einsum("nclk,ock->no", x.unfold(2, 4, 4), w),
        lambda x: torch.einsum("nclk,ock->nol", x.unfold(2, 4, 4), w).flatten(1),
    ):
        assert relprop.attribute(model, x, 0).composite.name == "epsilon"


MOVED: dict[str, Callable[[Tensor], Tensor]] = {
    "padded": lambda x: F.pad(x, (1, 0)),
    "rolled, then padded": lambda x: F.pad(x.roll(1, 1), (1, 0)),
    "padded with a number": lambda x: F.pad(x.flip(1), (1, 0), value=3.0),
    "a column of zeros": lambda x: torch.cat([torch.zeros_like(x[..., :1]), x.roll(1, 1)], -1),
    "steps padded": lambda x: F.pad(x.roll(1, 1), (0, 1, 2, 1)),
}


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("form", MOVED)
def test_auto_takes_no_padded_steps_for_patches(form: str, samples: int) -> None:
    """Each row is one step: what a padding adds is no part of another."""
    head = nn.Linear(4, 3).double()
    x = torch.randn(samples, 4, 3).double()
    R = relprop.attribute(lambda x: head(MOVED[form](x)).flatten(1), x, 0)
    assert R.composite.name == "epsilon"


def test_auto_takes_padded_patches_for_patches() -> None:
    def model(x: Tensor) -> Tensor:
        cut = F.unfold(F.pad(x, (1, 1, 1, 1)), 2, stride=2).mT
        return F.linear(cut, torch.ones(3, 8).double()).flatten(1)

    assert relprop.attribute(model, torch.randn(2, 2, 6, 6).double(), 0).composite == composites.gamma_flat()


def test_auto_on_series_has_no_flat_layer() -> None:
    model = nn.Sequential(nn.Conv1d(3, 4, 5), nn.ReLU(), nn.Conv1d(4, 4, 3), nn.Flatten(), nn.Linear(8, 2)).eval()
    x = torch.randn(2, 3, 8)
    auto = relprop.attribute(model, x, 1)
    assert auto.composite.name == "gamma"
    torch.testing.assert_close(auto.values, relprop.attribute(model, x, 1, composite=composites.gamma()).values)


# How each of the gradient methods takes a gradient g through a relu with input x.
GRADIENTS: dict[str, tuple[Composite, Callable[[Tensor, Tensor], Tensor]]] = {
    "gradient": (composites.gradient(), lambda x, g: g * (x > 0)),
    "guided_backprop": (composites.guided_backprop(), lambda x, g: g.clamp(min=0) * (x > 0)),
    "deconvnet": (composites.deconvnet(), lambda x, g: g.clamp(min=0)),
    "beta_smooth": (composites.beta_smooth(), lambda x, g: g * torch.sigmoid(10 * x)),
    "beta_smooth 2": (composites.beta_smooth(2.0), lambda x, g: g * torch.sigmoid(2 * x)),
}


class ReluWith(torch.autograd.Function):
    """A relu with a backward of choice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, backward: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.chosen = backward
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return ctx.chosen(*ctx.saved_tensors, g), None


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_methods(name: str) -> None:
    composite, through_relu = GRADIENTS[name]
    model, x = network(), torch.randn(2, 3, 8, 8).double()
    leaf = h = x.clone().requires_grad_()
    for module in model:
        h = ReluWith.apply(h, through_relu) if isinstance(module, nn.ReLU) else module(h)
    (gradient,) = torch.autograd.grad(h[:, 2].sum(), leaf)
    for multiply, expected in ((False, gradient), (True, gradient * x)):
        relevance = relprop.attribute(model, x, 2, composite=composite, multiply_by_inputs=multiply)
        close(relevance.values, expected)


# ------------------------------------------------------------------------------------------- which rule where


def rule_of_each_layer(model: nn.Module, x: Tensor, composite: Composite) -> Tensor:
    return relprop.attribute(model, x, lambda y: y.flatten(1).sum(1), composite=composite).values


class Unordered(nn.Module):
    """Layers that run in another order than they were registered in."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.middle, self.first = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.middle(torch.relu(self.first(x)))))


PLACES: dict[str, tuple[Composite, Composite]] = {
    "first and last are of the run": (
        Composite({first: Flat(), last: Gamma(), "linear": ZPlus()}),
        Composite({path("first"): Flat(), path("last"): Gamma(), path("middle"): ZPlus()}),
    ),
    "the first match wins": (
        Composite({"linear": ZPlus(), path("first"): Flat(), first: Block()}),
        Composite({"linear": ZPlus()}),
    ),
    "the left of | is asked first": (
        Composite({path("middle"): Gamma()}) | Composite({"linear": ZPlus(), path("middle"): Block()}),
        Composite({path("middle"): Gamma(), "linear": ZPlus()}),
    ),
    "a glob": (
        Composite({path("*i*"): Gamma(), "linear": Flat()}),
        Composite({path("first"): Gamma(), path("middle"): Gamma(), path("last"): Flat()}),
    ),
    "a module type": (Composite({nn.Linear: ZPlus()}), Composite({"linear": ZPlus()})),
    "a base of the module type": (Composite({nn.Module: ZPlus()}), Composite({"linear": ZPlus()})),
    "an operation": (Composite({relprop.operation(F.linear): ZPlus()}), Composite({"linear": ZPlus()})),
    "what no entry names": (
        Composite({path("middle"): Gamma()}),
        Composite({path("middle"): Gamma(), "linear": Zero()}),
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_places(name: str) -> None:
    model, x = Unordered().double(), torch.randn(3, 4).double()
    one, other = PLACES[name]
    close(rule_of_each_layer(model, x, one), rule_of_each_layer(model, x, other))


def test_a_place_makes_a_difference() -> None:
    """The comparisons above would hold too if rules were ignored."""
    model, x = Unordered().double(), torch.randn(3, 4).double()
    maps = [
        rule_of_each_layer(model, x, Composite({path(name): Flat(), "linear": ZPlus()}))
        for name in ("first", "middle", "last")
    ]
    assert not torch.allclose(maps[0], maps[1]) and not torch.allclose(maps[1], maps[2])


def test_where_asks_about_the_operation_at_hand() -> None:
    asked: list[Any] = []

    def predicate(place: Any) -> bool:
        asked.append(place)
        return False

    model, x = Unordered().double(), torch.randn(3, 4).double()
    never = Composite({where(predicate): Block(), "linear": ZPlus()})
    close(rule_of_each_layer(model, x, never), rule_of_each_layer(model, x, Composite({"linear": ZPlus()})))
    assert len(asked) >= 3
    always = Composite({where(lambda place: True): ZPlus()})
    with_type = Composite({"linear": ZPlus()})
    sequential = nn.Linear(4, 2).double()
    close(rule_of_each_layer(sequential, x, always), rule_of_each_layer(sequential, x, with_type))


def test_shared_modules_have_each_of_their_paths() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).double()
    model.append(model[0])
    x = torch.randn(3, 4).double()
    close(
        rule_of_each_layer(model, x, Composite({path("0"): ZPlus()})),
        rule_of_each_layer(model, x, Composite({"linear": ZPlus()})),
    )


# ------------------------------------------------------------------------------------------------- as a value


def example() -> Composite:
    return Composite(
        {first: relprop.ZBox(0.0, 1.0), path("head.*"): Gamma(), nn.Linear: Epsilon(0.1), "conv": ZPlus()},
        name="mine",
    )


FACTORIES = [
    composites.zero,
    composites.epsilon,
    composites.epsilon_plus,
    composites.epsilon_plus_flat,
    partial(composites.epsilon_gamma_box, LOW, HIGH),
    composites.epsilon_alpha2_beta1,
    composites.epsilon_alpha2_beta1_flat,
    composites.deep_taylor,
    composites.gradient,
    composites.guided_backprop,
    composites.deconvnet,
    composites.excitation_backprop,
    composites.beta_smooth,
    composites.gamma,
    composites.gamma_box,
    composites.gamma_flat,
    example,
]


@pytest.mark.parametrize("make", FACTORIES)
def test_equal_when_made_alike(make: Callable[[], Composite]) -> None:
    assert make() == make()
    assert pickle.loads(pickle.dumps(make())) == make()


def test_unequal_when_anything_differs() -> None:
    base = Composite({"conv": Gamma(0.25), "linear": Epsilon()})
    assert base != Composite({"conv": Gamma(0.5), "linear": Epsilon()})
    assert base != Composite({"linear": Epsilon(), "conv": Gamma(0.25)})
    assert base != Composite({"conv": Gamma(0.25)})
    assert base != "epsilon_plus"
    assert composites.epsilon_plus() != composites.epsilon_plus_flat()
    assert relprop.ZBox(torch.zeros(3), torch.ones(3)) == relprop.ZBox(torch.zeros(3), torch.ones(3))
    assert relprop.ZBox(torch.zeros(3), torch.ones(3)) != relprop.ZBox(torch.zeros(3), 2 * torch.ones(3))


def test_prints_as_a_table() -> None:
    table = str(example())
    lines = table.splitlines()
    assert "mine" in table
    for n, (place, rule) in enumerate(
        [("first", "ZBox"), ("head.*", "Gamma"), ("Linear", "Epsilon"), ("conv", "ZPlus")]
    ):
        (line,) = [line for line in lines if rule in line]
        assert place in line
        assert lines.index(line) >= n
    order = [table.index(rule) for rule in ("ZBox", "Gamma", "Epsilon", "ZPlus")]
    assert order == sorted(order)


def test_a_notebook_shows_the_table() -> None:
    said: list[str] = []
    composite = relprop.composites.epsilon_plus()
    composite._repr_pretty_(type("Printer", (), {"text": staticmethod(said.append)}), False)
    assert said == [str(composite)]


def test_names() -> None:
    model, x = network(), torch.randn(2, 3, 8, 8).double()
    for name in ("epsilon_plus", "epsilon_plus_flat", "deep_taylor"):
        named = relprop.attribute(model, x, 2, composite=name)
        made = relprop.attribute(model, x, 2, composite=getattr(composites, name)())
        assert torch.equal(named.values, made.values)
        assert named.composite == made.composite and named.composite.name == name


@pytest.mark.parametrize("rule", [Zero(), Epsilon(0.1), Gamma(0.5), relprop.ZeroBias(ZPlus())], ids=repr)
def test_rules_are_values(rule: relprop.rules.Rule) -> None:
    assert pickle.loads(pickle.dumps(rule)) == rule
    assert eval(repr(rule), vars(relprop.rules)) == rule
    with pytest.raises(AttributeError):
        rule.epsilon = 1.0  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("spelling", [torch.relu, F.relu, Tensor.relu, Tensor.relu_], ids=["torch", "F", "method", "_"])
def test_an_operation_is_named_in_any_spelling(spelling: Callable[..., Any]) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 2)).eval()
    blocked = relprop.attribute(
        model, torch.randn(2, 3), 0, composite=Composite({relprop.operation(spelling): relprop.Block()})
    )
    assert not blocked.values.any()


def test_rules_reach_operations_that_only_move_values() -> None:
    class Skip(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            moved = x.flip(1)
            moved += x
            return moved.flatten(1)

    x = torch.randn(2, 3)
    flip = relprop.attribute(Skip(), x, 0, composite=Composite({relprop.operation(torch.flip): relprop.Block()}))
    assert torch.equal(flip.values, x * torch.tensor([1.0, 0, 0]))
    total = relprop.attribute(Skip(), x, 0, composite=Composite({"sum": relprop.Block()}))
    assert not total.values.any()


def test_a_product_of_two_live_operands_is_no_layer() -> None:
    """`first` and `last` count layers with weights."""
    torch.manual_seed(0)
    a, b = nn.Linear(3, 4), nn.Linear(3, 4)
    relevance = relprop.attribute(
        lambda x: (a(x) @ b(x).T).sum(1), torch.randn(2, 3), composite=Composite({relprop.last: Epsilon(1.0)})
    )
    acted = [place.index for place, rule in relevance.rules if rule == Epsilon(1.0)]
    assert acted == [1]


def test_the_table_is_in_the_order_of_execution() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).eval()
    for composite in ("auto", "epsilon"):
        relevance = relprop.attribute(model, torch.randn(2, 3), 0, composite=composite)
        assert [place.paths[0] for place, _ in relevance.rules][:3] == ["0", "1", "2"]
        assert relevance.table().splitlines()[1].startswith("tanh (activation) in module '1'")
