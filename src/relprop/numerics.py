"""Division and zeros, in one place: the `nz` device, signed stabilisers, quotients with x / 0 = 0.

Masks (`torch.where`) cost ten times a multiplication on a CPU, so the hot paths use arithmetic instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from relprop.torch_private.graph import batched
from relprop.torch_private.recorded import recording, unrecorded

_TINY = {torch.float16: 2.0**-14, torch.float64: 1e-150, torch.complex128: 1e-150, torch.complex32: 2.0**-14}


def tiny(dtype: torch.dtype) -> float:
    """What stands for an exact zero: small enough to vanish, large enough to have a reciprocal."""
    return _TINY.get(dtype, 1e-30)


def nonzero(x: Tensor) -> Tensor:
    """`x`, with `tiny` where it is exactly zero: the `nz` of the docs."""
    return x + (x == 0).to(x.dtype) * tiny(x.dtype)


def carrying(g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Where a gradient hands relevance to zeros: as a share over what stands for a zero, beyond any slope of a network.

    Elsewhere it is a slope as any other, also at a zero: the zero of `x - max(x)` is of one that is not. Half precision has
    no room to tell them apart. `dtype` is the one in which the zero was met, if not that of the gradient.
    """
    small = tiny(dtype or g.dtype)
    return g.abs() > small**-0.5 if small < 1e-10 else torch.ones_like(g, dtype=torch.bool)


def signed(x: Tensor, epsilon: float | Tensor) -> Tensor:
    """`x + epsilon * sgn(x)` with `sgn(0) = +1` (a negative zero counts as negative: its relevance is 0 either way)."""
    scale = epsilon if isinstance(epsilon, Tensor) else torch.full((), epsilon, dtype=x.dtype, device=x.device)
    return added(torch.copysign(scale, x), x)


def own(x: Tensor) -> bool:
    """Whether a backward pass may write into a tensor it made: no graph is recorded, no vmap runs, it is all here."""
    return not torch.is_grad_enabled() and type(x) is Tensor and not batched(x)


def added(a: Tensor, b: Tensor, factor: float = 1.0) -> Tensor:
    """`a + factor * b`. Consumes `a`: pass a tensor of your own."""
    return a.add_(b, alpha=factor) if own(a) and a.shape == b.shape and not batched(b) else a.add(b, alpha=factor)


def quotient(a: Tensor, b: Tensor) -> Tensor:
    """`a / b`, and 0 where `b` is 0. Consumes `a`: pass a tensor of your own."""
    if not own(a) or a.shape != b.shape or batched(b):
        return (a / b).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    return a.div_(b).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


def where_positive(a: Tensor, condition: Tensor) -> Tensor:
    """`a` where `condition > 0`, else 0: the backward pass of a relu, much faster than a mask."""
    return torch.ops.aten.threshold_backward(a, condition, 0)


def wide(x: Tensor) -> Tensor:
    """`x` in a dtype that holds a stabiliser: half precision becomes float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def known(test: Tensor, otherwise: bool) -> bool:
    """The truth of a test on numbers; while a graph is recorded, `otherwise`, which must be right for all numbers."""
    return otherwise if recording() else bool(test)


@contextmanager
def kept_here() -> Iterator[None]:
    """A graph of its own: a checkpoint that we run in must not count what it saves, and it holds on to nothing after."""
    kept: list[Tensor] = []

    def keep(t: Tensor) -> int:
        kept.append(t)
        return len(kept) - 1

    try:
        with saved_tensors_hooks(keep, kept.__getitem__):
            yield
    finally:
        kept.clear()  # a node that holds its own result would stay for ever


def aside() -> AbstractContextManager[object]:
    """Arithmetic on constants alone, whose results may be looked at: no part of a graph that is being recorded."""
    return unrecorded() if recording() else nullcontext()
