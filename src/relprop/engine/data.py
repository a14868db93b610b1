"""`tensor.data`: writes through it bypass autograd, and must still be seen."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.parameter import is_lazy

from relprop.engine.run import Run
from relprop.errors import UnsupportedOperationError

_DATA: Any = Tensor.data
GET, SET = _DATA.__get__, _DATA.__set__


def read(tensor: Tensor) -> Tensor:
    """The same numbers in the same memory, with the same version counter, so that later writes are noticed."""
    return GET(tensor) if is_lazy(tensor) else tensor.detach()


def assign(run: Run, tensor: Tensor, value: Tensor) -> None:
    """`tensor.data = value` for a parameter, a buffer or another constant.

    Raises:
        UnsupportedOperationError: the tensor carries relevance, which would go to its old operands.
    """
    if tensor.requires_grad and not tensor.is_leaf:
        raise UnsupportedOperationError(
            f"tensor.data = ... in {run.where()} gives new numbers to a tensor that carries relevance, unseen by autograd. "
            "Give the variable the new tensor instead: x = ... for x.data = ..."
        )
    if value.requires_grad:
        run.trace.cut("tensor.data = ...", "", value, value)
        value = value.detach()
    SET(tensor, value)
