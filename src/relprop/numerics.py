"""Division and zeros, in one place: the `nz` device, signed stabilisers, quotients with x / 0 = 0.

Masks (`torch.where`) cost ten times a multiplication on a CPU, so the hot paths use arithmetic instead.
"""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = {torch.float16: 2.0**-14, torch.float64: 1e-150}


def tiny(dtype: torch.dtype) -> float:
    """What stands for an exact zero: small enough to vanish, large enough to have a reciprocal."""
    return _TINY.get(dtype, 1e-30)


def nonzero(x: Tensor) -> Tensor:
    """`x`, with `tiny` where it is exactly zero: the `nz` of the docs."""
    return x + (x == 0).to(x.dtype) * tiny(x.dtype)


def signed(x: Tensor, epsilon: float | Tensor) -> Tensor:
    """`x + epsilon * sgn(x)` with `sgn(0) = +1` (a negative zero counts as negative: its relevance is 0 either way)."""
    scale = epsilon if isinstance(epsilon, Tensor) else torch.full((), epsilon, dtype=x.dtype, device=x.device)
    return torch.copysign(scale, x).add(x) if torch.is_grad_enabled() else torch.copysign(scale, x).add_(x)


def quotient(a: Tensor, b: Tensor) -> Tensor:
    """`a / b`, and 0 where `b` is 0. Consumes `a` where no graph is recorded: pass a tensor of your own."""
    if torch.is_grad_enabled() or a.shape != b.shape:
        return (a / b).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    return a.div_(b).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


def wide(x: Tensor) -> Tensor:
    """`x` in a dtype that holds a stabiliser: half precision becomes float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
