"""What saves memory and time changes no map: batches in parts, outputs read off a relu, caps as exceptions."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reference
import relprop
from helpers import close
from networks import settle
from relprop.operations import weighted

RULES: dict[str, tuple[relprop.WeightedRule, reference.Rule]] = {
    "zero": (relprop.Zero(), reference.zero),
    "epsilon": (relprop.Epsilon(0.2), partial(reference.epsilon, epsilon=0.2)),
    "epsilon relative": (relprop.Epsilon(0.2, True), partial(reference.epsilon, epsilon=0.2, relative=True)),
    "gamma": (relprop.Gamma(0.5), partial(reference.gamma, gamma=0.5)),
    "alpha 2 beta 1": (relprop.AlphaBeta(), reference.alpha_beta),
    "z plus": (relprop.ZPlus(), reference.z_plus),
    "z box": (relprop.ZBox(-3, 3), partial(reference.z_box, low=-3.0, high=3.0)),
    "z box of the sample": (relprop.ZBox(), partial(reference.z_box_of_the_sample, channels=1)),
    "flat": (relprop.Flat(), reference.flat),
    "zero bias": (relprop.ZeroBias(relprop.Gamma()), reference.zero_bias(reference.gamma)),
}


def network(activation: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), activation, nn.Conv2d(4, 3, 3), activation, nn.Flatten()]
    return settle(nn.Sequential(*layers, nn.Linear(12, 3))).double()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("part", [1, 60, 150])
def test_parts_of_a_batch(rule: str, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network(nn.ReLU(inplace=True)), torch.randn(5, 2, 6, 6).double()
    composite = relprop.Composite({"conv": RULES[rule][0]})
    whole = relprop.attribute(model, x, [0, 1, 2, 0, 1], composite=composite, layers="3")
    monkeypatch.setattr(weighted, "PART", part)
    parts = relprop.attribute(model, x, [0, 1, 2, 0, 1], composite=composite, layers="3")
    close(parts.values, whole.values)
    close(parts.layers["3"], whole.layers["3"])


def test_a_bound_for_each_sample_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network(nn.ReLU()), torch.randn(3, 2, 6, 6).double()
    low, high = x - torch.rand(3, 1, 1, 1), x + torch.rand(3, 1, 1, 1)
    composite = relprop.Composite({relprop.first: relprop.ZBox(low, high)})
    whole = relprop.attribute(model, x, 0, composite=composite)
    monkeypatch.setattr(weighted, "PART", 1)
    close(relprop.attribute(model, x, 0, composite=composite).values, whole.values)


CAPS = {
    "relu6": lambda h: F.relu6(h),
    "relu6 in place": lambda h: F.relu6(h, inplace=True),
    "module": nn.ReLU6(inplace=True),
    "hardtanh": lambda h: F.hardtanh(h, 0.0, 6.0),
    "hardtanh in place": lambda h: F.hardtanh_(h, 0.0, 6.0),
    "clamp": lambda h: h.clamp(0, 6),
    "clamp by name": lambda h: torch.clamp(h, max=6, min=0),
    "clamp in place": lambda h: h.clamp_(0, 6),
}


class Capped(nn.Module):
    def __init__(self, cap: object, scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.cap, self.scale = nn.Linear(4, 40), nn.Linear(40, 2), cap, scale

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x * self.scale)
        return self.last(self.cap(h))  # type: ignore[operator]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("scale", "least", "most"),
    [(0.1, 0, 0), (7.0, 0.02, 0.12), (60.0, 0.2, 1)],
    ids=["none cut", "a few cut", "many cut"],
)
@pytest.mark.parametrize("cap", CAPS)
def test_caps(cap: str, scale: float, least: float, most: float, rule: str) -> None:
    model, x = Capped(CAPS[cap], scale).double(), torch.randn(3, 4).double()
    assert least <= float((model.first(x * scale) > 6).double().mean()) <= most  # few are exceptions, many are not
    own, definition = RULES[rule]
    values = relprop.attribute(model, x, 1, composite=relprop.Composite({"linear": own})).values
    steps = [
        (lambda x: x * scale, reference.moved),
        (model.first, reference.weighted(definition)),
        (F.relu6, reference.activation),
        (model.last, reference.weighted(definition)),
    ]
    seed = torch.tensor([0.0, 1.0]).double()
    close(values, reference.propagate(steps, x, lambda y: y * seed))


def test_what_is_read_off_a_relu_is_checked() -> None:
    """A layer whose output others read besides the relu: the relu's output is not a stand-in for it."""
    torch.manual_seed(0)
    first, last = nn.Linear(4, 6).double(), nn.Linear(6, 2).double()

    def model(x: Tensor) -> Tensor:
        h = first(x)
        return last(h.relu() - 0.3 * h)

    x = torch.randn(3, 4).double()
    composite = relprop.Composite({"linear": relprop.Gamma(0.5)})
    gamma = reference.weighted(partial(reference.gamma, gamma=0.5))
    steps = [(first, gamma), (lambda h: h.relu() - 0.3 * h, reference.activation), (last, gamma)]
    seed = torch.tensor([1.0, 0.0]).double()
    close(relprop.attribute(model, x, 0, composite=composite).values, reference.propagate(steps, x, lambda y: y * seed))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "merged with a norm"])
def test_a_dense_layer_some_outputs_at_a_time(rule: str, norm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    middle: list[nn.Module] = [nn.BatchNorm1d(30)] if norm else []
    model = settle(nn.Sequential(nn.Linear(4, 50), nn.ReLU(), nn.Linear(50, 30), *middle, nn.ReLU(), nn.Linear(30, 2)))
    model, x = model.double(), torch.randn(2, 4).double()
    composite = relprop.Composite({"linear": RULES[rule][0]})
    whole = relprop.attribute(model, x, 1, composite=composite)
    monkeypatch.setattr(weighted, "PART", 160)
    close(relprop.attribute(model, x, 1, composite=composite).values, whole.values)
