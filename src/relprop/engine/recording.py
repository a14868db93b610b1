"""A call recorded as one graph of tensor operations, forward and backward passes alike."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, fx

from relprop.errors import UnsupportedOperationError

_lock = threading.Lock()


def record(call: Callable[..., Sequence[Tensor]], tensors: Sequence[Tensor]) -> fx.GraphModule:
    """What `call` does with tensors of these shapes, as a graph that does it with any numbers.

    Tensors that `call` reads from elsewhere, such as a model's parameters, are attributes of the graph: not copies.

    Raises:
        UnsupportedOperationError: what is done, or its shapes, depends on the numbers.
    """
    try:
        graph = _made(call, tensors)
    except RuntimeError as error:
        if "value out of a tracing tensor" not in str(error):
            raise
        try:
            with _lock, _announced():
                graph = _made(call, tensors)
        except (RuntimeError, UnsupportedOperationError):
            raise UnsupportedOperationError(
                f"the model looks at the numbers it computes, so that no one graph stands for it: {_place(error)}. "
                "Use relprop.attribute, or leave that test to the caller."
            ) from error
    graph.graph.eliminate_dead_code()
    graph.recompile()
    _check_shapes(graph, tensors)
    return graph


def _made(call: Callable[..., Sequence[Tensor]], tensors: Sequence[Tensor]) -> fx.GraphModule:
    import torch._dynamo.config
    from torch.fx.experimental.proxy_tensor import make_fx

    # compiled parts of a model run as the Python they were made of
    with torch._dynamo.config.patch(error_on_nested_fx_trace=False):
        return make_fx(call, tracing_mode="real")(*tensors)


@contextmanager
def _announced() -> Iterator[None]:
    """`torch.compiler.is_compiling()` says so, as for torch's own compiler: some models then skip tests on their inputs."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before


def _check_shapes(graph: fx.GraphModule, tensors: Sequence[Tensor]) -> None:
    """Refuses a graph in which the numbers decide on the shapes: it would be wrong for others."""
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    try:
        with torch.no_grad():
            FakeTensorProp(graph, FakeTensorMode(allow_non_fake_inputs=True)).propagate(*tensors)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise UnsupportedOperationError(
            f"the shapes inside the model depend on the numbers it computes ({error.func}), so that no one graph stands for "
            "it: a mixture that hands each expert its own tokens, for one. Use relprop.attribute."
        ) from error


def _place(error: BaseException) -> str:
    """The line outside torch and relprop where an error arose."""
    inside = (os.path.dirname(torch.__file__), os.path.dirname(os.path.dirname(__file__)))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(inside)]
    if not frames:
        return "in one of its operations"
    return f"{frames[-1].filename}, line {frames[-1].lineno} ({frames[-1].line})"
