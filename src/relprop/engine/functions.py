"""The autograd functions behind the families. Their backward passes are torch operations, hence differentiable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.torch_private.calls import applied

Share = float | Callable[[], float]
"""A factor, or a function that gives it if only the backward pass knows it."""


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
    """`x` with its gradient times `factor`. The result is a view, for internal operands only."""
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
    """A fresh tensor with the value `compute()`. Its relevance goes to `x` by `propagate(x, g)`."""
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
    """`value`, bit for bit, with the backward pass of `history`: for operations rewritten as visible steps."""
    return applied(_Grafted, history, value.detach())
