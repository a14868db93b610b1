"""Secants from zero, `(f(x) - f(0)) / x`; near 0 by the first terms of the Taylor series."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relprop.engine.origins import ChainStep
from relprop.numerics import aside, kept_here, nonzero
from relprop.operations.closed_secants import closed, is_sigmoid, of_sigmoid

_NEAR = 1e-5  # below this a difference quotient in float64 has fewer digits than the first two Taylor terms


def is_scalar(value: Any) -> bool:
    return not isinstance(value, Tensor) or value.ndim == 0


def secant(step: ChainStep, s: Tensor, nz: bool) -> Tensor:
    """`(h(s) - h(0)) / s`, with the slope at 0 if `s` is 0. With `nz`, a zero output passes on its relevance.

    The result is a tensor of its own.
    """
    if not nz and is_sigmoid(step):
        return of_sigmoid(s)
    if not nz and (form := closed(step, s)) is not None and _taylor(step, s.dtype, s.device).null:
        return form(s)
    exact = s if s.dtype == torch.float64 or s.device.type == "mps" else None
    if exact is None and s.dtype == torch.float32 and _taylor(step, s.dtype, s.device).null:
        exact = s  # h(0) = 0: the difference loses no digits
    x = s.double() if exact is None else exact
    slope, curve, at_zero, _, null, smooth = _taylor(step, x.dtype, x.device)
    y = step(x)
    if null:
        fresh = not torch.is_grad_enabled() and y is not x
        factor = y.div_(x) if fresh and not nz else y / x
        factor = (factor.nan_to_num_ if fresh else factor.nan_to_num)(nan=slope, posinf=0.0, neginf=0.0)
    else:
        near = x.abs() < _NEAR if smooth else x == 0  # a root has no Taylor series at 0
        factor = torch.where(near, slope + curve * x / 2, (y - at_zero) / torch.where(near, torch.ones_like(x), x))
    if nz:
        factor = torch.where(y == 0, nonzero(y) / nonzero(x), factor)
    return factor.to(s.dtype)


class Expansion(NamedTuple):
    """`h'(0)`, `h''(0)` and `h(0)`; whether the last is finite, and 0; whether both derivatives are finite."""

    slope: float
    curve: float
    value: Tensor
    finite: bool
    null: bool
    smooth: bool


def _taylor(step: ChainStep, dtype: torch.dtype, device: torch.device) -> Expansion:
    """The expansion of a chain at 0, cached for functions whose parameters are plain numbers."""
    try:
        return _remembered(step.function, step.args, tuple(step.kwargs.items()), dtype, device)
    except TypeError:  # a parameter that is not hashable
        return _expand(step, dtype, device)


@lru_cache(maxsize=512)
def _remembered(
    function: Callable[..., Any], args: tuple, kwargs: tuple, dtype: torch.dtype, device: torch.device
) -> Expansion:
    if any(isinstance(a, (Tensor, ChainStep)) for a in (*args, *(v for _, v in kwargs))):
        raise TypeError("tensors and chains are not remembered")
    return _expand(ChainStep(function, args, dict(kwargs)), dtype, device)


def _expand(step: ChainStep, dtype: torch.dtype, device: torch.device) -> Expansion:
    """Derivatives that do not exist or are infinite count as 0."""
    with aside(), torch.enable_grad(), kept_here():
        zero = torch.zeros(1, dtype=dtype, device=device, requires_grad=True)
        y = step(zero)
        slope = curve = torch.zeros(())
        try:
            if y.requires_grad:
                (slope,) = torch.autograd.grad(y.sum(), zero, create_graph=True)
                if slope.requires_grad:
                    (curve,) = torch.autograd.grad(slope, zero)
        except RuntimeError:
            pass
        derivatives = float(slope.detach()), float(curve.detach())
        s, c = (v if isfinite(v) else 0.0 for v in derivatives)
        value = y.detach() if y.numel() > 1 else y.detach().reshape(())
        finite, null = bool(torch.isfinite(value).all()), bool((value == 0).all())
        return Expansion(s, c, value, finite, null, all(map(isfinite, derivatives)))


def finite_at_zero(step: ChainStep, s: Tensor) -> bool:
    as_it_is = s.device.type == "mps" or not s.is_floating_point()
    return _taylor(step, s.dtype if as_it_is else torch.float64, s.device).finite


def secant_of(function: Callable[[Tensor], Tensor], s: Tensor) -> Tensor:
    """`(f(s) - f(0)) / s`, with the slope at 0 if `s` is near 0."""
    with torch.enable_grad(), kept_here():
        zero = torch.zeros_like(s, requires_grad=True)
        at_zero = function(zero)
        (slope,) = torch.autograd.grad(at_zero.sum(), zero)
    near = torch.where(torch.isfinite(slope), s.abs() < _NEAR, s == 0)
    rise = (function(s) - at_zero.detach()) / torch.where(near, torch.ones_like(s), s)
    return torch.where(near, slope, rise).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
