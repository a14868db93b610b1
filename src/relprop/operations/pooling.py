"""Pooling: averages are linear; the winner of a maximum takes all unless a rule shares its relevance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import custom
from relprop.engine.registry import register
from relprop.engine.roles import selects
from relprop.engine.tensors import per_axis
from relprop.engine.traits import REDUCES


def max_pool(dims: int, with_indices: bool = False) -> Callable[..., Any]:
    def pool(
        call: Call, input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = False, **kwargs: Any,
    ) -> Any:  # fmt: skip
        if call.rule is None or call.formula is None:
            result = call.function(*call.args, **call.kwargs)
            selects(call, [input], result)
            return result
        return _shared(call, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices or with_indices)

    def _shared(call, input, kernel, stride, padding, dilation, ceil_mode, indices):  # type: ignore[no-untyped-def]
        value = call(input.detach(), *call.args[1:], **call.kwargs)
        y = value[0] if indices else value
        rule = call.formula
        kernel, stride, padding, dilation = (
            per_axis(kernel, dims),
            per_axis(stride or kernel, dims),
            per_axis(padding, dims),
            per_axis(dilation, dims),
        )

        def window_sum(x: Tensor) -> Tensor:
            lone = x.ndim == dims + 1
            x = x[None] if lone else x
            weight = x.new_ones(x.shape[1], 1, *kernel)
            sizes = y.shape[-dims:]
            ends: list[int] = []
            for size, n, k, s, p, d in zip(x.shape[-dims:], sizes, kernel, stride, padding, dilation, strict=True):
                ends = [p, max(p, (n - 1) * s + d * (k - 1) + 1 - size - p), *ends]
            total = torch.convolution(
                F.pad(x, ends), weight, None, stride, [0] * dims, dilation, False, [0] * dims, x.shape[1]
            )
            total = total[tuple([slice(None)] * 2 + [slice(0, n) for n in sizes])]
            return total[0] if lone else total

        pooled = custom(input, lambda: y.clone(), lambda x, g: rule.max_pool(x, y, g, window_sum))
        selects(call, [input], pooled)
        return (pooled, value[1]) if indices else pooled

    return pool


def largest(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """The winner takes all: the native gradient."""
    result = call()
    selects(call, [input], result)
    return result


def adaptive_max_pool(dims: int) -> Callable[..., Any]:
    average = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[dims - 1]

    def pool(call: Call, input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
        if call.formula is None:
            return largest(call, input)
        value = (
            call(input.detach(), output_size, return_indices) if return_indices else call(input.detach(), output_size)
        )
        y, rule = (value[0] if return_indices else value), call.formula
        counts = y.new_ones(())
        for axis in range(dims):  # window i of n covers floor(i L / n) to ceil((i + 1) L / n)
            length, n = input.shape[axis - dims], y.shape[axis - dims]
            sizes = [-(-(i + 1) * length // n) - i * length // n for i in range(n)]
            counts = counts[..., None] * y.new_tensor(sizes)

        def windows(x: Tensor) -> Tensor:
            return average(x, y.shape[-dims:]) * counts

        pooled = custom(input, lambda: y.clone(), lambda x, g: rule.max_pool(x, y, g, windows))
        selects(call, [input], pooled)
        return (pooled, value[1]) if return_indices else pooled

    return pool


def lp_pool(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`(sum |x|^p)^(1/p)` is homogeneous of degree 1: the native gradient conserves. A window of zeros gets none."""

    def back(x: Tensor, g: Tensor) -> Tensor:
        with torch.enable_grad():
            inner = x.detach().requires_grad_()
            y = call(inner, *args, **kwargs)
        return torch.autograd.grad(y, inner, g)[0].nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)

    return custom(input, lambda: call(input.detach(), *args, **kwargs), back)


register(
    F.avg_pool1d, F.avg_pool2d, F.avg_pool3d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d,
    family="avg_pool", traits={REDUCES},
)  # fmt: skip
register(F.lp_pool1d, F.lp_pool2d, F.lp_pool3d, family="avg_pool", handler=lp_pool)
for _dims, _functions in (
    (1, (torch.max_pool1d, F.max_pool1d)),
    (2, (torch.max_pool2d, F.max_pool2d)),
    (3, (torch.max_pool3d, F.max_pool3d)),
):
    register(*_functions, family="max_pool", handler=max_pool(_dims))
register(torch.max_pool1d_with_indices, F.max_pool1d_with_indices, family="max_pool", handler=max_pool(1, True))
register(F.max_pool2d_with_indices, family="max_pool", handler=max_pool(2, True))
register(F.max_pool3d_with_indices, family="max_pool", handler=max_pool(3, True))
register(
    F.adaptive_max_pool1d_with_indices, F.adaptive_max_pool2d_with_indices, F.adaptive_max_pool3d_with_indices, F.fractional_max_pool2d,
    F.fractional_max_pool3d, F.fractional_max_pool2d_with_indices, F.fractional_max_pool3d_with_indices,
    F.max_unpool1d, F.max_unpool2d, F.max_unpool3d,
    family="selection", handler=largest,
)  # fmt: skip
for _dims, _function in ((1, F.adaptive_max_pool1d), (2, F.adaptive_max_pool2d), (3, F.adaptive_max_pool3d)):
    register(_function, family="max_pool", handler=adaptive_max_pool(_dims))
