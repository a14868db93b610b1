"""Attention: every way to write it gives one map."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from helpers import weighed_by

close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)

B, H, T, D = 2, 4, 5, 6


def masks() -> dict[str, Tensor | None]:
    allowed = torch.ones(T, T, dtype=torch.bool).tril()
    added = torch.zeros(B, 1, T, T).double().masked_fill(~allowed, -torch.inf)
    added[1, :, :, 0] = -1.5
    return {"none": None, "truth values": allowed, "added": added}


def fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, mask)


def by_matmul(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    scores = q @ k.transpose(-2, -1) / D**0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1) @ v


def by_einsum(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    scores = torch.einsum("bhtd,bhsd->bhts", q, k * D**-0.5)
    if mask is not None:
        scores = torch.where(mask, scores, -torch.inf) if mask.dtype == torch.bool else mask + scores
    return torch.einsum("bhts,bhsd->bhtd", F.dropout(torch.softmax(scores, dim=-1), 0.1, False), v)


def by_bmm(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    if mask is None:
        scores = torch.bmm(q, k.transpose(1, 2)) * D**-0.5
    else:
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape).double().masked_fill(~mask, -torch.inf)
        full = mask.expand(B, H, T, T).flatten(0, 1)
        scores = torch.baddbmm(full, q, k.transpose(1, 2), alpha=D**-0.5)
    return torch.bmm(F.softmax(scores, -1), v).unflatten(0, (B, H))


Attention = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
COMPOSITES: dict[str, relprop.Composite] = {
    "attnlrp": relprop.composites.attnlrp(),
    "cp_lrp": relprop.composites.cp_lrp(),
    "temperature": relprop.Composite({"softmax": relprop.Temperature(2.0)}),
    "gradient": relprop.composites.gradient(),
}


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize("written", [by_matmul, by_einsum, by_bmm])
def test_fused_equals_written_out(written: Attention, mask: str, composite: str) -> None:
    q, k, v, w = torch.randn(4, B, H, T, D).double()
    found, expected = (
        relprop.attribute(
            lambda q, k, v, f=f: f(q, k, v, masks()[mask]), (q, k, v), weighed_by(w),
            composite=COMPOSITES[composite],
        )
        for f in (fused, written)
    )  # fmt: skip
    assert torch.equal(found.output, fused(q, k, v, masks()[mask]))
    for a, b in zip(found.values, expected.values, strict=True):
        close(a, b)


def test_a_temperature_of_one_is_the_jacobian() -> None:
    q, k, v = torch.randn(3, B, H, T, D).double()
    one, jacobian = (
        relprop.attribute(
            lambda *t: F.scaled_dot_product_attention(*t, is_causal=True), (q, k, v), (1, 3, 2), composite=c
        )
        for c in (relprop.Composite({"softmax": relprop.Temperature(1.0)}), "attnlrp")
    )
    for a, b in zip(one.values, jacobian.values, strict=True):
        close(a, b)


@pytest.mark.parametrize("t", [0.5, 1.0, 3.0])
def test_a_temperature_divides_what_the_softmax_is_of(t: float) -> None:
    """G_x = J(x / t)^T G: above 1 the weights are more even, below it less."""
    x, weights = torch.randn(2, 2, 4).double()
    composite = relprop.Composite({"softmax": relprop.Temperature(t)})
    relevance = relprop.attribute(lambda x: (x.softmax(-1) * weights).sum(-1), x, composite=composite)
    p = (x / t).softmax(-1)
    close(relevance.values, x * p * (weights - (p * weights).sum(-1, keepdim=True)))


@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp"])
def test_grouped_queries(composite: str) -> None:
    q, k, v = torch.randn(B, H, T, D).double(), torch.randn(B, 2, T, D).double(), torch.randn(B, 2, T, D).double()
    ways = (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True, scale=0.3),
        lambda q, k, v: F.scaled_dot_product_attention(
            q,
            k.repeat_interleave(2, 1),
            v.repeat_interleave(2, 1),
            torch.ones(T, T, dtype=torch.bool).tril(),
            scale=0.3,
        ),
    )
    found, expected = (relprop.attribute(way, (q, k, v), (2, 4, 1), composite=composite).values for way in ways)
    for a, b in zip(found, expected, strict=True):
        close(a, b)


@pytest.mark.parametrize(
    ("live", "share"), [((0,), 1.0), ((1,), 1.0), ((2,), 1.0), ((0, 1), 0.5), ((0, 2), 0.5), ((0, 1, 2), None)]
)
def test_what_is_a_constant_takes_no_share(live: tuple[int, ...], share: float | None) -> None:
    """Of two live operands each takes half of the native gradient; with one alone it takes all."""
    tensors = list(torch.randn(3, B, H, T, D).double())

    def model(*some: Tensor) -> Tensor:
        full = list(tensors)
        for n, t in zip(live, some, strict=True):
            full[n] = t
        return F.scaled_dot_product_attention(*full)

    inputs = tuple(tensors[n] for n in live)
    found = relprop.attribute(model, inputs, (0, 1, 2), composite="attnlrp").values
    native = relprop.attribute(model, inputs, (0, 1, 2), composite="gradient", multiply_by_inputs=True).values
    shares = [0.25, 0.25, 0.5] if share is None else [share] * len(live)
    for a, b, s in zip(found, native, shares, strict=True):
        close(a, s * b)


class Own(nn.Module):
    """nn.MultiheadAttention's arithmetic, with its weights."""

    def __init__(self, packed: nn.MultiheadAttention):
        super().__init__()
        self.packed = packed

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        m = self.packed
        weights = (
            m.in_proj_weight.chunk(3)
            if m.in_proj_weight is not None
            else (m.q_proj_weight, m.k_proj_weight, m.v_proj_weight)
        )
        q, k, v = (
            F.linear(t, w, b).unflatten(-1, (m.num_heads, -1)).transpose(1, 2)
            for t, w, b in zip((q, k, v), weights, m.in_proj_bias.chunk(3), strict=True)
        )
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        if padding is not None:
            scores = scores.masked_fill(padding[:, None, None], -torch.inf)
        if mask is not None:
            scores = scores.masked_fill(mask, -torch.inf)
        return m.out_proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def multihead(**options: object) -> nn.MultiheadAttention:
    m = nn.MultiheadAttention(12, 3, batch_first=True, **options).double().eval()  # type: ignore[arg-type]
    m.in_proj_bias.data.normal_()
    # torch folds a matrix product in another order where a weight requires grad, a matter of the last digit
    return m.requires_grad_(False)


