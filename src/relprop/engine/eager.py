"""Compiled code: the Python it was made of is what we follow, so while we explain a model it stands aside."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch._C._dynamo import eval_frame

_lock = threading.Lock()
_count = 0
_stance = ExitStack()


def original(model: Any) -> Any:
    """The model or function that `torch.compile` was given."""
    return getattr(model, "_orig_mod", None) or getattr(model, "_torchdynamo_orig_callable", None) or model


Function = TypeVar("Function", bound=Callable[..., Any])


def untraced(function: Function) -> Function:
    """Marks a function that torch's compiler shall leave alone: in its frame it takes one property's getter for another's."""
    if hasattr(eval_frame, "skip_code"):  # torch 2.6
        eval_frame.skip_code(function.__code__)
    else:
        skip = eval_frame._FrameExecStrategy(eval_frame._FrameAction.SKIP, eval_frame._FrameAction.DEFAULT)
        eval_frame.set_code_exec_strategy(function.__code__, skip)
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    return function


def _may_compile() -> bool:
    """Whether something compiled may run: torch loads its compiler at the first use, or flex attention will."""
    return "torch._dynamo" in sys.modules or "torch.nn.attention.flex_attention" in sys.modules


@contextmanager
def uncompiled() -> Iterator[None]:
    """While this lasts, compiled code runs as the Python it was made of. Threads may overlap: torch has one switch."""
    global _count
    # in compiled code of one's own, torch keeps the switch to itself
    if torch.compiler.is_compiling() or eval_frame.get_eval_frame_callback() or not _may_compile():
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
