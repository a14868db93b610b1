"""Blocks of sequence models in plain torch, as people write them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """Written out, as language models have it."""

    def __init__(self, width: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def turned(x: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([-b, a], -1)


def angles(steps: int, width: int) -> tuple[Tensor, Tensor]:
    frequency = 100.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(steps, dtype=torch.float64)[:, None] * frequency
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


class SwiGLU(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Decoder(nn.Module):
    """Llama's block; `fused` or written out."""

    def __init__(self, width: int = 16, heads: int = 4, kv_heads: int = 2, fused: bool = True):
        super().__init__()
        self.heads, self.kv_heads, self.fused = heads, kv_heads, fused
        d = width // heads
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = nn.Linear(width, kv_heads * d, bias=False), nn.Linear(width, kv_heads * d, bias=False)
        self.first, self.second, self.feed = RMSNorm(width), RMSNorm(width), SwiGLU(width, 24)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.first(x))
        return x + self.feed(self.second(x))

    def attend(self, x: Tensor) -> Tensor:
        split = lambda t: t.unflatten(-1, (-1, x.shape[-1] // self.heads)).transpose(1, 2)  # noqa: E731
        q, k, v = split(self.q(x)), split(self.k(x)), split(self.v(x))
        cos, sin = (t.to(x.dtype) for t in angles(x.shape[1], q.shape[-1]))
        q, k = (t * cos + turned(t) * sin for t in (q, k))
        if self.fused:
            o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            groups = self.heads // self.kv_heads
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
            scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
            mask = torch.full(scores.shape[-2:], -torch.inf, dtype=x.dtype).triu(1)
            o = F.dropout(F.softmax(scores + mask, -1), 0.1, self.training) @ v
        return self.o(o.transpose(1, 2).flatten(2))


class Mixture(nn.Module):
    """Mixtral's feed-forward: the two best of the experts, each on the tokens that chose it."""

    def __init__(self, width: int = 16, experts: int = 4, top: int = 2):
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(SwiGLU(width, 12) for _ in range(experts))
        self.top = top

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        weights, which = torch.topk(self.router(tokens).softmax(-1), self.top, -1)
        weights = weights / weights.sum(-1, keepdim=True)
        out = torch.zeros_like(tokens)
        for n, expert in enumerate(self.experts):
            token, place = torch.where(which == n)
            out.index_add_(0, token, expert(tokens[token]) * weights[token, place, None])
        return out.reshape(x.shape)


class Mamba(nn.Module):
    """A selective state space, the scan written out."""

    def __init__(self, width: int = 8, inner: int = 12, states: int = 4, rank: int = 3):
        super().__init__()
        self.states, self.rank = states, rank
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, 3, padding=2, groups=inner)
        self.x_proj = nn.Linear(inner, rank + 2 * states, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        self.A_log = nn.Parameter(torch.rand(inner, states))
        self.D = nn.Parameter(torch.rand(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.shape[1]
        u, z = self.in_proj(x).chunk(2, -1)
        u = F.silu(self.conv1d(u.transpose(1, 2))[..., :steps].transpose(1, 2))
        step, b, c = self.x_proj(u).split([self.rank, self.states, self.states], -1)
        delta = F.softplus(self.dt_proj(step))
        decay = torch.exp(delta[..., None] * -torch.exp(self.A_log))
        enters = delta[..., None] * b[:, :, None] * u[..., None]
        h = torch.zeros_like(enters[:, 0])
        outputs = []
        for t in range(steps):
            h = decay[:, t] * h + enters[:, t]
            outputs.append((h * c[:, t, None]).sum(-1))
        y = torch.stack(outputs, 1) + u * self.D
        return self.out_proj(y * F.silu(z))
