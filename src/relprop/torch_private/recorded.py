"""Recorded graphs: `relprop.compile`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from relprop.torch_private.finding import lacking, part

_dispatch_mode: Callable[[Any], Any] | None = part("_C._get_dispatch_mode")
_PROXY = part("_C._TorchDispatchModeKey.PROXY")


def recording() -> bool:
    """Whether a graph is being recorded (`relprop.compile`): the call must then not branch on values of tensors.

    Seen on 2.9 to 2.14. Without it, `recorded` raises an error.
    """
    return _dispatch_mode is not None and _dispatch_mode(_PROXY) is not None


traced_by_jit: Callable[[], bool] = part("jit.is_tracing", lambda: False)
"""Whether `torch.jit.trace` records what runs. The name is public, but torch's types lack it. Seen on 2.9 to 2.14."""


def recorded(call: Callable[..., Any], tensors: Any) -> torch.fx.GraphModule:
    """The graph of what `call` does with `tensors`. Seen on 2.9 to 2.14; without it, `relprop.compile` is refused."""
    if _dispatch_mode is None or _PROXY is None:
        raise lacking("_C._get_dispatch_mode", "relprop.compile")
    try:
        import torch._dynamo.config as config
        from torch.fx.experimental.proxy_tensor import make_fx
    except ImportError as error:
        raise lacking("fx.experimental.proxy_tensor.make_fx", "relprop.compile") from error
    # compiled parts of a model run as their original Python
    known = hasattr(config, "error_on_nested_fx_trace")
    with config.patch(error_on_nested_fx_trace=False) if known else nullcontext():
        return make_fx(call, tracing_mode="real")(*tensors)


def unrecorded() -> AbstractContextManager[object]:
    """A context whose operations are left out of a graph that is being recorded. Seen on 2.9 to 2.14."""
    from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

    return disable_proxy_modes_tracing()


def looked_at(error: BaseException) -> bool:
    """Whether an error says that a model read values while a graph was recorded, judged by its text.

    Torch has no class for this error. Seen on 2.9 to 2.14. If the text changes, the user sees torch's own error.
    """
    return "value out of a tracing tensor" in str(error)


@contextmanager
def announced() -> Iterator[None]:
    """Makes `torch.compiler.is_compiling()` true: some models then skip checks of their inputs.

    Seen on 2.9 to 2.14. Without it, nothing is announced, and such a model is refused.
    """
    before = part("compiler._is_compiling_flag")
    if before is None:
        yield
        return
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before


def shape_that_depends_on_numbers(graph: torch.fx.GraphModule, tensors: Any) -> Any:
    """An operation of a graph whose output depends on values in its shape or as a number; None if there is none.

    The graph runs on fake tensors, which have shapes but no values. Seen on 2.9 to 2.14; without them,
    `relprop.compile` is refused.
    """
    try:
        from torch._subclasses.fake_tensor import (
            DataDependentOutputException,
            DynamicOutputShapeException,
            FakeTensorMode,
        )
        from torch.fx.passes.fake_tensor_prop import FakeTensorProp
    except ImportError as error:
        raise lacking("_subclasses.fake_tensor", "relprop.compile") from error
    try:
        with torch.no_grad():
            FakeTensorProp(graph, FakeTensorMode(allow_non_fake_inputs=True)).propagate(*tensors)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        return error.func
    return None
