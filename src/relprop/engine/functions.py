"""The autograd functions behind the families. Backward passes are made of torch operations, so they differentiate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.torch_private.calls import applied

Share = float | Callable[[], float]
"""A factor, or where only the backward pass knows it, a function that gives it."""


class _Scaled(torch.autograd.Function):
    """The identity, with the gradient scaled."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, factor: Share) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g * (ctx.factor() if callable(ctx.factor) else ctx.factor), None


def scaled(x: Tensor, factor: Share) -> Tensor:
    """`x` with `factor` of its gradient. The answer is for internal operands: it is a view."""
    return applied(_Scaled, x, factor)


class _Custom(torch.autograd.Function):
    """`compute()` forward, `propagate(saved x, g)` backward: one live operand, any modified gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, compute: Callable[[], Tensor], propagate: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        y = compute()
        return y.data if y._is_view() else y  # a view made here could not be written into

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.propagate = inputs[2]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return ctx.propagate(x, g), None, None


def custom(x: Tensor, compute: Callable[[], Tensor], propagate: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """A fresh tensor with the value `compute()`, whose relevance goes to `x` by `propagate(x, g)`."""
    return applied(_Custom, x, compute, propagate)


class _Grafted(torch.autograd.Function):
    """The value of one tensor with the history of another."""

    generate_vmap_rule = True

    @staticmethod
    def forward(history: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g, None


def grafted(value: Tensor, history: Tensor) -> Tensor:
    """`value`, bit for bit, with `history`'s way back: for operations rewritten as visible steps."""
    return applied(_Grafted, history, value.detach())
