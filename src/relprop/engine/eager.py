"""Compiled code: the Python it was made of is what we follow, so while we explain a model it stands aside."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch._C._dynamo import eval_frame

from relprop.engine.traced import whole_graph

_lock = threading.Lock()
_count = 0
_stance = ExitStack()
_set_apart: dict[Any, Any] = {}
P = ParamSpec("P")
T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])


def original(model: Any) -> Any:
    """The model or function that `torch.compile` was given."""
    return getattr(model, "_orig_mod", None) or getattr(model, "_torchdynamo_orig_callable", None) or model


def untraced(function: Function) -> Function:
    """Marks a function that torch's compiler shall leave alone: in its frame it takes one property's getter for another's."""
    if hasattr(eval_frame, "skip_code"):  # torch 2.6
        eval_frame.skip_code(function.__code__)
    elif hasattr(eval_frame, "set_code_exec_strategy"):
        skip = eval_frame._FrameExecStrategy(eval_frame._FrameAction.SKIP, eval_frame._FrameAction.DEFAULT)
        eval_frame.set_code_exec_strategy(function.__code__, skip)
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    return function


def _within_compiled() -> bool:
    """Whether the function that calls us was given to `torch.compile`."""
    callback = getattr(eval_frame, "get_eval_frame_callback", None)  # newer than torch 2.6
    return callback is not None and bool(callback())


def _may_compile() -> bool:
    """Whether something compiled may run: torch loads its compiler at the first use, or flex attention will."""
    return "torch._dynamo" in sys.modules or "torch.nn.attention.flex_attention" in sys.modules


def step_by_step(function: Callable[P, T]) -> Callable[P, T]:
    """Decorates what runs as it is, whole, also where a function that is compiled calls it: one break in its graph."""
    name = getattr(function, "called", function.__name__)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if torch.compiler.is_dynamo_compiling() and not whole_graph(name):
            return _apart(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return call


def _apart(function: Callable[P, T]) -> Callable[P, T]:
    """A function that torch's compiler does not look into. Made at need: the compiler takes a second to import."""
    if function not in _set_apart:
        _set_apart[function] = torch.compiler.disable(function)
    return _set_apart[function]


@contextmanager
def uncompiled() -> Iterator[None]:
    """While this lasts, compiled code runs as the Python it was made of. Threads may overlap: torch has one switch."""
    global _count
    # in compiled code of one's own, torch keeps the switch to itself
    if torch.compiler.is_compiling() or _within_compiled() or not _may_compile():
        yield
        return
    with _lock:
        _count += 1
        if _count == 1:
            _stance.enter_context(torch.compiler.set_stance("force_eager"))
    try:
        yield
    finally:
        with _lock:
            _count -= 1
            if _count == 0:
                _stance.close()
