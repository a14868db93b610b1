"""Pooling: averages are linear; the winner of a maximum takes all unless a rule shares its relevance."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
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
from relprop.operations.kernels import unordered
from relprop.operations.sample_axes import pooled


class PoolWindows:
    """The windows of a pooling, for a rule; see `relprop.rules.Windows`.

    Args:
        total: the sum of each window.
        places: gives, for each pooled axis, where the entries of its windows lie (windows, size); -1 for none.
        shape: the shape of the input.
    """

    def __init__(
        self, total: Callable[[Tensor], Tensor], places: Callable[[], list[Tensor]], shape: torch.Size
    ) -> None:
        self._total, self._find, self._shape = total, places, shape

    def __call__(self, x: Tensor) -> Tensor:
        return self._total(x)

    def entries(self, x: Tensor, outside: float = -math.inf) -> Tensor:
        for n, at in enumerate(self._places):
            axis = self._lead + 2 * n  # each axis before it has become two
            x = x.index_select(axis, at.clamp(min=0).flatten()).unflatten(axis, at.shape)
        return self._together(x).masked_fill(~self._inside, outside)

    def collect(self, shares: Tensor) -> Tensor:
        dims, lead = len(self._places), self._lead
        x = shares.masked_fill(~self._inside, 0).unflatten(-1, [at.shape[1] for at in self._places])
        x = x.permute(*range(lead), *(lead + n + dims * part for n in range(dims) for part in (0, 1)))
        for n, at in reversed(list(enumerate(self._places))):
            axis = lead + 2 * n
            x = x.flatten(axis, axis + 1)
            whole = x.new_zeros(*x.shape[:axis], self._shape[lead + n], *x.shape[axis + 1 :])
            x = whole.index_add(axis, at.clamp(min=0).flatten(), x)
        return x

    @cached_property
    def _places(self) -> list[Tensor]:
        return self._find()

    @property
    def _lead(self) -> int:
        """The number of axes before those that are pooled."""
        return len(self._shape) - len(self._places)

    @cached_property
    def _inside(self) -> Tensor:
        """Which entries of windows lie in the input."""
        inside = torch.ones((), dtype=torch.bool, device=self._places[0].device)
        for at in self._places:
            inside = inside[..., None, None] & (at >= 0)
        return self._together(inside)

    def _together(self, x: Tensor) -> Tensor:
        """From (..., windows, size, windows, size) to (..., windows, windows, size * size)."""
        dims = len(self._places)
        lead = x.ndim - 2 * dims
        order = (lead + 2 * n + part for part in (0, 1) for n in range(dims))
        return x.permute(*range(lead), *order).flatten(-dims)


Sums = Callable[[Tensor], Tensor]
Places = Callable[[Tensor], list[Tensor]]
"""For each pooled axis of an input, where the entries of its windows lie (windows, size); -1 for none."""


def max_pool(windows_of: Callable[..., tuple[Sums, Places]]) -> Callable[..., Any]:
    """A handler for a maximum over windows. Without a rule, the winner takes all.

    Args:
        windows_of: gives the sums of windows and the places of their entries, from the sizes of the result and the
            options of the call.
    """

    def pool(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        if call.rule is None or call.formula is None:
            result = call.function(*call.args, **call.kwargs)
            selects(call, [input], result)
            return result
        value, rule = call(input.detach(), *args, **kwargs), call.formula
        y = value[0] if isinstance(value, tuple) else value
        sums, places = windows_of(y.shape, *args, **kwargs)

        def back(x: Tensor, g: Tensor) -> Tensor:
            largest = y
            if torch.is_grad_enabled():  # relevance is differentiated in its turn
                again = call(x, *args, **kwargs)
                largest = again[0] if isinstance(again, tuple) else again
            return rule.max_pool(x, largest, g, PoolWindows(sums, lambda: places(x), x.shape))

        pooled = custom(input, lambda: y.clone(), back)
        selects(call, [input], pooled)
        return (pooled, *value[1:]) if isinstance(value, tuple) else pooled

    return pool


def sliding(dims: int) -> Callable[..., tuple[Sums, Places]]:
    """The windows of a pooling with a kernel."""

    def windows_of(
        shape: torch.Size, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, *_: Any, **options: Any
    ) -> tuple[Sums, Places]:  # fmt: skip
        sizes = shape[-dims:]
        kernel, stride, padding, dilation = (
            per_axis(each, dims) for each in (kernel_size, stride or kernel_size, padding, dilation)
        )

        def sums(x: Tensor) -> Tensor:
            lone = x.ndim == dims + 1
            x = x[None] if lone else x
            weight = x.new_ones(x.shape[1], 1, *kernel)
            ends: list[int] = []
            for size, n, k, s, p, d in zip(x.shape[-dims:], sizes, kernel, stride, padding, dilation, strict=True):
                ends = [p, max(p, (n - 1) * s + d * (k - 1) + 1 - size - p), *ends]
            found = torch.convolution(
                F.pad(x, ends), weight, None, stride, [0] * dims, dilation, False, [0] * dims, x.shape[1]
            )
            found = found[tuple([slice(None)] * 2 + [slice(0, n) for n in sizes])]
            return found[0] if lone else found

        def places(x: Tensor) -> list[Tensor]:
            found = []
            for length, n, k, s, p, d in zip(x.shape[-dims:], sizes, kernel, stride, padding, dilation, strict=True):
                at = torch.arange(n, device=x.device)[:, None] * s - p + torch.arange(k, device=x.device) * d
                found.append(at.where((at >= 0) & (at < length), -1))
            return found

        return sums, places

    return windows_of


def adaptive(dims: int) -> Callable[..., tuple[Sums, Places]]:
    """The windows of an adaptive pooling: window i of n covers floor(i L / n) to ceil((i + 1) L / n)."""
    average = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[dims - 1]

    def windows_of(shape: torch.Size, *_: Any, **options: Any) -> tuple[Sums, Places]:
        sizes: Any = shape[-dims:]

        def sums(x: Tensor) -> Tensor:
            counts = x.new_ones(())
            for length, n in zip(x.shape[-dims:], sizes, strict=True):
                held = [-(-(i + 1) * length // n) - i * length // n for i in range(n)]
                counts = counts[..., None] * x.new_tensor(held)
            return average(x, sizes) * counts

        def places(x: Tensor) -> list[Tensor]:
            found = []
            for length, n in zip(x.shape[-dims:], sizes, strict=True):
                i = torch.arange(n, device=x.device)[:, None]
                at = i * length // n + torch.arange(-(-length // n) + 1, device=x.device)
                found.append(at.where(at < -(-(i + 1) * length // n), -1))
            return found

        return sums, places

    return windows_of


def lp_pool(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`(sum |x|^p)^(1/p)` is homogeneous of degree 1: the native gradient conserves. A window of zeros gets none."""

    def back(x: Tensor, g: Tensor) -> Tensor:
        with torch.enable_grad():
            inner = x.detach().requires_grad_()
            y = call(inner, *args, **kwargs)
        return torch.autograd.grad(y, inner, g)[0].nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)

    return custom(input, lambda: call(input.detach(), *args, **kwargs), back)


