"""Linear systems, linear in the right side if the matrix is a constant; matrix powers, products of equal factors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import scaled
from relprop.engine.registry import register
from relprop.engine.spelling import named


def right_side(position: int, name: str) -> Callable[..., Any]:
    """For an operation that is linear in its operand at `position`, or of that `name`."""

    def solve(call: Call, *args: Any, **kwargs: Any) -> Any:
        side = args[position] if len(args) > position else kwargs.get(name)
        if len(call.live) > 1 or call.live[0] is not side:
            raise call.error(
                "the matrix of a linear system carries relevance, and there is no propagation rule for its inverse. "
                f'Detach it to take it for a constant; or relprop.register({_named(call)}, family="structure", replace=True) '
                "to use the gradient."
            )
        return call()

    return solve


def _named(call: Call) -> str:
    return torch.overrides.resolve_name(call.entry.function) or call.entry.function.__name__


def matrix_power(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """`A A ... A` gives `1 / n` to each of its n factors, as any product does. A negative power is an inverse."""
    n = args[1] if len(args) > 1 else kwargs["n"]
    if n < 0:
        raise call.error(
            f"the power {n} of a matrix is that of its inverse, for which there is no propagation rule. "
            f'relprop.register({_named(call)}, family="structure", replace=True) uses the gradient.'
        )
    if n < 2:
        return call()
    rest = {key: a for key, a in kwargs.items() if key not in ("input", "A")}
    return call(scaled(call.live[0], 1 / n), *args[1:], **rest)


for _names, _position, _name in (
    ("solve solve_ex", 1, "B"),
    ("tensorsolve lstsq", 1, "B"),
    ("cholesky_solve triangular_solve", 0, "input"),
    ("ormqr", 2, "other"),
):
    for _function in named(_names):
        register(_function, family="structure", handler=right_side(_position, _name), only=True)
# torch.lu_solve(B, LU, pivots), torch.linalg.lu_solve(LU, pivots, B)
register(torch.lu_solve, Tensor.lu_solve, family="structure", handler=right_side(0, "input"), only=True)
register(torch.linalg.lu_solve, family="structure", handler=right_side(2, "B"), only=True)
register(*named("matrix_power"), family="product", handler=matrix_power, only=True)
