"""A call recorded as one graph of tensor operations, forward and backward passes alike."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx

from relprop.errors import UnsupportedOperationError
from relprop.torch_private.recorded import announced, looked_at, recorded, shape_that_depends_on_numbers

_lock = threading.Lock()


def record(call: Callable[..., Sequence[Tensor]], tensors: Sequence[Tensor]) -> fx.GraphModule:
    """Records `call` on tensors of these shapes as a graph, valid for any numbers.

    Tensors that `call` reads from elsewhere, such as a model's parameters, become attributes of the graph, not copies.

    Raises:
        UnsupportedOperationError: the operations or their shapes depend on the numbers.
    """
    try:
        graph = recorded(call, tensors)
    except RuntimeError as error:
        if not looked_at(error):
            raise
        try:
            with _lock, announced():
                graph = recorded(call, tensors)
        except (RuntimeError, UnsupportedOperationError):
            raise UnsupportedOperationError(
                f"the model looks at the numbers it computes, so that no one graph stands for it: {_place(error)}. "
                "Use relprop.attribute, or leave that test to the caller."
            ) from error
    graph.graph.eliminate_dead_code()
    graph.recompile()
    _check_shapes(graph, tensors)
    return graph


def _check_shapes(graph: fx.GraphModule, tensors: Sequence[Tensor]) -> None:
    """Refuses a graph whose shapes depend on the numbers: it would be wrong for other numbers."""
    function = shape_that_depends_on_numbers(graph, tensors)
    if function is not None:
        raise UnsupportedOperationError(
            f"the shapes inside the model depend on the numbers it computes ({function}), so that no one graph stands for "
            "it: a mixture that hands each expert its own tokens, for one. Use relprop.attribute."
        )


def _place(error: BaseException) -> str:
    """The line outside torch and relprop where an error arose."""
    inside = (os.path.dirname(torch.__file__), os.path.dirname(os.path.dirname(__file__)))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(inside)]
    if not frames:
        return "in one of its operations"
    return f"{frames[-1].filename}, line {frames[-1].lineno} ({frames[-1].line})"
