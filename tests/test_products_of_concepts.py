"""What conditions, indexes and graphs cost, in products of matrices and convolutions: figures that no machine changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import units
from test_patching import Words
from test_weights import flops


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(216, 5), nn.ReLU(), nn.Linear(5, 3),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("composite", ["zero", "epsilon", "epsilon_plus", "gamma"])
def test_a_further_condition_costs_the_pass_below_its_layer(composite: str) -> None:
    net, x = network(), torch.rand(2, 3, 12, 12)
    one, five = (
        flops(
            lambda n=n: relprop.attribute_each(
                net, x, 1, composite=composite, through=[units("2")[i] for i in range(n)]
            )
        )
        for n in (1, 5)
    )
    below = net[:3]
    backward = flops(lambda: relprop.attribute(below, x, lambda y: y.sum((1, 2, 3)), composite=composite)) - flops(
        lambda: below(x)
    )
    assert (five - one) / 4 <= 1.05 * backward


@pytest.mark.parametrize("composite", ["epsilon", "gamma"])
def test_an_index_costs_no_more_than_the_explanations(composite: str) -> None:
    net = network()
    data = [(torch.rand(3, 12, 12), n % 3) for n in range(8)]
    x, labels = torch.stack([x for x, _ in data]), [label for _, label in data]
    explained = flops(lambda: relprop.attribute(net, x, labels, composite=composite))
    made = flops(lambda: relprop.index(net, data, layers=["0", "2", "4"], composite=composite, batch_size=4))
    assert made <= 1.15 * explained
    assert flops(lambda: relprop.index(net, data, layers=["4"], composite=composite)) < 0.9 * explained


def test_edges_of_a_node_cost_less_than_half_a_gradient() -> None:
    net, ids = Words(), torch.tensor([[1, 2, 3, 4]])

    def gradient() -> None:
        rows: Tensor = net.table(ids).detach().requires_grad_()
        h = rows + net.attention(rows, rows, rows, need_weights=False)[0]
        torch.autograd.grad(net.out(h + net.mlp(h))[:, -1, 1].sum(), rows)

    for parameter in net.parameters():
        parameter.requires_grad_(False)
    nodes: list[Any] = ["attention.heads", units("mlp.2", at="input").each(0, 1)]
    few, many = (
        flops(lambda keep=keep: relprop.graph(net, ids, 1, nodes=nodes, keep=keep, composite="cp_lrp"))
        for keep in (4, 20)
    )
    assert (many - few) / 16 <= 0.5 * flops(gradient)
    one = flops(lambda: relprop.attribute(net, ids, 1, composite="cp_lrp"))
    assert few <= one + 4 * 0.5 * flops(gradient)
