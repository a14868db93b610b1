"""Compiled code is bypassed while a model is explained: relprop follows the Python it was made from."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

from relprop.engine.traced import whole_graph
from relprop.engine.undo import Undo, restoring
from relprop.signatures import public_name
from relprop.torch_private.compiled import compiler_loaded, within_compiled

_lock = threading.Lock()
_calls: set[object] = set()
"""One for each call during which compiled code is bypassed."""
_stance = ExitStack()
_set_apart: dict[Any, Any] = {}
P = ParamSpec("P")
T = TypeVar("T")


def step_by_step(function: Callable[P, T]) -> Callable[P, T]:
    """Decorates a function that compiled code must call as a whole, at the cost of one graph break."""
    name = public_name(function)
    within = restoring(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if torch.compiler.is_dynamo_compiling() and not whole_graph(name):
            return _apart(function)(*args, **kwargs)
        return within(*args, **kwargs)

    return call


def _apart(function: Callable[P, T]) -> Callable[P, T]:
    """A function that torch's compiler does not trace, made when needed: the compiler takes a second to import."""
    if function not in _set_apart:
        _set_apart[function] = torch.compiler.disable(function)
    return _set_apart[function]


@contextmanager
def uncompiled() -> Iterator[None]:
    """A context in which compiled code runs as its Python source. Threads may overlap, but torch has one switch."""
    # inside the user's own compiled code, torch does not allow the switch
    if torch.compiler.is_compiling() or within_compiled() or not compiler_loaded():
        yield
        return
    this = object()

    def end() -> None:
        with _lock:
            _calls.discard(this)
            if not _calls:
                _stance.close()

    with Undo() as undo:
        undo.later(end)
        with _lock:
            if not _calls:
                _stance.enter_context(torch.compiler.set_stance("force_eager"))
            _calls.add(this)
        yield
