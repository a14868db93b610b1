"""Relevance of parameters, for every rule: the part of a layer's relevance that went through each weight."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import reference_concepts as concepts
import relprop
from relprop import units
from relprop.errors import InputError, UnsupportedOperationError
from test_conditions import convolutional, mlp, pictures, vectors

close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-12)
RULES = [
    relprop.Zero(), relprop.Epsilon(0.1), relprop.Epsilon(0.1, relative=True), relprop.Gamma(0.5), relprop.ZPlus(),
    relprop.AlphaBeta(2.0, 1.0), relprop.WSquare(), relprop.Flat(), relprop.ZBox(-3.0, 3.0), relprop.ZBox(),
    relprop.ZeroBias(relprop.ZPlus()),
    relprop.Native(),
]  # fmt: skip


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_walks_through_a_weight(epsilon: float) -> None:
    """`R(w_ij)` is the sum over all walks from i to j."""
    net, x = mlp(), vectors()
    walks = concepts.walks([net[0], net[2], net[4]], x, 1, epsilon).detach()
    rules = "zero" if not epsilon else relprop.composites.epsilon(epsilon)
    R = relprop.attribute(net, x, 1, composite=rules, weights=True)
    assert set(R.weights) == {"0.weight", "2.weight", "4.weight"}
    close(R.weights["0.weight"], walks.sum((0, 3)).T)
    h, g = net[0](x).relu(), net[2](net[0](x).relu()).relu()
    ends = concepts.share(net[4], g, epsilon)[:, :, 1] * net(x)[:, 1:2]
    through = concepts.share(net[2], h, epsilon) * ends[:, None, :]
    close(R.weights["2.weight"], through.sum(0).T.detach())
    last = torch.zeros(3, 6).double()
    last[1] = ends.sum(0).detach()
    close(R.weights["4.weight"], last)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_the_relevance_of_an_input_is_that_of_its_weights(rule: Any) -> None:
    net, x = mlp(), vectors()
    R = relprop.attribute(
        net, x, 1, composite=relprop.Composite({relprop.first: rule, "linear": relprop.Epsilon()}), weights=True
    )
    plain = relprop.attribute(
        net, x, 1, composite=relprop.Composite({relprop.first: rule, "linear": relprop.Epsilon()})
    )
    close(R.values, plain.values)
    close(R.weights["0.weight"].sum(0), R.values.sum(0))


@pytest.mark.parametrize(
    "composite", ["gamma_flat", "gamma_box", "epsilon_plus_flat", "epsilon_alpha2_beta1", "zero", "deep_taylor"]
)
def test_convolutions_with_batch_norm(composite: str) -> None:
    net, x = convolutional(), pictures()
    R = relprop.attribute(net, x, 1, composite=composite, weights=True, layers=["2", "5", "8", "9"])
    close(R.values, relprop.attribute(net, x, 1, composite=composite).values)
    close(R.weights["0.weight"].sum((0, 2, 3)), R.values.sum((0, 2, 3)))
    close(R.weights["3.weight"].sum((0, 2, 3)), R.layers["2"].sum((0, 2, 3)))
    close(R.weights["8.weight"].sum(0).reshape(4, 4).sum(1), R.layers["5"].sum((0, 2, 3)))
    close(R.weights["10.weight"].sum(0), R.layers["9"].sum(0))
    each = relprop.attribute_each(net, x, [0, 1], composite=composite, weights=True)
    close(each[1].weights["3.weight"], R.weights["3.weight"])
    parts = relprop.attribute(net, x, 1, composite=composite, weights=True, batch_size=2)
    for name, weight in R.weights.items():
        close(parts.weights[name], weight)


def test_tied_and_transposed_weights() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)
            self.b.weight = self.a.weight
            self.turned = nn.Parameter(torch.randn(5, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).relu()).relu() @ self.turned

    net, x = Tied().double(), torch.randn(3, 5, dtype=torch.float64)
    R = relprop.attribute(net, x, 1, composite="zero", weights=True, layers=["a", "b"])
    assert torch.equal(R.weights["a.weight"], R.weights["b.weight"])
    h = net.a(x).relu()
    share = concepts.share(net.a, x, 0.0) * R.layers["a"][:, None, :]
    again = concepts.share(net.b, h, 0.0) * R.layers["b"][:, None, :]
    close(R.weights["a.weight"], (share + again).sum(0).T.detach())
    close(R.weights["turned"].sum(1), R.layers["b"].sum(0))
    assert R.weights["turned"][:, 0].abs().max() == 0


def test_results_keep_weights(tmp_path: Path) -> None:
    R = relprop.attribute(mlp(), vectors(), 1, weights=True)
    R.save(tmp_path / "run")
    again = relprop.load(tmp_path / "run")
    assert all(torch.equal(again.weights[name], weight) for name, weight in R.weights.items())
    assert R[1].weights == {} and relprop.attribute(mlp(), vectors(), 1).weights == {}


def test_refusals() -> None:
    net, x = mlp(), vectors()
    for given in ({"through": units("0")}, {"against": x}):
        with pytest.raises(InputError, match="exclude each other"):
            relprop.attribute(net, x, 1, weights=True, **given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="weights must be True or False"):
        relprop.attribute(net, x, 1, weights=1)  # type: ignore[arg-type]
    scaled = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)).double()
    with pytest.raises(UnsupportedOperationError, match="its weight is computed from parameters"):
        relprop.attribute(scaled, x, 1, weights=True)

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(4, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.rnn(x)[0][:, -1]
            return y

    with pytest.raises(UnsupportedOperationError, match="recurrent layers"):
        relprop.attribute(Recurrent().double(), vectors()[:, None], 1, weights=True)


class Products(TorchDispatchMode):
    """Counts the multiplications of matrices, convolutions and attention."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.total += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def flops(call: Any) -> int:
    with Products() as counted:
        call()
    return counted.total


@pytest.mark.parametrize("composite", ["zero", "epsilon", "gamma", "epsilon_plus", "gamma_flat"])
def test_a_weight_costs_one_gradient_of_its_layer(composite: str) -> None:
    """Nothing runs again: in all, the products of the explanation and those of the weights' own gradient."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5), nn.ReLU(), nn.Linear(5, 3)
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 8, 8)
    forward = flops(lambda: net(x))  # as many as the gradient of the weights
    plain, weighed = (
        flops(lambda weights=weights: relprop.attribute(net, x, 1, composite=composite, weights=weights))
        for weights in (False, True)
    )
    halves = flops(lambda: net[0](x)) if composite in ("gamma", "epsilon_plus") else 0  # inputs of both signs
    assert weighed <= plain + (forward + halves) * 1.001
