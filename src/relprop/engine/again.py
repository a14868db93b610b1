"""Operations of the model as functions that can be run again, on other operands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from relprop.engine.tensors import exchanged

_OPERAND = object()


def as_function_of(function: Callable[..., Any], operand: Tensor, args: tuple, kwargs: dict) -> Callable[[Tensor], Any]:
    """An operation as a function of one operand. It does not hold the operand, which may hold this function."""
    args, kwargs = exchanged(args, operand, _OPERAND), exchanged(kwargs, operand, _OPERAND)

    def again(t: Tensor) -> Any:
        return function(*exchanged(args, _OPERAND, t), **exchanged(kwargs, _OPERAND, t))

    return again


def on_a_copy(function: Callable[..., Any]) -> Callable[..., Tensor]:
    """An operation that writes into its first operand as one that makes a new tensor."""

    def again(target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        made = target.clone()
        function(made, *args, **kwargs)
        return made

    return again


def part_of(step: Callable[[Tensor], Any], n: int) -> Callable[[Tensor], Any]:
    """A function of which only one result is wanted."""
    return lambda t: step(t)[n]
