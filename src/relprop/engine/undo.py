"""What a call changed is undone, also where an interrupt arrives after the end of a `with` block and before its exit runs.

Python may raise KeyboardInterrupt between any two lines: also where a block has ended and its context was not left yet, or
in the middle of leaving it. So what is to be undone stays noted until it is done, and the outermost function of ours looks
after it where an exception passes.
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
    """The contexts of the call that runs in this thread; None outside of one."""

    contexts: list[Undo] | None = None


_calls = _Calls()


class Undo:
    """A context that calls what it was given, the last first. Each must bear to be called twice.

    Attributes:
        later: takes what to call when the context is left. The list's own method: no line of Python runs in between.
    """

    def __init__(self) -> None:
        self._todo: list[Callable[[], Any]] = []
        self.later = self._todo.append

    def __enter__(self) -> Undo:
        if _calls.contexts is not None:
            _calls.contexts.append(self)
        return self

    def now(self) -> None:
        """Calls what was not called, or not to its end."""
        while self._todo:
            self._todo[-1]()
            self._todo.pop()

    def __exit__(self, *_: object) -> None:
        self.now()


def restoring(function: Callable[P, T]) -> Callable[P, T]:
    """Decorates what users call: whatever is raised, the thread has the modes and settings of before, and no hook is left."""

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
