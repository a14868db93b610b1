"""Errors for operations that cannot be followed: the operands, the place, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.engine.run import Run
from relprop.errors import ModelStateError, UnsupportedOperationError
from relprop.torch_private.names import NESTED, registered

COMPILED = (
    "code that PyTorch's function modes cannot see: a TorchScript function or a C++ extension. Use the Python function it "
    "was made from, or pass strict=False to use its gradient."
)


def unknown(run: Run, function: Callable[..., Any], args: tuple, reason: str = "") -> UnsupportedOperationError:
    """The error for an operation that is in no family, or is refused for a reason."""
    again = ", replace=True" if reason else ""  # it is already registered, as refused
    register = (  # a reason with a colon contains its own advice
        f'If you know how relevance passes it: relprop.register({_qualified(function)}, family="structure"{again}) where it '
        'is linear, "activation" where it is elementwise. '
    )
    return UnsupportedOperationError(
        f"{called(function)} in {run.where()}, given {shapes(args)}: {reason or 'it is in no family of operations'}. "
        f"{'' if ':' in reason else register}Or pass strict=False to use its gradient."
    )


def unseen(run: Run, value: Tensor, maker: str) -> UnsupportedOperationError:
    """The error for a tensor that was made where the mode cannot see."""
    return UnsupportedOperationError(f"in {run.where()} a tensor of shape {tuple(value.shape)} was made by {maker}")


def transformed(run: Run) -> UnsupportedOperationError:
    """The error for a torch.func transform."""
    return UnsupportedOperationError(
        f"a torch.func transform (vmap, grad, jvp, ...) runs in {run.where()}: relevance cannot be "
        "followed through it, and a gradient that it takes would be another number under relprop's rules. Write that part of "
        "the model for a batch, without the transform; or, where it may count as a constant, give it x.detach()."
    )


def written_out(run: Run, function: Callable[..., Any]) -> UnsupportedOperationError:
    """The error for `out=`."""
    return UnsupportedOperationError(
        f"{called(function)}(out=...) in {run.where()}: relevance cannot follow a result that "
        "is written into another tensor. Use the returned value instead of out=."
    )


def refuse_training(what: str, run: Run) -> ModelStateError:
    """The error for a layer that draws random numbers or changes its statistics."""
    return ModelStateError(
        f"{what} in {run.where()} is in training mode: call model.eval() before explaining a decision."
    )


def called(function: Callable[..., Any]) -> str:
    """The name of an operation. A property, such as `x.data`, arrives as the `__get__` of its descriptor."""
    name = getattr(function, "__name__", str(function))
    if name == "__get__":
        name = getattr(getattr(function, "__self__", None), "__name__", name)
    return str(name)


def shapes(args: Any) -> str:
    """The shapes of an operation's operands."""
    if isinstance(args, Tensor):
        return "a nested tensor" if args.is_nested else str(tuple(args.shape))
    if isinstance(args, (list, tuple)):
        return ", ".join(text for text in map(shapes, args) if text) or "no tensor"
    return ""


def _qualified(function: Callable[..., Any]) -> str:
    """The expression that names a function."""
    if registered(function):
        return f"torch.ops.{function}"
    try:
        name = torch.overrides.resolve_name(function)
    except Exception:  # not a function of torch's own namespaces
        name = None
    if name:
        return name
    name, home = called(function), getattr(function, "__module__", None)
    for space, held in (("torch", torch), *NESTED.items()):
        if getattr(held, name, None) == function:
            return f"{space}.{name}"
    return f"{home}.{function.__qualname__}" if home else name
