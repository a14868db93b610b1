"""States inside recurrent layers: the same numbers as in a network that writes its steps out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import units
from relprop.errors import InputError, UnsupportedOperationError

KINDS = {nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell, nn.RNN: nn.RNNCell}
close = torch.testing.assert_close


class Reader(nn.Module):
    def __init__(self, kind: Any, **options: Any) -> None:
        super().__init__()
        self.rnn = kind(3, 5, batch_first=True, **options)
        self.head = nn.Linear(10 if options.get("bidirectional") else 5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0].sum(1))


class Written(nn.Module):
    """The same, with a cell that is called at each step."""

    def __init__(self, model: Reader, kind: Any) -> None:
        super().__init__()
        self.cell, self.head = KINDS[kind](3, 5), model.head
        for name, parameter in model.rnn.named_parameters():
            getattr(self.cell, name.removesuffix("_l0")).data.copy_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = None, []
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return self.head(torch.stack(outputs, 1).sum(1))


@pytest.fixture(params=list(KINDS), ids=lambda kind: kind.__name__)
def pair(request: Any) -> Any:
    torch.manual_seed(0)
    model = Reader(request.param).double().eval()
    return model, Written(model, request.param).double().eval(), torch.randn(2, 6, 3, dtype=torch.float64)


@pytest.mark.parametrize("composite", ["epsilon", "gamma"])
def test_steps_are_those_written_out(pair: Any, composite: str) -> None:
    model, written, x = pair
    lstm = isinstance(model.rnn, nn.LSTM)
    for state in ("steps", "cells")[: 1 + lstm]:
        for t in (0, 3, -1) if state == "steps" else (0, 3):  # nothing reads the last cell that is written out
            some = []
            for index in (2, [0, 2], slice(None)):
                one: Any = units("cell", run=t)[index]
                # an LSTM's cell hands on to its output as well: the two that LSTMCell returns are both made of it
                some.append(one if state == "steps" else one | units("cell", run=t, part=1)[index])
            inside, outside = (
                relprop.attribute_each(net, x, 1, composite=composite, through=[one, ~two, three])
                for net, (one, two, three) in (
                    (model, [units(f"rnn.{state}", run=t)[index] for index in (2, [0, 2], slice(None))]),
                    (written, some),
                )
            )
            for one, other in zip(inside, outside, strict=True):
                close(one.values, other.values, rtol=1e-12, atol=1e-12)
                close(one.residual, other.residual, rtol=1e-12, atol=1e-12)
        R = relprop.attribute(model, x, 1, composite=composite, layers=[f"rnn.{state}"], ledger=True)
        found = relprop.attribute(written, x, 1, composite=composite, layers=["cell"]).layers["cell"]
        if lstm:
            found = found[::2] if state == "steps" else [a + b for a, b in zip(found[::2], found[1::2], strict=True)]
        assert len(R.layers[f"rnn.{state}"]) == 6
        for one, two in zip(R.layers[f"rnn.{state}"], found, strict=True):
            close(one, two, rtol=1e-12, atol=1e-12)


def test_all_that_came_before_passes_the_state(pair: Any) -> None:
    """With the last step as the output, the state at step t is all that the network knows of steps up to t."""
    model, _, x = pair

    class Last(Reader):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0][:, -1])

    net = Last(type(model.rnn)).double().eval()
    whole = relprop.attribute(net, x, 0, composite="epsilon")
    state = units("rnn.steps", run=2)
    if isinstance(model.rnn, nn.LSTM):
        state = state | units("rnn.cells", run=2)  # type: ignore[assignment]
    R = relprop.attribute(net, x, 0, composite="epsilon", through=state)
    close(R.values[:, :3], whole.values[:, :3], rtol=1e-12, atol=1e-12)
    assert not R.values[:, 3:].any()


def test_stacks_and_both_directions() -> None:
    torch.manual_seed(1)
    model = Reader(nn.GRU, num_layers=2, bidirectional=True).double().eval()
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    R = relprop.attribute(model, x, 0, composite="epsilon", layers=["rnn.steps_l1_reverse", "rnn.steps_l0"])
    assert [len(r) for r in R.layers.values()] == [5, 5]
    alone = relprop.attribute(
        model, x, 0, composite="epsilon", through=units("rnn.steps_l1_reverse", run=0) | units("rnn.steps_l1", run=4)
    )
    whole = relprop.attribute(model, x, 0, composite="epsilon")
    rest = relprop.attribute(
        model, x, 0, composite="epsilon", through=~(units("rnn.steps_l1_reverse", run=0) | units("rnn.steps_l1", run=4))
    )
    close(alone.values + rest.values, whole.values, rtol=1e-12, atol=1e-12)
    for path in ("rnn.steps", "rnn.steps_l2", "rnn.cells_l0"):
        with pytest.raises(InputError, match="It has: steps_l0, steps_l0_reverse, steps_l1, steps_l1_reverse"):
            relprop.attribute(model, x, 0, layers=[path])


def test_a_graph_over_time(pair: Any) -> None:
    model, _, x = pair
    nodes = [units("rnn.steps", run=t) for t in range(6)]
    G = relprop.graph(model, x[:1], 1, nodes=nodes, keep=12, composite="epsilon")
    assert {node.position for node in G.nodes if node.kind == "unit"} <= set(range(6))
    assert all(f"run {node.position}" in node.name for node in G.nodes if node.kind == "unit")
    for n, node in enumerate(G.nodes):
        if node.kind != "input":
            assert abs(node.relevance - sum(w for _, w in G.below(n)) - node.absorbed) < 1e-10


def test_errors(pair: Any) -> None:
    model, _, x = pair
    with pytest.raises(InputError, match=r"ran 6 times\. Say which run"):
        relprop.attribute(model, x, 0, through=units("rnn.steps")[1])
    with pytest.raises(InputError, match="so there is no run 6"):
        relprop.attribute(model, x, 0, through=units("rnn.steps", run=6)[1])
    with pytest.raises(InputError, match="'head' is a Linear"):
        relprop.attribute(model, x, 0, through=units("head.steps", run=0))
    with pytest.raises(InputError, match="states have no input of their own"):
        relprop.attribute(model, x, 0, through=units("rnn.steps", run=0, at="input"))

    class Packed(Reader):
        def forward(self, x: Tensor) -> Tensor:
            rows = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([6, 4]), batch_first=True)
            return self.head(nn.utils.rnn.pad_packed_sequence(self.rnn(rows)[0], batch_first=True)[0].sum(1))

    packed = Packed(type(model.rnn)).double().eval()
    with pytest.raises(UnsupportedOperationError, match="packed sequences of several lengths"):
        relprop.attribute(packed, x, 0, layers=["rnn.steps"])
