"""Division and zeros: the `nz` device, signed stabilisers, quotients with x / 0 = 0.

Masks (`torch.where`) cost ten times a multiplication on a CPU, so the hot paths use arithmetic instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from relprop.torch_private.autograd_graph import batched
from relprop.torch_private.recorded import recording, unrecorded

_TINY = {torch.float16: 2.0**-14, torch.float64: 1e-150, torch.complex128: 1e-150, torch.complex32: 2.0**-14}


def tiny(dtype: torch.dtype) -> float:
    """The value that stands in for an exact zero: small enough to vanish, large enough to have a reciprocal."""
    return _TINY.get(dtype, 1e-30)


def nonzero(x: Tensor) -> Tensor:
    """`x`, with `tiny` where it is exactly zero: the `nz` of the docs."""
    return x + (x == 0).to(x.dtype) * tiny(x.dtype)


def carrying(g: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Where a gradient gives relevance to zeros: there it is a share divided by `tiny`, above any slope of a network.

    Elsewhere it is an ordinary slope, even at a zero: `x - max(x)` is zero where `x` is not. The range of float16 is
    too small to tell the two apart, so there every entry counts. `dtype` is that of the zero, if not the gradient's.
    """
    small = tiny(dtype or g.dtype)
    return g.abs() > small**-0.5 if small < 1e-10 else torch.ones_like(g, dtype=torch.bool)


def signed(x: Tensor, epsilon: float | Tensor) -> Tensor:
    """`x + epsilon * sgn(x)` with `sgn(0) = +1` (a negative zero counts as negative: its relevance is 0 either way)."""
    scale = epsilon if isinstance(epsilon, Tensor) else torch.full((), epsilon, dtype=x.dtype, device=x.device)
    return added(torch.copysign(scale, x), x)


def in_parts(x: Tensor) -> Tensor:
    """The real and the imaginary part along a last axis, for complex numbers; real numbers as they are."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def from_parts(parts: Tensor, like: Tensor) -> Tensor:
    """What `in_parts` was given: complex numbers if `like` is."""
    return torch.view_as_complex(parts.contiguous()) if like.is_complex() else parts


def product(x: Tensor, g: Tensor) -> Tensor:
    """`x G`, the relevance of a tensor. A complex number has that of both its parts, `Re(x conj(G))`."""
    return (in_parts(x) * in_parts(g)).sum(-1) if x.is_complex() else x * g


def own(x: Tensor) -> bool:
    """Whether a backward pass may overwrite a tensor it made: a plain tensor, with no graph recorded and no vmap."""
    return not torch.is_grad_enabled() and type(x) is Tensor and not batched(x)


def added(a: Tensor, b: Tensor, factor: float = 1.0) -> Tensor:
    """`a + factor * b`. May overwrite `a`: pass a tensor that nothing else uses."""
    return a.add_(b, alpha=factor) if own(a) and a.shape == b.shape and not batched(b) else a.add(b, alpha=factor)


def times(a: Tensor, b: Tensor) -> Tensor:
    """`a * b`. May overwrite `a`: pass a tensor that nothing else uses."""
    fits = own(a) and a.shape == b.shape and a.dtype == b.dtype and not batched(b)
    return a.mul_(b) if fits else a * b


def finite(x: Tensor) -> Tensor:
    """`x`, and 0 where it is not finite. May overwrite `x`: pass a tensor that nothing else uses."""
    return (x.nan_to_num_ if own(x) else x.nan_to_num)(nan=0.0, posinf=0.0, neginf=0.0)


def quotient(a: Tensor, b: Tensor) -> Tensor:
    """`a / b`, and 0 where that is not finite. May overwrite `a`: pass a tensor that nothing else uses."""
    return finite(a.div_(b) if own(a) and a.shape == b.shape and not batched(b) else a / b)


def where_positive(a: Tensor, condition: Tensor) -> Tensor:
    """`a` where `condition > 0`, else 0: the backward pass of a relu, much faster than a mask."""
    return torch.ops.aten.threshold_backward(a, condition, 0)


def wide(x: Tensor) -> Tensor:
    """`x` in a dtype that holds a stabiliser: half precision becomes float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def known(test: Tensor, otherwise: bool) -> bool:
    """The truth of a test on values; while a graph is recorded, `otherwise`, which must be right for all values."""
    return otherwise if recording() else bool(test)


@contextmanager
def kept_here() -> Iterator[None]:
    """A context for a graph of our own: an enclosing checkpoint ignores what it saves, and nothing stays alive."""
    kept: list[Tensor] = []

    def keep(t: Tensor) -> int:
        kept.append(t)
        return len(kept) - 1

    try:
        with saved_tensors_hooks(keep, kept.__getitem__):
            yield
    finally:
        kept.clear()  # a node that holds its own result would never be freed


def aside() -> AbstractContextManager[object]:
    """A context for arithmetic on constants, whose results may be inspected: a graph being recorded leaves it out."""
    return unrecorded() if recording() else nullcontext()
