"""Code that `torch.compile` compiles."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from relprop.torch_private.finding import part

Function = TypeVar("Function", bound=Callable[..., Any])


def original(model: Any) -> Any:
    """The model or function that `torch.compile` was given. Seen on 2.9 to 2.14; without it, `model` itself."""
    return getattr(model, "_orig_mod", None) or getattr(model, "_torchdynamo_orig_callable", None) or model


def _eval_frame() -> Any:
    return part("_C._dynamo.eval_frame")


def skipped(function: Any) -> Any:
    """Marks a function that torch's compiler must skip with all that it calls.

    In its frame the compiler confuses the getters of properties, and below it torch 2.9 fails on functions of ours.
    Seen on 2.9 to 2.14 (`set_code_exec_strategy`). Without it, only the attribute that the compiler reads is set.
    """
    frames = _eval_frame()
    if hasattr(frames, "set_code_exec_strategy"):
        skip = frames._FrameExecStrategy(frames._FrameAction.SKIP, frames._FrameAction.SKIP)
        frames.set_code_exec_strategy(function.__code__, skip)
    vars(function)["_torchdynamo_disable"] = True
    return function


def within_compiled() -> bool:
    """Whether our caller was given to `torch.compile`. Seen on 2.9 to 2.14; False without it."""
    callback = getattr(_eval_frame(), "get_eval_frame_callback", None)
    return callback is not None and bool(callback())


def compiler_loaded() -> bool:
    """Whether compiled code may run: torch's compiler is loaded, or flex attention, which loads it when used.

    Seen on 2.9 to 2.14. Under another name, compiled parts of a model are not switched off.
    """
    return "torch._dynamo" in sys.modules or "torch.nn.attention.flex_attention" in sys.modules


def constant_when_traced(function: Function) -> Function:
    """Marks a function that the compiler calls while it traces, and whose result it takes for a constant.

    `torch.compiler.assume_constant_result` does the same, but loads the compiler, which takes a second. Seen on 2.9 to
    2.14; without it the function is traced like any other.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function


def breaks_forbidden() -> bool:
    """Whether torch's compiler traces and may not break the graph (`fullgraph=True`, `torch.export`).

    Seen on 2.9 to 2.14. Without it, the user sees the compiler's own error.
    """
    module = sys.modules.get("torch._dynamo.symbolic_convert")
    try:
        tracer = module.InstructionTranslator.current_tx()  # type: ignore[union-attr]
        return bool(getattr(tracer, "one_graph", False) or getattr(tracer, "error_on_graph_break", False))
    except (AttributeError, AssertionError):
        return False


def unsupported() -> type[Exception]:
    """The compiler's error for code it cannot trace; it wraps others. Seen on 2.9 to 2.14; RuntimeError without it."""
    return part("_dynamo.exc.Unsupported", RuntimeError)
