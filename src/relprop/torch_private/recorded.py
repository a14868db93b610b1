"""Recorded graphs: `relprop.compile`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from relprop.torch_private.parts import lacking, part

_dispatch_mode: Callable[[Any], Any] | None = part("_C._get_dispatch_mode")
_PROXY = part("_C._TorchDispatchModeKey.PROXY")


def recording() -> bool:
    """Whether the call is being recorded as a graph (`relprop.compile`): what a tensor holds must not steer it then.

    Seen on 2.9 to 2.14. Without it nothing can be recorded: `recorded` refuses.
    """
    return _dispatch_mode is not None and _dispatch_mode(_PROXY) is not None


def recorded(call: Callable[..., Any], tensors: Any) -> torch.fx.GraphModule:
    """What `call` does with these tensors, as a graph. Seen on 2.9 to 2.14; without it `relprop.compile` is refused."""
    if _dispatch_mode is None or _PROXY is None:
        raise lacking("_C._get_dispatch_mode", "relprop.compile")
    try:
        import torch._dynamo.config as config
        from torch.fx.experimental.proxy_tensor import make_fx
    except ImportError as error:
        raise lacking("fx.experimental.proxy_tensor.make_fx", "relprop.compile") from error
    # compiled parts of a model run as the Python they were made of
    known = hasattr(config, "error_on_nested_fx_trace")
    with config.patch(error_on_nested_fx_trace=False) if known else nullcontext():
        return make_fx(call, tracing_mode="real")(*tensors)


def unrecorded() -> AbstractContextManager[object]:
    """While a graph is recorded: a context whose operations are no part of it. Seen on 2.9 to 2.14."""
    from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing

    return disable_proxy_modes_tracing()


def looked_at(error: BaseException) -> bool:
    """Whether an error says that a model read the numbers of what is recorded. By torch's words: it has no class for it.

    Seen on 2.9 to 2.14. In other words, torch's own error is raised.
    """
    return "value out of a tracing tensor" in str(error)


@contextmanager
def announced() -> Iterator[None]:
    """`torch.compiler.is_compiling()` says so, as for torch's own compiler: some models then skip tests on their inputs.

    Seen on 2.9 to 2.14. Without it nothing is announced, and such a model is refused.
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
    """The operation of a graph whose result's shape depends on the numbers, None where there is none.

    The graph runs on fake tensors, which have a shape alone. Seen on 2.9 to 2.14; without them `relprop.compile` is refused.
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
