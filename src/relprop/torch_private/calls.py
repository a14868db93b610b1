"""Calls of modules, read from this thread's stack, and ways to call functions of torch without their wrapper."""

from __future__ import annotations

import sys
import types
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn

from relprop.torch_private.finding import lacking, part
from relprop.torch_private.state import transforms_active


def code_of(function: Any) -> CodeType | None:
    """The code of a function or method; None where it is not written in Python."""
    return getattr(getattr(function, "__func__", function), "__code__", None)


MODULE_CALL: CodeType | None = code_of(part("nn.Module._call_impl"))
"""The code behind `module(...)`. Its frame tells which module runs.

Seen on 2.9 to 2.14. Without it, `running_module` looks for methods called `forward` instead.
"""

_CALLER: CodeType | None = code_of(part("nn.Module._wrapped_call_impl"))
"""The code that calls `MODULE_CALL`. Its frame also holds the module, and is read ten times as fast: it has no cells.

Seen on 2.9 to 2.14. Without it, the frame of `MODULE_CALL` is read.
"""


def running_module(above: int = 1) -> nn.Module | None:
    """The innermost module whose forward is running in this thread. It is read from the stack, without hooks.

    Args:
        above: how many of the frames above this one are known to be no module's call.
    """
    return None if torch.compiler.is_dynamo_compiling() else module_above(above + 1)


def module_above(above: int) -> nn.Module | None:
    """As `running_module`, where torch's compiler is known not to trace: at each operation of a model.

    Seen on 2.9 to 2.14; without `MODULE_CALL`, methods called `forward` are looked for.
    """
    frame: FrameType | None = sys._getframe(above)
    if MODULE_CALL is None:
        return _module_by_forward(frame)
    while frame is not None:
        if frame.f_code is MODULE_CALL:
            caller = frame.f_back
            if caller is not None and caller.f_code is _CALLER:
                frame = caller
            return frame.f_locals.get("self")
        frame = frame.f_back
    return None


def _module_by_forward(frame: FrameType | None) -> nn.Module | None:
    while frame is not None:
        if frame.f_code.co_name == "forward" and isinstance(found := frame.f_locals.get("self"), nn.Module):
            return found
        frame = frame.f_back
    return None


def module_depth() -> int:
    """How many nested module calls are running in this thread. Recognised by their code; seen on 2.9 to 2.14."""
    frame: FrameType | None = None if torch.compiler.is_dynamo_compiling() else sys._getframe(1)
    depth = 0
    while frame is not None:
        depth += frame.f_code is MODULE_CALL if MODULE_CALL is not None else frame.f_code.co_name == "forward"
        frame = frame.f_back
    return depth


_BETWEEN = (
    "relprop.",
    "torch.overrides",
    "torch._tensor",
    "torch.utils._contextlib",
    "torch._dynamo",
    "torch._compile",
)


def called_by_torch() -> bool:
    """Whether torch itself, such as FSDP, made the current call, and not a model or `module(...)`.

    Read from the first frame outside this package and the methods of tensors. Recognised by the names of torch's Python
    modules; seen on 2.9 to 2.14.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith(_BETWEEN):
        frame = frame.f_back
    name = "" if frame is None else str(frame.f_globals.get("__name__", ""))
    return name.startswith("torch.") and not name.startswith("torch.nn.")


def applied(function: type[torch.autograd.Function], *args: Any) -> Any:
    """`function.apply(*args)` without the check of its signature, which costs more than a small operation.

    It is the `apply` of the base class of `torch.autograd.Function`. Seen on 2.9 to 2.14.
    """
    if torch.compiler.is_compiling() or transforms_active():
        return function.apply(*args)
    return super(torch.autograd.Function, function).apply(*args)  # type: ignore[misc]


def unfolded(function: Any) -> Any:
    """A copy of one of torch's functions whose body runs inside a mode, so that the mode sees each step.

    For attention, and for gradients within a checkpoint. The original asks `has_torch_function` whether to pass the
    whole call to the mode. Seen on 2.9 to 2.14. A function that is not written in Python is refused when called.
    """
    if not isinstance(function, types.FunctionType):

        def refuse(*_: Any, **__: Any) -> Any:
            raise lacking(f"{function.__name__} in Python", f"what is explained inside {function.__name__}")

        return refuse
    seen = {**function.__globals__, "has_torch_function": lambda *_: False}
    copy = types.FunctionType(function.__code__, seen, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
