"""Positions that are biases of attention scores: ALiBi, in every way it is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import relprop
from helpers import close, total, weighed_by

N, H, T, D = 2, 4, 5, 3
SLOPES = torch.tensor([2.0 ** -(h + 1) for h in range(H)]).double()
DISTANCE = torch.arange(1 - T, 1).double()
CAUSAL = torch.ones(T, T, dtype=torch.bool).tril()
LOWEST = torch.finfo(torch.float64).min


def hidden(scores: Tensor) -> Tensor:
    return scores.masked_fill(~CAUSAL, LOWEST)


def per_head(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = x.unflatten(-1, (3, H, D)).permute(2, 0, 3, 1, 4)
    return q, k, v


def added(x: Tensor) -> Tensor:
    """(1, h, 1, s), added to a product of matrices: MPT, Falcon."""
    q, k, v = per_head(x)
    scores = q @ k.mT / math.sqrt(D) + (SLOPES[:, None, None] * DISTANCE)[None]
    return F.softmax(hidden(scores), -1) @ v


def in_one_call(x: Tensor) -> Tensor:
    """(n h, 1, s), by `baddbmm`: Bloom."""
    q, k, v = (t.flatten(0, 1) for t in per_head(x))
    bias = (SLOPES[:, None, None] * DISTANCE).repeat(len(x), 1, 1)
    scores = bias.baddbmm(q, k.mT, beta=1.0, alpha=1 / math.sqrt(D))
    return (F.softmax(hidden(scores), -1) @ v).unflatten(0, (len(x), H))


def as_a_mask(x: Tensor, lowest: float) -> Tensor:
    """(n, h, t, s), with the causal mask in it, as the mask of the fused kernel: Falcon."""
    bias = (SLOPES[:, None, None] * DISTANCE).expand(len(x), H, T, T).masked_fill(~CAUSAL, lowest)
    return F.scaled_dot_product_attention(*per_head(x), attn_mask=bias)


WRITTEN: list[Callable[[Tensor], Tensor]] = [
    added,
    in_one_call,
    partial(as_a_mask, lowest=LOWEST),
    partial(as_a_mask, lowest=-math.inf),
]


def test_heads_of_width_one_have_scores_as_well() -> None:
    """Positions are reported whether or not the product of queries and keys is a sum of one number."""

    def attention(x: Tensor, width: int) -> Tensor:
        q, k, v = (
            F.pad(t, (0, width - 1)) if width > 1 else t for t in x.unflatten(-1, (3, H, 1)).permute(2, 0, 3, 1, 4)
        )
        scores = q @ k.mT + (SLOPES[:, None, None] * DISTANCE)[None]
        return (F.softmax(hidden(scores), -1) @ v)[..., :1]

    x, target = torch.randn(N, T, 3 * H).double(), weighed_by(torch.randn(H, T, 1).double())
    one, two = (
        relprop.attribute(partial(attention, width=width), x, target, composite="attnlrp", positions=True)
        for width in (1, 2)
    )
    close(one.values, two.values)
    (of_one,), (of_two,) = one.positions.values(), two.positions.values()
    assert of_one.abs().max() > 1e-3
    close(of_one, of_two)


@pytest.mark.parametrize("attention", WRITTEN)
def test_against_the_definition(attention: Callable[[Tensor], Tensor]) -> None:
    """`R_s = sum over h, t of b_hts G_hts`, with G by the softmax's Jacobian and half of the product with the values."""
    x = torch.randn(N, T, 3 * H * D).double()
    w = torch.randn(H, T, D).double()
    target = weighed_by(w)
    found = relprop.attribute(attention, x, target, composite="attnlrp", positions=True)
    plain = relprop.attribute(attention, x, target, composite="attnlrp")
    close(found.values, plain.values)  # the tokens keep what they had: a sum takes nothing from its other operand
    assert torch.equal(found.output, plain.output)

    q, k, v = per_head(x)
    bias = SLOPES[:, None, None] * DISTANCE
    a = F.softmax(hidden(q @ k.mT / math.sqrt(D) + bias), -1)
    g = 0.5 * w @ v.mT  # at the softmax's result
    g_scores = a * (g - (a * g).sum(-1, keepdim=True))
    (reported,) = found.positions.values()
    close(reported, (g_scores * bias).sum((1, 2)))

    content = (g_scores * (q @ k.mT / math.sqrt(D))).sum((1, 2, 3)) + 0.5 * plain.score
    close(found.values.flatten(1).sum(1), content)