def largest(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """The winner takes all: the native gradient."""
    result = call()
    selects(call, [input], result)
    return result


_AVERAGES: list[list[Any]] = [
    [F.avg_pool1d, F.adaptive_avg_pool1d],
    [F.avg_pool2d, F.adaptive_avg_pool2d],
    [F.avg_pool3d, F.adaptive_avg_pool3d],
]
_LARGEST: list[list[Any]] = [
    [torch.max_pool1d, F.max_pool1d],
    [torch.max_pool2d, F.max_pool2d],
    [torch.max_pool3d, F.max_pool3d],
]
_WITH_INDICES: list[list[Any]] = [
    [torch.max_pool1d_with_indices, F.max_pool1d_with_indices],
    [F.max_pool2d_with_indices],
    [F.max_pool3d_with_indices],
]
_ADAPTIVE: list[Any] = [F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d]
_ADAPTIVE_WITH_INDICES: list[Any] = [
    F.adaptive_max_pool1d_with_indices,
    F.adaptive_max_pool2d_with_indices,
    F.adaptive_max_pool3d_with_indices,
]
_POWERS: list[Any] = [F.lp_pool1d, F.lp_pool2d, F.lp_pool3d]
for _dims in (1, 2, 3):
    _n, _apart = _dims - 1, pooled(_dims)
    register(*_AVERAGES[_n], family="avg_pool", traits={REDUCES}, apart=_apart)
    register(_POWERS[_n], family="avg_pool", handler=lp_pool, apart=_apart)
    _other = unordered if _dims == 1 else None
    register(*_LARGEST[_n], family="max_pool", handler=max_pool(sliding(_dims)), apart=_apart, other_kernel=_other)
    register(*_WITH_INDICES[_n], family="max_pool", handler=max_pool(sliding(_dims)), apart=_apart)
    register(_ADAPTIVE[_n], family="max_pool", handler=max_pool(adaptive(_dims)), apart=_apart)
    register(_ADAPTIVE_WITH_INDICES[_n], family="selection", handler=largest, apart=_apart)
register(
    F.fractional_max_pool2d, F.fractional_max_pool3d, F.fractional_max_pool2d_with_indices, F.fractional_max_pool3d_with_indices,
    F.max_unpool1d, F.max_unpool2d, F.max_unpool3d,
    family="selection", handler=largest,
)  # fmt: skip
