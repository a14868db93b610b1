"""Compiled models: their Python is what we follow, so while we explain one, its compiled code stands aside."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

_lock = threading.Lock()
_count = 0
_stance = ExitStack()


def original(model: Any) -> Any:
    """The model or function that `torch.compile` was given."""
    return getattr(model, "_orig_mod", None) or getattr(model, "_torchdynamo_orig_callable", None) or model


def is_compiled(model: Any) -> bool:
    """Whether parts of a model are compiled, by `torch.compile(module)` or `module.compile()`."""
    if not isinstance(model, nn.Module):
        return hasattr(model, "_torchdynamo_orig_callable")
    return any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules())


@contextmanager
def uncompiled(model: Any) -> Iterator[None]:
    """While this lasts, compiled code runs as the Python it was made of. Threads may overlap: torch has one switch."""
    global _count
    if torch.compiler.is_compiling() or not is_compiled(model):
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