@pytest.mark.parametrize("attention", WRITTEN)
def test_constant_attention_gives_positions_nothing(attention: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(N, T, 3 * H * D).double()
    found = relprop.attribute(attention, x, total, composite="cp_lrp", positions=True)
    assert not any(bool(r.any()) for r in found.positions.values())
    close(found.residual, torch.zeros(N).double())


def test_a_mask_is_no_position() -> None:
    def masked(x: Tensor) -> Tensor:
        q, k, v = per_head(x)
        scores = q @ k.mT + torch.zeros(T, T).double().masked_fill(~CAUSAL, LOWEST)
        return F.softmax(scores, -1) @ v

    x = torch.randn(N, T, 3 * H * D).double()
    assert not relprop.attribute(masked, x, total, positions=True).positions


@pytest.mark.parametrize("name", ["bloom", "mpt", "falcon", "falcon, fused"])
def test_models_of_transformers(name: str) -> None:
    """One report per layer; with the tokens' and what the softmax keeps it makes the score, text by text."""
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    build = {
        "bloom": lambda: transformers.BloomForCausalLM(transformers.BloomConfig(**sizes)),
        "mpt": lambda: transformers.MptForCausalLM(
            transformers.MptConfig(vocab_size=50, d_model=24, n_heads=4, n_layers=2, max_seq_len=64)
        ),
        "falcon": lambda: transformers.FalconForCausalLM(transformers.FalconConfig(**sizes, alibi=True)),
    }[name.split(",")[0]]
    torch.manual_seed(0)
    model = build().double().eval()
    if name.startswith("falcon"):
        model.set_attn_implementation("sdpa" if "fused" in name else "eager")
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=2 * parameter[0].numel() ** -0.5)
    ids = torch.tensor([[3, 8, 11, 7, 20, 4], [9, 9, 2, 30, 41, 5]])
    found = relprop.attribute(model, ids, (-1, 7), composite="attnlrp", positions=True)
    plain = relprop.attribute(model, ids, (-1, 7), composite="attnlrp")
    assert torch.equal(found.output, plain.output)
    torch.testing.assert_close(found.values, plain.values, rtol=1e-6, atol=1e-9)
    assert len(found.positions) == 2
    for reported in found.positions.values():
        assert reported.shape == ids.shape and bool((reported.abs().sum(1) > 0).all())
    for n in range(2):
        alone = relprop.attribute(model, ids[n : n + 1], (-1, 7), composite="attnlrp", positions=True)
        for key, value in alone.positions.items():
            torch.testing.assert_close(value[0], found.positions[key][n], rtol=1e-5, atol=1e-8)


def test_operands_by_name() -> None:
    """`baddbmm(batch1=, batch2=)`: half to each, however they are given."""
    a, b, c = (torch.randn(2, 3, 3).double() for _ in range(3))
    score = total
    named = relprop.attribute(lambda a, b: c.baddbmm(batch2=b, batch1=a, beta=0.5), (a, b), score, composite="attnlrp")
    close(named.values[0], 0.5 * a * b.sum(2)[:, None])
    close(named.values[1], 0.5 * b * a.sum(1)[:, :, None])


# What is added to tokens (N, T, F), and whether it is a position encoding: it differs from step to step.
ADDED: dict[str, tuple[tuple[int, int, int], tuple[int, ...], bool]] = {
    "steps and features": ((2, 3, 4), (3, 4), True),
    "with the axis of samples": ((2, 3, 4), (1, 3, 4), True),
    "of each sample": ((2, 3, 4), (2, 3, 4), True),
    "one feature": ((2, 3, 1), (3, 1), True),
    "as many features as samples": ((3, 3, 3), (3, 3), True),
    "one step": ((2, 1, 4), (1, 4), False),
    "features alone": ((2, 3, 4), (4,), False),
    "one step for all": ((2, 3, 4), (1, 4), False),
}


@pytest.mark.parametrize("name", ADDED)
@pytest.mark.parametrize("kind", ["numbers", "zeros", "a mask"])
def test_which_constants_are_positions(name: str, kind: str) -> None:
    """R of an encoding is its share of the sum, `p_tf G_tf`, at its steps; a mask and zeros are none."""
    shape, of_constant, is_one = ADDED[name]
    constant = torch.randn(of_constant).double()
    if kind == "zeros":
        constant.zero_()
    elif kind == "a mask":
        constant.view(-1)[::2] = -math.inf
    x, w = torch.randn(shape).double(), torch.randn(shape[1:]).double()
    found = relprop.attribute(
        lambda x: ((x + constant).nan_to_num(neginf=0.0) * w).flatten(1).sum(1, keepdim=True),
        x, 0, composite="zero", positions=True,
    )  # fmt: skip
    if not is_one or kind != "numbers":
        assert not found.positions
        return
    (reported,) = found.positions.values()
    wanted = (constant.expand(shape) * w).sum(2)  # of each sample, or of all where they share the encoding
    close(reported, wanted if constant.shape == shape else wanted.sum(0).reshape(reported.shape))
