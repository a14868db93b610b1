"""The autograd functions behind the families. Their backward passes are torch operations, hence differentiable."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.errors import RelpropWarning, RuleError
from relprop.torch_private.calls import applied
from relprop.torch_private.recorded import recording

Share = float | Callable[[], float]
"""A factor, or a function that gives it if only the backward pass knows it."""
Propagate = Callable[[Tensor, Tensor], Tensor]
"""From the saved operand and `G` at the result to `G` at the operand."""

_NOT_THE_DERIVATIVE = (
    "relevance is differentiated through a hidden operation whose backward pass is not the plain gradient: the result is "
    "not exactly the derivative of relevance, and may be far from it. It is exact for the composite 'zero' on a network of "
    "relus; elsewhere compare it with differences of relevance."
)


class _Scaled(torch.autograd.Function):
    """The identity, with the gradient scaled."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, factor: Share) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.factor, ctx.differentiable = inputs[1], False

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        if torch.is_grad_enabled():
            ctx.differentiable = True
        elif ctx.differentiable:  # the derivative is passed back through a gradient that was scaled for relevance
            warnings.warn(_NOT_THE_DERIVATIVE, RelpropWarning, stacklevel=2)
        return g * (ctx.factor() if callable(ctx.factor) else ctx.factor), None


def scaled(x: Tensor, factor: Share) -> Tensor:
    """`x` with its gradient times `factor`. The result is a view, for internal operands only."""
    return applied(_Scaled, x, factor)


class _Hidden(torch.autograd.Function):
    """The identity on a hidden tensor that a rule reads. Its backward pass warns."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        warnings.warn(_NOT_THE_DERIVATIVE, RelpropWarning, stacklevel=2)
        return g


def read_by_rule(x: Tensor) -> Tensor:
    """A saved operand for a rule in a backward pass that is recorded. A derivative by it, not by a seed alone, warns."""
    return x if x.grad_fn is None or recording() else applied(_Hidden, x)


class _Custom(torch.autograd.Function):
    """`compute()` forward, `propagate(saved x, g)` backward: one live operand, any modified gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, compute: Callable[[], Tensor], propagate: Propagate) -> Tensor:
        y = compute()
        return y.data if y._is_view() else y  # a view made here could not be written into

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.propagate = inputs[2]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        found = ctx.propagate(read_by_rule(x) if torch.is_grad_enabled() else x, g)
        if found is None:
            raise RuleError("a rule returned None: its method returns G at the input, a tensor in the input's shape.")
        return found, None, None


def custom(x: Tensor, compute: Callable[[], Tensor], propagate: Propagate) -> Tensor:
    """A fresh tensor with the value `compute()`. Its relevance goes to `x` by `propagate(x, g)`."""
    return applied(_Custom, x, compute, propagate)


class _Mapped(torch.autograd.Function):
    """`compute()` forward, `back(g)` backward, which reads `constants` but not the operand."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, compute: Callable[[], Tensor], back: Callable[..., Tensor], *constants: Any) -> Tensor:
        y = compute()
        return y.data if y._is_view() else y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[3:])
        ctx.back = inputs[2]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        constants = ctx.saved_tensors
        return ctx.back(g, *constants), None, None, *(None for _ in constants)


def mapped(x: Tensor, compute: Callable[[], Tensor], back: Callable[..., Tensor], *constants: Tensor | None) -> Tensor:
    """A fresh tensor with the value `compute()`. Its relevance goes to `x` by `back(g, *constants)`.

    It saves the constants and not `x`. If the model overwrites one of them, the backward pass is refused, as torch's is.
    """
    return applied(_Mapped, x, compute, back, *constants)


class _Written(torch.autograd.Function):
    """`write()` overwrites `target`, whose relevance then goes to `x` by `propagate(saved x, g)`."""

    @staticmethod
    def forward(target: Tensor, x: Tensor, write: Callable[[], object], propagate: Propagate) -> Tensor:
        write()
        return target

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.mark_dirty(inputs[0])
        ctx.save_for_backward(inputs[1])
        ctx.propagate = inputs[3]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return None, ctx.propagate(read_by_rule(x) if torch.is_grad_enabled() else x, g), None, None


def written(target: Tensor, x: Tensor, write: Callable[[], object], propagate: Propagate) -> Tensor:
    """`target`, after `write()` has overwritten it. Its relevance goes to `x`, which must lie in other memory."""
    return applied(_Written, target, x, write, propagate)


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
