"""Recurrent layers: the opaque calls give what the same network gives that is unrolled by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import relprop
from relprop import AlphaBeta, Composite, Epsilon, Flat, Gamma, Gate, WSquare, Zero, ZeroBias, ZPlus

close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-10)


def joined(x: Tensor, h: Tensor, w: list[Tensor], rows: int, of: int, reset: Tensor | float = 1.0) -> Tensor:
    """`z = W x + r (U h + c) + b` as one layer over input and state, of one sample."""
    from_x, from_h, b, c = (None if t is None else t.chunk(of)[rows] for t in w)
    factor = reset.detach()[0] if isinstance(reset, Tensor) else torch.full((len(from_h),), reset, dtype=x.dtype)
    bias = None if b is None else b + factor * c
    return nn.functional.linear(torch.cat([x, h], -1), torch.cat([from_x, factor[:, None] * from_h], 1), bias)


def gate(x: Tensor, h: Tensor, w: list[Tensor], rows: int, of: int) -> Tensor:
    return torch.sigmoid(joined(x, h, w, rows, of)).detach()


def lstm_cell(x: Tensor, state: tuple[Tensor, ...], w: list[Tensor], p: Tensor | None) -> tuple[Tensor, ...]:
    h, c = state
    i, f, o = (gate(x, h, w, n, 4) for n in (0, 1, 3))
    c = f * c + i * torch.tanh(joined(x, h, w, 2, 4))
    h = o * torch.tanh(c)
    return (h if p is None else h @ p.T), c


def gru_cell(x: Tensor, state: tuple[Tensor, ...], w: list[Tensor], p: Tensor | None) -> tuple[Tensor, ...]:
    (h,) = state
    r, z = (gate(x, h, w, n, 3) for n in (0, 1))
    return ((1 - z) * torch.tanh(joined(x, h, w, 2, 3, r)) + z * h,)


def rnn_cell(x: Tensor, state: tuple[Tensor, ...], w: list[Tensor], p: Tensor | None) -> tuple[Tensor, ...]:
    return (torch.tanh(joined(x, state[0], w, 0, 1)),)


CELLS: dict[type[nn.RNNBase], Callable[..., tuple[Tensor, ...]]] = {
    nn.LSTM: lstm_cell,
    nn.GRU: gru_cell,
    nn.RNN: rnn_cell,
}


class Unrolled(nn.Module):
    """The same network, step by step, sample by sample of the given lengths."""

    def __init__(self, net: nn.RNNBase):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, lengths: list[int] | None = None) -> Tensor:
        net = self.net
        ends = []
        for n, sample in enumerate(x):
            xs = list(sample[: len(sample) if lengths is None else lengths[n]][:, None])
            for layer in range(net.num_layers):
                both = []
                for suffix in ("", "_reverse")[: 2 if net.bidirectional else 1]:
                    names = [f"{kind}_l{layer}{suffix}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
                    w = [getattr(net, name, None) for name in names]
                    p = getattr(net, f"weight_hr_l{layer}{suffix}", None)
                    # of the product of a gate with a state that is a plain constant, the gate would take all
                    nothing = 0 * xs[0].sum()
                    hidden = torch.zeros(1, net.hidden_size, dtype=x.dtype)
                    state = (torch.zeros(1, net.proj_size or net.hidden_size, dtype=x.dtype) + nothing,)
                    state = (*state, hidden) if isinstance(net, nn.LSTM) else state
                    outputs = []
                    for step in xs[::-1] if suffix else xs:
                        state = CELLS[type(net)](step, state, w, p)
                        outputs.append(state[0])
                    both.append(outputs[::-1] if suffix else outputs)
                xs = [torch.cat(pair, -1) for pair in zip(*both, strict=True)]
            ends.append(torch.cat([xs[0], xs[-1]], -1))
        return torch.cat(ends)


class Opaque(Unrolled):
    def forward(self, x: Tensor, lengths: list[int] | None = None) -> Tensor:
        net = self.net
        if lengths is None:
            y = net(x if net.batch_first else x.transpose(0, 1))[0]
            y = y if net.batch_first else y.transpose(0, 1)
            return torch.cat([y[:, 0], y[:, -1]], -1)
        packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(net(packed)[0], batch_first=True)
        return torch.cat([y[:, 0], y[torch.arange(len(x)), torch.tensor(lengths) - 1]], -1)


FORMS: dict[str, tuple[type[nn.RNNBase], dict[str, Any]]] = {
    "lstm": (nn.LSTM, {}),
    "lstm, stacked, both directions": (nn.LSTM, {"num_layers": 2, "bidirectional": True}),
    "lstm, projected": (nn.LSTM, {"proj_size": 3, "num_layers": 2, "bidirectional": True}),
    "lstm without biases": (nn.LSTM, {"bias": False}),
    "gru": (nn.GRU, {"batch_first": True}),
    "gru, stacked, both directions": (nn.GRU, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    "rnn": (nn.RNN, {"bidirectional": True}),
}


@pytest.mark.parametrize("packed", [False, True], ids=["dense", "packed"])
@pytest.mark.parametrize("name", FORMS)
def test_opaque_equals_unrolled(name: str, packed: bool) -> None:
    kind, options = FORMS[name]
    if packed:
        options = {**options, "batch_first": True}
    # torch folds a matrix product in another order where a weight requires grad, a matter of the last digit
    net = kind(4, 6, **options).double().eval().requires_grad_(False)
    x = torch.randn(3, 5, 4).double()
    lengths = [3, 5, 2] if packed else None
    v = torch.randn(Opaque(net)(x, lengths).shape[1]).double()
    found, expected = (
        relprop.attribute(model, x, lambda y: y @ v, composite="lstm", forward_args=(lengths,))
        for model in (Opaque(net), Unrolled(net))
    )
    assert torch.equal(found.output, Opaque(net)(x, lengths))
    close(found.values, expected.values)
    if packed:
        assert found.values[0, 3:].abs().sum() == 0


RULES = {
    "epsilon": Epsilon(0.1),
    "relative epsilon": Epsilon(0.1, relative=True),
    "gamma": Gamma(0.25),
    "z+": ZPlus(),
    "alpha-beta": AlphaBeta(2.0, 1.0),
    "no bias": ZeroBias(Epsilon(0.1)),
    "w2": WSquare(),
    "flat": Flat(),
    "zero": Zero(),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("name", ["lstm", "lstm, projected", "gru, stacked, both directions", "rnn"])
def test_a_rule_sees_input_and_state_as_one_layer(name: str, rule: relprop.WeightedRule) -> None:
    kind, options = FORMS[name]
    net = kind(4, 6, **options).double().eval().requires_grad_(False)
    x = torch.randn(3, 5, 4).double()
    v = torch.randn(Opaque(net)(x).shape[1]).double()
    composite = Composite({"linear": rule, "product": Gate()})
    found, expected = (
        relprop.attribute(model, x, lambda y: y @ v, composite=composite).values
        for model in (Opaque(net), Unrolled(net))
    )
    close(found, expected)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("rule", [Epsilon(0.1), ZPlus(), Gamma(0.25)])
def test_a_cell_is_such_a_layer_as_well(kind: Any, rule: relprop.WeightedRule) -> None:
    cell = kind(4, 6).double().eval().requires_grad_(False)
    x, h = torch.randn(2, 3, 4).double(), torch.randn(3, 6).double()
    w = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]

    def own(first: Tensor, state: Tensor) -> Tensor:
        pair = (state, state) if kind is nn.LSTMCell else state
        y = cell(first, pair)
        return (y[0] if isinstance(y, tuple) else y).sum(1)

    def by_hand(first: Tensor, state: Tensor) -> Tensor:
        step = {nn.LSTMCell: lstm_cell, nn.GRUCell: gru_cell, nn.RNNCell: rnn_cell}[kind]
        rows = [
            step(a[None], (b[None], b[None])[: 2 if kind is nn.LSTMCell else 1], w, None)[0]
            for a, b in zip(first, state, strict=True)
        ]
        return torch.cat(rows).sum(1)

    composite = Composite({"linear": rule, "product": Gate()})
    pairs = (relprop.attribute(f, (x[0], h), composite=composite).values for f in (own, by_hand))
    for found, expected in zip(*pairs, strict=True):
        close(found, expected)


def test_all_steps_stand_at_one_place() -> None:
    net = nn.LSTM(4, 6, num_layers=2, bidirectional=True, batch_first=True).double().eval()
    R = relprop.attribute(lambda x: net(x)[0][:, -1].sum(1), torch.randn(2, 5, 4).double(), composite="lstm")
    placed = [place for place, rule in R.rules if isinstance(rule, Epsilon)]
    assert len(placed) == 4  # a layer and a direction each


def test_a_sample_alone_and_in_a_batch() -> None:
    net = nn.LSTM(4, 6, bidirectional=True, batch_first=True).double()
    x = torch.randn(4, 5, 4).double()
    target = lambda y: y[:, 2]  # noqa: E731
    together = relprop.attribute(Opaque(net), x, target, composite="lstm").values
    for n in range(4):
        close(relprop.attribute(Opaque(net), x[n : n + 1], target, composite="lstm").values[0], together[n])


def test_states_carry_relevance() -> None:
    net = nn.GRU(4, 6, num_layers=2).double()
    x, h = torch.randn(5, 3, 4).double(), torch.randn(2, 3, 6).double()
    found = relprop.attribute(
        lambda x, h: net(x.transpose(0, 1), h.transpose(0, 1).contiguous())[1][-1],
        (x.transpose(0, 1), h.transpose(0, 1)), 2, composite="lstm",
    )  # fmt: skip
    assert found.values[1].abs().sum() > 0


def test_auto_takes_the_gates_as_constants_in_hand_written_cells_too() -> None:
    net = nn.LSTM(4, 6).double()
    x, v = torch.randn(2, 4, 4).double(), torch.randn(12).double()
    found = relprop.attribute(Opaque(net), x, lambda y: y @ v)
    assert found.composite == relprop.composites.lstm()
    close(found.values, relprop.attribute(Unrolled(net), x, lambda y: y @ v, composite="lstm").values)


def test_the_gradient_composite_is_the_gradient() -> None:
    net = nn.LSTM(4, 6).double()
    x = torch.randn(2, 4, 4).double().requires_grad_()
    found = relprop.attribute(Opaque(net), x, 1, composite="gradient")
    (expected,) = torch.autograd.grad(Opaque(net)(x)[:, 1].sum(), x)
    close(found.values, expected)


def test_dropout_between_layers_is_refused_in_training() -> None:
    net = nn.LSTM(4, 6, num_layers=2, dropout=0.5)
    with pytest.raises(relprop.errors.ModelStateError, match="eval"):
        relprop.attribute(Opaque(net), torch.randn(2, 3, 4), 0)
