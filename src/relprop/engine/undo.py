"""Undoes what a call changed, even if an interrupt arrives between the end of a `with` block and its exit.

Python may raise KeyboardInterrupt between any two lines: also after a block has ended but before its context is left,
or while it is being left. So each task stays on a list until it is done. On an exception, relprop's outermost function
carries out the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from relprop.torch_private.state import ThreadState

P = ParamSpec("P")
T = TypeVar("T")


class _Calls(threading.local):
    """The contexts of the call that runs in this thread; None outside a call."""

    contexts: list[Undo] | None = None


_calls = _Calls()


class Undo:
    """A context that calls the functions on its list when it is left, the last first. Each must tolerate a second call.

    Attributes:
        later: adds a function. It is the list's own method, so that no line of Python runs in between.
    """

    def __init__(self) -> None:
        self._todo: list[Callable[[], Any]] = []
        self.later = self._todo.append

    def __enter__(self) -> Undo:
        if _calls.contexts is not None:
            _calls.contexts.append(self)
        return self

    def now(self) -> None:
        """Calls the functions that have not yet run to their end."""
        while self._todo:
            self._todo[-1]()
            self._todo.pop()

    def __exit__(self, *_: object) -> None:
        self.now()


def restoring(function: Callable[P, T]) -> Callable[P, T]:
    """Decorates a public function: an exception restores the thread's modes and settings, and no hook is left."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        outer, state = _calls.contexts, ThreadState()
        contexts: list[Undo] = []
        _calls.contexts = contexts
        try:
            return function(*args, **kwargs)
        except BaseException:
            for context in reversed(contexts):
                context.now()
            state.restore()
            raise
        finally:
            _calls.contexts = outer

    return call
