"""Blocks of sequence models against the propositions of the papers, and every way to write one against the others."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

import reference_sequences as reference
import relprop
import sequences
from helpers import weighed_by

# Relevance by relevance against input times modified gradient, both in float64.
close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)


def explained(model: nn.Module, x: Tensor, v: Tensor, composite: str) -> Tensor:
    return relprop.attribute(model, x, weighed_by(v), composite=composite).values


def samples(*shape: int) -> Tensor:
    """A third of the entries is exactly 0, and so is the whole of one position."""
    x = torch.randn(*shape).double()
    x[torch.rand(shape) < 0.3] = 0.0
    x[0, 0] = 0.0
    return x


def compare(model: nn.Module, blocks: object, x: Tensor, composite: str, **options: bool) -> None:
    """A batch of two against the reference, one by one."""
    v = torch.randn(x.shape[1:]).double()
    values = explained(model, x, v, composite)
    for sample, found in zip(x, values, strict=True):
        y, down = blocks(sample, **options)  # type: ignore[operator]
        close(model(sample[None])[0].detach(), y)
        close(found, down(y * v))


METHODS = pytest.mark.parametrize(("composite", "constant"), [("attnlrp", False), ("cp_lrp", True)])


@METHODS
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "written out"])
def test_decoder_block(composite: str, constant: bool, fused: bool) -> None:
    model = sequences.Decoder(fused=fused).double().eval()
    cos, sin = sequences.angles(5, 4)
    feed = model.feed
    block = reference.Decoder(
        model.q, model.k, model.v, model.o, feed.gate, feed.up, feed.down, model.first.weight.detach(),
        model.second.weight.detach(), 1e-6, 4, 2, cos, sin,
    )  # fmt: skip
    compare(model, block, samples(2, 5, 16), composite, constant=constant)


@METHODS
def test_encoder_block(composite: str, constant: bool) -> None:
    model = nn.TransformerEncoderLayer(16, 4, 24, activation="gelu", batch_first=True).double().eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    compare(model, partial(reference.encoder, model), samples(2, 5, 16), composite, constant=constant)


@METHODS
def test_mixture_of_experts(composite: str, constant: bool) -> None:
    model = sequences.Mixture().double().eval()
    experts = [(e.gate, e.up, e.down) for e in model.experts]
    block = partial(reference.mixture, model.router, experts, top=2)
    compare(model, block, samples(2, 5, 16), composite, constant=constant)


def test_mamba_block() -> None:
    model = sequences.Mamba().double().eval()
    compare(model, partial(reference.mamba, model), samples(2, 6, 8), "mamba_lrp")


def test_lstm_step() -> None:
    cell = nn.LSTMCell(4, 6).double()
    x, h, c = samples(2, 4), samples(2, 6), samples(2, 6)
    v, w = torch.randn(2, 6).double()
    found = relprop.attribute(
        lambda x, h, c: cell(x, (h, c)), (x, h, c), lambda y: y[0] @ v + y[1] @ w, composite="attnlrp"
    )
    h_new, c_new, down = reference.lstm_step(cell, x, h, c)
    for values, expected in zip(found.values, down(h_new * v, c_new * w), strict=True):
        close(values, expected)


def test_gru_step() -> None:
    cell = nn.GRUCell(4, 6).double()
    x, h, v = samples(2, 4), samples(2, 6), torch.randn(6).double()
    found = relprop.attribute(cell, (x, h), lambda y: y @ v, composite="attnlrp")
    h_new, down = reference.gru_step(cell, x, h)
    for values, expected in zip(found.values, down(h_new * v), strict=True):
        close(values, expected)


def test_constant_attention_conserves_what_the_softmax_keeps() -> None:
    """Without biases CP-LRP hands on everything; AttnLRP leaves out the remainder of the softmax's expansion."""
    model = nn.Sequential(*(sequences.Decoder() for _ in range(2))).double().eval()
    x = torch.randn(2, 5, 16).double()
    target = lambda y: y[:, -1, 3]  # noqa: E731
    constant = relprop.attribute(model, x, target, composite="cp_lrp")
    assert constant.residual.abs().max() < 1e-6 * constant.score.abs().max()
    jacobian = relprop.attribute(model, x, target, composite="attnlrp")
    assert jacobian.residual.abs().min() > 1e-4 * jacobian.score.abs().max()


@pytest.mark.skipif(not hasattr(torch, "_grouped_mm"), reason="this torch has no grouped matrix product")
@pytest.mark.parametrize("composite", ["attnlrp", "attnlrp_gamma", "epsilon"])
def test_grouped_product_equals_one_layer_per_expert(composite: str) -> None:
    """Offsets keep their int32; each run of rows meets its expert's weight, under the rule of any linear layer."""
    weight = torch.randn(3, 16, 8)
    ends = [8, 8, 24]
    head = nn.Linear(8, 4)

    def grouped(x: Tensor) -> Tensor:
        offsets = torch.tensor(ends, dtype=torch.int32)
        return head(torch._grouped_mm(x.flatten(0, 1), weight, offs=offsets)).unflatten(0, x.shape[:2]).sum(1)

    def looped(x: Tensor) -> Tensor:
        rows = x.flatten(0, 1).tensor_split(ends[:-1])
        y = torch.cat([nn.functional.linear(part, w.T) for part, w in zip(rows, weight, strict=True)])
        return head(y).unflatten(0, x.shape[:2]).sum(1)

    x = torch.randn(2, 12, 16)
    found, expected = (relprop.attribute(f, x, 1, composite=composite).values for f in (grouped, looped))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)  # float32: the kernel knows no double