@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp", "epsilon"])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masked", ["", "padding", "mask", "both"])
@pytest.mark.parametrize("sources", [1, 2, 3])
def test_multihead_attention(sources: int, masked: str, need_weights: bool, composite: str) -> None:
    m = multihead()
    inputs = tuple(torch.randn(sources, B, T, 12).double())
    padding = torch.zeros(B, T, dtype=torch.bool)
    padding[1, -2:] = True
    given = {
        "padding": padding if masked in ("padding", "both") else None,
        "mask": torch.ones(T, T, dtype=torch.bool).triu(1) if masked in ("mask", "both") else None,
    }

    def spread(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """q; q and k = v; q, k, v"""
        return lambda *t: f(t[0], t[min(1, len(t) - 1)], t[-1])

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return m(q, k, v, key_padding_mask=given["padding"], attn_mask=given["mask"], need_weights=need_weights)[0]

    own = Own(m)
    found, expected = (
        relprop.attribute(spread(f), inputs, (1, 3), composite=composite)
        for f in (theirs, lambda q, k, v: own(q, k, v, **given))
    )
    assert torch.equal(found.output, spread(theirs)(*inputs))
    for a, b in zip(found.values, expected.values, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6 if composite == "epsilon" else 1e-9, atol=1e-10)


def test_multihead_attention_of_several_widths() -> None:
    m = multihead(kdim=5, vdim=7)
    q, k, v = torch.randn(B, T, 12).double(), torch.randn(B, T, 5).double(), torch.randn(B, T, 7).double()
    found, expected = (
        relprop.attribute(f, (q, k, v), (1, 3), composite="attnlrp") for f in (lambda *t: m(*t)[0], Own(m))
    )
    for a, b in zip(found.values, expected.values, strict=True):
        close(a, b)


def test_extra_keys() -> None:
    """bias_k, bias_v and a zero key take part as constants."""
    m = multihead(add_bias_kv=True, add_zero_attn=True)
    x = torch.randn(B, T, 12).double()
    found = relprop.attribute(lambda x: m(x, x, x)[0], x, (1, 3), composite="cp_lrp")
    assert torch.equal(found.output, m(x, x, x)[0])


def test_an_unbatched_call() -> None:
    m = multihead()
    x = torch.randn(T, 12).double()
    alone = relprop.attribute(lambda x: m(x, x, x)[0], x, lambda y: y[:, 3], composite="attnlrp")
    together = relprop.attribute(lambda x: m(x, x, x)[0].sum(1), x[None], 3, composite="attnlrp")
    close(alone.values, together.values[0])


def test_the_encoders_fast_path_hides_nothing() -> None:
    """Frozen and in eval mode, torch would take one opaque kernel for the whole layer."""
    layer = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True, dropout=0.1)
    model = nn.TransformerEncoder(layer, 2).double().eval().requires_grad_(False)
    x = torch.randn(B, T, 12).double()
    padding = torch.zeros(B, T, dtype=torch.bool)
    padding[1, -2:] = True
    with torch.no_grad():
        found = relprop.attribute(
            model, x, (1, 3), composite="cp_lrp", forward_kwargs={"src_key_padding_mask": padding},
        )  # fmt: skip
    names = {place.name for place, _ in found.rules}
    assert {"scaled_dot_product_attention", "linear"} <= names or {"softmax", "linear"} <= names
    assert found.values[1, -2:].abs().sum() == 0
    short = relprop.attribute(model, x[1:, :-2], (1, 3), composite="cp_lrp")
    close(found.values[1:, :-2], short.values)


def test_attention_with_dropout_is_refused() -> None:
    q = torch.randn(B, H, T, D)
    with pytest.raises(relprop.errors.ModelStateError, match="eval"):
        relprop.attribute(lambda q: F.scaled_dot_product_attention(q, q, q, dropout_p=0.1), q, (0, 0, 0))


def test_two_heads_of_one_softmax() -> None:
    """A log-softmax at the end is a score, no attention: CP-LRP leaves it alone."""
    model = nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(-1))
    found = relprop.attribute(model, torch.randn(2, 4), 1, composite="cp_lrp")
    assert found.values.abs().sum() > 0
