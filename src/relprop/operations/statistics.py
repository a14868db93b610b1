"""Statistics: means and sums are linear; variances and lengths are homogeneous, and share by their degree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import scaled
from relprop.engine.notes import Note
from relprop.engine.registry import register


def _live(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def statistic(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """A mean or sum: linear. What is computed from it elementwise may be a normaliser."""
    y = call()
    if call.run.nz and y.requires_grad and call.place is not None and call.entry.function is torch.sum:
        x = args[0]
        if isinstance(x, Tensor):
            dead = (y.detach() == 0).to(y.dtype)
            count = max(1, x.numel() // max(1, y.numel()))
            y = y + 0
            y.register_hook(lambda g: g * (1 - dead * (1 - 1 / count)))
    for t in y if isinstance(y, tuple) else (y,):
        note = Note(call.run)
        note.statistic = True
        if isinstance(t, Tensor) and t.requires_grad:
            t._relprop = note  # type: ignore[attr-defined]
    return y


def degree(k: int) -> Callable[..., Any]:
    """Positively homogeneous of degree k, jointly in its live operands: the native gradient over k conserves (Euler)."""

    def handler(call: Call, *args: Any, **kwargs: Any) -> Any:
        args = tuple(scaled(a, 1 / k) if _live(a) and k > 1 else a for a in args)
        y = call(*args, **kwargs) if args else call()
        for t in y if isinstance(y, tuple) else (y,):
            if isinstance(t, Tensor) and t.requires_grad:
                # one of several results may be unused: nothing arrives there
                t.register_hook(lambda g: g if g is None else g.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))
                note = Note(call.run)
                note.statistic = True
                t._relprop = note  # type: ignore[attr-defined]
        return y

    return handler


def var_mean(call: Call, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Two degrees in one call: the mean gets back the half that the variance gives up."""
    var, mean = degree(2)(call, *args, **kwargs)
    return (var, scaled(mean, 2).clone()) if mean.requires_grad else (var, mean)


register(torch.mean, torch.sum, torch.nansum, torch.nanmean, torch.trace, family="sum", handler=statistic)
register(torch.var, family="norm", handler=degree(2))
register(torch.var_mean, family="norm", handler=var_mean)
register(
    torch.std, torch.std_mean, torch.norm, torch.linalg.norm, torch.linalg.vector_norm, torch.linalg.matrix_norm,
    torch.cdist, torch.dist, torch.hypot, torch.pdist, torch.nn.functional.pairwise_distance,
    torch.renorm, torch.frobenius_norm, torch.nuclear_norm, torch.native_norm, torch.norm_except_dim,
    family="norm", handler=degree(1),
)  # fmt: skip
