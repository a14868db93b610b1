"""Blocks of sequence models, their relevance carried by the propositions of the papers: one sample, float64, no autograd.

Nothing here is the library's, and nothing is a gradient: every function takes the relevance of what an operation
returned and divides it among what went in. Weights come as nn.Linear, so that a block of any making can be read off.

Index letters: t, s positions, i, j features, h heads, d features of a head, n states, e experts.

AttnLRP: Achtibat et al. 2024. CP-LRP: Ali et al. 2022. Recurrent cells: Arras et al. 2017, 2019. Mamba: Jafari et al. 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reference import quotient

Down = Callable[[Tensor], Any]
"""From the relevance of what came out to the relevance of what went in."""


# ------------------------------------------------------------------------------------------- single operations


def linear(layer: nn.Linear, x: Tensor) -> tuple[Tensor, Down]:
    """R_i = sum_j x_i w_ji R_j / z_j"""
    w = layer.weight.detach()
    z = torch.einsum("ti,ji->tj", x, w) + (0 if layer.bias is None else layer.bias.detach())
    return z, lambda r: torch.einsum("ti,ji,tj->ti", x, w, quotient(r, z))


def added(a: Tensor, b: Tensor) -> tuple[Tensor, Down]:
    """a / (a + b) and b / (a + b)"""
    return a + b, lambda r: (quotient(a * r, a + b), quotient(b * r, a + b))


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Down]:
    """With the root mean square a constant each feature is scaled by itself: R = R (AttnLRP, proposition 3.4)."""
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight, lambda r: r


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Down]:
    """y_j = sum_i (1 if i = j, less 1 / n) x_i w_j / std + b_j: a linear layer once std is a constant."""
    std = ((x - x.mean(-1, keepdim=True)).square().mean(-1, keepdim=True) + eps).sqrt()
    y = (x - x.mean(-1, keepdim=True)) / std * weight + bias
    centre = torch.eye(x.shape[-1], dtype=x.dtype) - 1 / x.shape[-1]
    c = torch.einsum("ti,ij,j->tij", x / std, centre, weight)
    return y, lambda r: torch.einsum("tij,tj->ti", c, quotient(r, y))


def activation(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Down]:
    """R = R for f(0) = 0"""
    return f(x), lambda r: r


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Down]:
    """x' = x cos + turn(x) sin with turn(x1, x2) = (-x2, x1), x[h, t, d]"""
    half = x.shape[-1] // 2
    turn = torch.zeros(2 * half, 2 * half, dtype=x.dtype)
    turn[torch.arange(half), torch.arange(half) + half] = -1
    turn[torch.arange(half) + half, torch.arange(half)] = 1
    m = torch.diag_embed(cos) + sin[..., :, None] * turn
    y = torch.einsum("tde,hte->htd", m, x)
    return y, lambda r: torch.einsum("htd,tde,hte->hte", quotient(r, y), m, x)


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, allowed: Tensor | None = None, constant: bool = False
) -> tuple[Tensor, Down]:
    """q[h, t, d], k and v[h, s, d]; `constant`: the softmax's weights take nothing (CP-LRP)."""
    scores = torch.einsum("htd,hsd->hts", q, k) * scale
    seen = scores if allowed is None else scores.masked_fill(~allowed, -math.inf)
    a = seen.softmax(-1)
    o = torch.einsum("hts,hsd->htd", a, v)

    def down(r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c = torch.einsum("hts,hsd,htd->htsd", a, v, quotient(r, o))
        if constant:
            return torch.zeros_like(q), torch.zeros_like(k), c.sum(1)
        of_weights, of_values = c.sum(3) / 2, c.sum(1) / 2  # proposition 3.3
        of_scores = scores * (of_weights - a * of_weights.sum(-1, keepdim=True))  # proposition 3.1
        parts = torch.einsum("htd,hsd,hts->htsd", q, k, quotient(of_scores, scores)) * scale / 2
        return parts.sum(2), parts.sum(1), of_values

    return o, down


def gated(content: Tensor, gate: Tensor, constant: bool) -> tuple[Tensor, Down]:
    """Half to each factor, or all to the content."""
    return content * gate, lambda r: (r, torch.zeros_like(r)) if constant else (r / 2, r / 2)


def heads(x: Tensor, count: int) -> Tensor:
    """[t, h d] -> [h, t, d]"""
    return x.reshape(x.shape[0], count, -1).transpose(0, 1)


def joined(x: Tensor) -> Tensor:
    """[h, t, d] -> [t, h d]"""
    return x.transpose(0, 1).reshape(x.shape[1], -1)


# -------------------------------------------------------------------------------------------------- whole blocks


@dataclass
class Decoder:
    """x + attention(norm(x)), then x + down(silu(gate(norm(x))) * up(norm(x))): Llama's block."""

    q: nn.Linear
    k: nn.Linear
    v: nn.Linear
    o: nn.Linear
    gate: nn.Linear
    up: nn.Linear
    down: nn.Linear
    first_norm: Tensor
    second_norm: Tensor
    eps: float
    heads: int
    kv_heads: int
    cos: Tensor
    sin: Tensor

    def __call__(self, x: Tensor, constant: bool = False) -> tuple[Tensor, Down]:
        y, attended = self.attend(x, constant)
        z, fed = self.feed(y, constant)
        return z, lambda r: attended(fed(r))

    def attend(self, x: Tensor, constant: bool) -> tuple[Tensor, Down]:
        n, through_norm = rms_norm(x, self.first_norm, self.eps)
        (q, down_q), (k, down_k), (v, down_v) = (linear(layer, n) for layer in (self.q, self.k, self.v))
        turned_q, back_q = rotary(heads(q, self.heads), self.cos, self.sin)
        turned_k, back_k = rotary(heads(k, self.kv_heads), self.cos, self.sin)
        groups = self.heads // self.kv_heads
        causal = torch.ones(len(x), len(x), dtype=torch.bool).tril()
        o, back = attention(
            turned_q,
            turned_k.repeat_interleave(groups, 0),
            heads(v, self.kv_heads).repeat_interleave(groups, 0),
            scale=turned_q.shape[-1] ** -0.5,
            allowed=causal,
            constant=constant,
        )
        out, down_o = linear(self.o, joined(o))
        y, split = added(x, out)

        def down(r: Tensor) -> Tensor:
            stays, r = split(r)
            r_q, r_k, r_v = back(heads(down_o(r), self.heads))
            r_k, r_v = (t.reshape(self.kv_heads, groups, *t.shape[1:]).sum(1) for t in (r_k, r_v))
            r_n = down_q(joined(back_q(r_q))) + down_k(joined(back_k(r_k))) + down_v(joined(r_v))
            return stays + through_norm(r_n)

        return y, down

    def feed(self, x: Tensor, constant: bool) -> tuple[Tensor, Down]:
        n, through_norm = rms_norm(x, self.second_norm, self.eps)
        out, inner = swiglu(self.gate, self.up, self.down, n, constant)
        y, split = added(x, out)

        def down(r: Tensor) -> Tensor:
            stays, r = split(r)
            return stays + through_norm(inner(r))

        return y, down


def swiglu(gate: nn.Linear, up: nn.Linear, out: nn.Linear, x: Tensor, constant: bool) -> tuple[Tensor, Down]:
    g, down_g = linear(gate, x)
    u, down_u = linear(up, x)
    s, through = activation(nn.functional.silu, g)
    h, halves = gated(u, s, constant)
    y, down_y = linear(out, h)

    def down(r: Tensor) -> Tensor:
        r_u, r_g = halves(down_y(r))
        return down_u(r_u) + down_g(through(r_g))

    return y, down


def encoder(block: nn.TransformerEncoderLayer, x: Tensor, constant: bool = False) -> tuple[Tensor, Down]:
    """norm(x + attention(x)), then norm(x + linear(gelu(linear(x)))), with biases: BERT's block."""
    packed = block.self_attn
    count = packed.num_heads
    layers = []
    for w, b in zip(packed.in_proj_weight.chunk(3), packed.in_proj_bias.chunk(3), strict=True):
        layer = nn.Linear(x.shape[-1], x.shape[-1]).double()
        layer.weight.data, layer.bias.data = w.detach(), b.detach()
        layers.append(layer)
    (q, down_q), (k, down_k), (v, down_v) = (linear(layer, x) for layer in layers)
    o, back = attention(
        heads(q, count), heads(k, count), heads(v, count), scale=(x.shape[-1] // count) ** -0.5, constant=constant
    )
    out, down_o = linear(packed.out_proj, joined(o))
    a, split_a = added(x, out)
    n, through_first = layer_norm(a, block.norm1.weight.detach(), block.norm1.bias.detach(), block.norm1.eps)
    f, down_f = linear(block.linear1, n)
    g, through = activation(nn.functional.gelu, f)
    m, down_m = linear(block.linear2, g)
    b, split_b = added(n, m)
    y, through_second = layer_norm(b, block.norm2.weight.detach(), block.norm2.bias.detach(), block.norm2.eps)

    def down(r: Tensor) -> Tensor:
        stays, r = split_b(through_second(r))
        r = stays + down_f(through(down_m(r)))
        stays, r = split_a(through_first(r))
        r_q, r_k, r_v = back(heads(down_o(r), count))
        return stays + down_q(joined(r_q)) + down_k(joined(r_k)) + down_v(joined(r_v))

    return y, down


def mixture(
    router: nn.Linear,
    experts: list[tuple[nn.Linear, nn.Linear, nn.Linear]],
    x: Tensor,
    top: int,
    constant: bool = False,
) -> tuple[Tensor, Down]:
    """y_t = sum over the best e of p_te f_e(x_t), p a softmax over all experts, shared out anew among the best."""
    logits, down_router = linear(router, x)
    p = logits.softmax(-1)
    best, which = p.topk(top, -1)
    total = best.sum(-1, keepdim=True)
    outputs = [swiglu(*expert, x, constant) for expert in experts]
    chosen = torch.stack([torch.stack([outputs[e][0][t] for e in which[t].tolist()]) for t in range(len(x))])
    parts = chosen * (best / total)[..., None]
    y = parts.sum(1)

    def down(r: Tensor) -> Tensor:
        r_parts = parts * quotient(r, y)[:, None]
        r_weights = torch.zeros_like(p) if constant else torch.zeros_like(p).scatter(1, which, r_parts.sum(-1) / 2)
        of_experts = r_parts if constant else r_parts / 2
        r_x = torch.zeros_like(x)
        for e, (_, inner) in enumerate(outputs):
            routed = torch.zeros_like(x)
            for t in range(len(x)):
                for place, expert in enumerate(which[t].tolist()):
                    if expert == e:
                        routed[t] = of_experts[t, place]
            r_x += inner(routed)
        of_logits = logits * (r_weights - p * r_weights.sum(-1, keepdim=True))  # the divisor is a constant
        return r_x + down_router(of_logits)

    return y, down


def lstm_step(cell: nn.LSTMCell, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Down]:
    """Relevance of h' and c' to x, h and c; gates take none, and tanh passes on what it gets."""
    (w_i, w_f, w_g, w_o), (u_i, u_f, u_g, u_o) = cell.weight_ih.detach().chunk(4), cell.weight_hh.detach().chunk(4)
    b, bh = cell.bias_ih.detach().chunk(4), cell.bias_hh.detach().chunk(4)
    i, f, o = (
        (x @ w.T + b[n] + h @ u.T + bh[n]).sigmoid() for n, w, u in ((0, w_i, u_i), (1, w_f, u_f), (3, w_o, u_o))
    )
    z = x @ w_g.T + b[2] + h @ u_g.T + bh[2]
    kept, new = f * c, i * z.tanh()
    c_new = kept + new
    h_new = o * c_new.tanh()

    def down(r_h: Tensor, r_c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r = r_h + r_c
        r_z = quotient(new * r, c_new)
        r_x = torch.einsum("bi,ji,bj->bi", x, w_g, quotient(r_z, z))
        r_before = torch.einsum("bi,ji,bj->bi", h, u_g, quotient(r_z, z))
        return r_x, r_before, quotient(kept * r, c_new)

    return h_new, c_new, down


def gru_step(cell: nn.GRUCell, x: Tensor, h: Tensor) -> tuple[Tensor, Down]:
    """h' = (1 - z) tanh(x_n + r h_n) + z h, with r and z constants."""
    (w_r, w_z, w_n), (u_r, u_z, u_n) = cell.weight_ih.detach().chunk(3), cell.weight_hh.detach().chunk(3)
    b, bh = cell.bias_ih.detach().chunk(3), cell.bias_hh.detach().chunk(3)
    reset = (x @ w_r.T + b[0] + h @ u_r.T + bh[0]).sigmoid()
    z = (x @ w_z.T + b[1] + h @ u_z.T + bh[1]).sigmoid()
    from_h = h @ u_n.T + bh[2]
    inner = x @ w_n.T + b[2] + reset * from_h
    new, kept = (1 - z) * inner.tanh(), z * h

    def down(r: Tensor) -> tuple[Tensor, Tensor]:
        r_n, r_h = quotient(new * r, new + kept), quotient(kept * r, new + kept)
        r_x = torch.einsum("bi,ji,bj->bi", x, w_n, quotient(r_n, inner))
        return r_x, r_h + torch.einsum("bi,ji,bj->bi", h, u_n, reset * quotient(r_n, inner))

    return new + kept, down


def mamba(block: Any, x: Tensor) -> tuple[Tensor, Down]:
    """in, causal convolution, silu, selective scan with its step size, B and C as constants, gate, out."""
    inner, down_in = linear(block.in_proj, x)
    u, z = inner.chunk(2, 1)
    w, b = block.conv1d.weight.detach()[:, 0], block.conv1d.bias.detach()
    width = w.shape[1]
    before = torch.cat([u.new_zeros(width - 1, u.shape[1]), u])
    taps = torch.stack([before[t : t + width] for t in range(len(u))])  # [t, tap, i]
    v = torch.einsum("tki,ik->ti", taps, w) + b
    a = nn.functional.silu(v)
    step, b_t, c_t = block.x_proj(a).detach().split([block.rank, block.states, block.states], -1)
    delta = nn.functional.softplus(block.dt_proj(step).detach())
    decay = torch.exp(delta[..., None] * -torch.exp(block.A_log.detach()))  # [t, i, n]
    enters = delta[..., None] * b_t[:, None, :] * a[..., None]
    h, states = torch.zeros_like(decay[0]), []
    for t in range(len(x)):
        h = decay[t] * h + enters[t]
        states.append(h)
    scanned = torch.stack([(states[t] * c_t[t]).sum(-1) for t in range(len(x))])
    skipped = a * block.D.detach()
    y, split = added(scanned, skipped)
    m, halves = gated(y, nn.functional.silu(z), constant=False)
    out, down_out = linear(block.out_proj, m)

    def down(r: Tensor) -> Tensor:
        r_y, r_z = halves(down_out(r))
        r_scan, r_a = split(r_y)
        r_state = torch.zeros_like(h)
        for t in reversed(range(len(x))):
            r_state = r_state + states[t] * c_t[t] * quotient(r_scan[t], scanned[t])[:, None]
            r_a[t] += quotient(enters[t] * r_state, states[t]).sum(-1)
            r_state = r_state - quotient(enters[t] * r_state, states[t])
        r_taps = torch.einsum("tki,ik,ti->tki", taps, w, quotient(r_a, v))
        r_u = torch.zeros_like(before)
        for t in range(len(u)):
            r_u[t : t + width] += r_taps[t]
        return down_in(torch.cat([r_u[width - 1 :], r_z], 1))

    return out, down
