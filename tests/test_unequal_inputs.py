"""Inputs whose first axes are not samples: nodes and edges, pictures and a text, states. One number of the output is explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from helpers import D
from relprop.errors import InputError

SOURCE, AIM = torch.tensor([[0, 1, 2, 3, 0, 2], [1, 2, 3, 0, 2, 1]])
W = torch.randn(3, 2, dtype=D)


def graph(nodes: Tensor, weights: Tensor) -> Tensor:
    h = nodes @ W
    return h + torch.zeros(4, 2, dtype=D).index_add(0, AIM, h[SOURCE] * weights[:, None])


class Question(nn.Module):
    """Two pictures and a text, one row of answers."""

    def __init__(self) -> None:
        super().__init__()
        self.see, self.read, self.answer = nn.Conv2d(3, 4, 3), nn.Embedding(10, 4), nn.Linear(8, 5)

    def forward(self, pictures: Tensor, ids: Tensor) -> Tensor:
        seen = self.see(pictures).relu().mean((0, 2, 3))[None]
        return self.answer(torch.cat([seen, self.read(ids).mean(1)], 1))


def test_nodes_and_edges() -> None:
    """Each message is a product: half to the node, half to the edge's weight."""
    nodes, weights = torch.randn(4, 3, dtype=D), torch.rand(6, dtype=D)
    found = relprop.attribute(graph, (nodes, weights), lambda y: y[1, 0], composite="zero", ledger=True)
    parts = nodes * W[:, 0]
    messages = parts[SOURCE] * weights[:, None] * (AIM == 1)[:, None]
    expected = torch.zeros(4, 3, dtype=D).index_add(0, SOURCE, messages / 2)
    expected[1] += parts[1]
    torch.testing.assert_close(found.values[0], expected)
    torch.testing.assert_close(found.values[1], messages.sum(1) / 2)
    torch.testing.assert_close(found.score, graph(nodes, weights)[1, :1])
    torch.testing.assert_close(found.residual, torch.zeros(1, dtype=D))


@pytest.mark.parametrize(
    "target",
    [3, [2], None, lambda y: y[0, 3], relprop.Contrast(1, 2)],
    ids=["3", "[2]", "None", "function", "contrast"],
)
def test_pictures_and_a_text_have_books_that_agree(target: Any) -> None:
    model = Question().to(D).eval()
    inputs = torch.randn(2, 3, 6, 6, dtype=D), torch.randint(10, (1, 4))
    found = relprop.attribute(model, inputs, target, composite="epsilon", ledger=True)
    assert len(found) == 1 and len(found[0]) == 1
    assert [tuple(v.shape) for v in found[0].values] == [(2, 3, 6, 6), (1, 4)]
    torch.testing.assert_close(sum(v.sum() for v in found.values) + found.residual[0], found.score[0])
    torch.testing.assert_close(sum(found.ledger.values(), torch.zeros(1, dtype=D)), found.residual)


def test_states_of_a_recurrent_network() -> None:
    lstm = nn.LSTM(3, 4, 2, batch_first=True).to(D).eval()
    inputs = torch.randn(1, 5, 3, dtype=D), torch.randn(2, 1, 4, dtype=D), torch.randn(2, 1, 4, dtype=D)
    found = relprop.attribute(lambda x, h, c: lstm(x, (h, c))[0][:, -1], inputs, 2)
    assert [v.shape for v in found.values] == [v.shape for v in inputs]
    torch.testing.assert_close(sum(v.sum() for v in found.values) + found.residual[0], found.score[0])


def test_such_a_result_is_saved_and_loaded(tmp_path: Path) -> None:
    found = relprop.attribute(graph, (torch.randn(4, 3, dtype=D), torch.rand(6, dtype=D)), lambda y: y[1, 0])
    found.save(f"{tmp_path}/result/")
    again = relprop.load(f"{tmp_path}/result/")
    for a, b in zip(again.values, found.values, strict=True):
        assert torch.equal(a, b)


def test_a_score_per_sample_needs_samples() -> None:
    """The advice is what the first tests do."""
    inputs = torch.randn(4, 3, dtype=D), torch.rand(6, dtype=D)
    with pytest.raises(InputError, match=r"\[4, 6\].*explain one number: target=lambda output: output\[i, j\]"):
        relprop.attribute(graph, inputs, 0)
    relprop.attribute(graph, inputs, target=lambda output: output[1, 0])


def test_batches_need_samples() -> None:
    model, inputs = Question().eval(), (torch.randn(2, 3, 6, 6), torch.randint(10, (1, 4)))
    with pytest.raises(InputError, match=r"\[1, 2\]. Leave batch_size out"):
        relprop.attribute(model, inputs, 0, batch_size=1)
    relprop.attribute(model, inputs, 0)
