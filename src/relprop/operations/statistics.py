"""Statistics: means and sums are linear; variances and lengths are homogeneous, and share by their degree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import grafted, scaled
from relprop.engine.registry import native, register
from relprop.engine.tensors import is_live
from relprop.engine.traits import REDUCES
from relprop.numerics import known
from relprop.operations.activations import STATISTIC
from relprop.operations.kernels import nuclear
from relprop.operations.lengths import SQUARES
from relprop.operations.sample_axes import along_axis
from relprop.operations.stacks import elementwise_sum, parts_of, with_axis


def degree(k: int) -> Callable[..., Any]:
    """Positively homogeneous of degree k, jointly in its live operands: the native gradient over k conserves (Euler)."""

    def handler(call: Call, *args: Any, **kwargs: Any) -> Any:
        args = tuple(scaled(a, 1 / k) if is_live(a) and k > 1 else a for a in args)
        y = call(*args, **kwargs) if args else call()
        for t in y if isinstance(y, tuple) else (y,):
            if isinstance(t, Tensor) and t.requires_grad:
                # of several results, an unused one receives nothing
                t.register_hook(lambda g: g if g is None else g.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))
        return y

    return handler


def hypot(call: Call, input: Tensor, other: Tensor) -> Tensor:
    """`sqrt(a^2 + b^2)`. Where both are 0, torch's gradient is NaN: nothing passes, as in a norm of zeros."""
    y: Tensor = call(input, other)
    dead = y.detach() == 0
    if not known(dead.any(), True):
        return y
    a, b = (t.masked_fill(dead, 1) for t in torch.broadcast_tensors(input, other))
    return grafted(y, call(a, b).masked_fill(dead, 0))


def var_mean(call: Call, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Two degrees in one call: the mean gets back the half that the variance gives up."""
    var, mean = degree(2)(call, *args, **kwargs)
    return (var, scaled(mean, 2).clone()) if mean.requires_grad else (var, mean)


def total(call: Call, input: Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Tensor:
    """A sum or a mean: linear. Along the axis of a stack, it is the sum of the operands, and no statistic."""
    parts = None if kwargs or dim is None else parts_of(call, input, dim)
    if parts is None:
        return call()
    y: Tensor = call.function(input, dim)
    elementwise_sum(call, parts, y)
    call.give(y, STATISTIC, False)
    return with_axis(call, y, input, dim) if keepdim else y


register(
    torch.mean, torch.sum,
    family="sum", handler=total, traits={REDUCES}, gives={STATISTIC: True}, apart=along_axis(1, "dim", "axis"),
)  # fmt: skip
register(
    torch.nansum, family="sum", handler=native, traits={REDUCES}, gives={STATISTIC: True}, apart=along_axis(1, "dim", "axis"),
)  # fmt: skip
register(torch.nanmean, torch.trace, family="sum", handler=native, traits={REDUCES}, gives={STATISTIC: True})
register(
    torch.var,
    family="norm",
    handler=degree(2),
    gives={STATISTIC: True, SQUARES: True},
    apart=along_axis(1, "dim", "axis"),
)
register(torch.std, family="norm", handler=degree(1), gives={STATISTIC: True}, apart=along_axis(1, "dim", "axis"))
register(
    torch.norm,
    family="norm",
    handler=degree(1),
    gives={STATISTIC: True},
    apart=along_axis(2, "dim"),
    other_kernel=nuclear,
)
register(torch.var_mean, family="norm", handler=var_mean, gives={STATISTIC: True})
register(
    torch.linalg.norm, torch.linalg.matrix_norm, torch.nuclear_norm,
    family="norm", handler=degree(1), gives={STATISTIC: True}, other_kernel=nuclear,
)  # fmt: skip
register(
    torch.std_mean, torch.linalg.vector_norm, torch.cdist, torch.dist, torch.pdist, torch.nn.functional.pairwise_distance,
    torch.renorm, torch.frobenius_norm, torch.native_norm, torch.norm_except_dim,
    family="norm", handler=degree(1), gives={STATISTIC: True},
)  # fmt: skip
register(torch.hypot, family="norm", handler=hypot, gives={STATISTIC: True})
