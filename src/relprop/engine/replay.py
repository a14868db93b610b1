"""Whether one of relprop's backward passes runs now, so that operations are a checkpoint's recomputation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from relprop.engine.undo import Undo
from relprop.torch_private.state import graph_task

_outside: dict[int, set[object]] = {}
"""relprop's calls inside the hooks and functions of backward passes, by the number of the backward pass."""


@contextmanager
def outside() -> Iterator[None]:
    """A whole relprop call. If it starts inside a backward pass, that pass is not one through its own graph."""
    task = graph_task()
    this = object()
    with Undo() as undo:
        undo.later(lambda: _within(task, this))
        _outside.setdefault(task, set()).add(this)
        yield


def _within(task: int, call: object) -> None:
    calls = _outside.get(task, set())
    calls.discard(call)
    if not calls:
        _outside.pop(task, None)


def replaying() -> bool:
    """Whether relprop's own backward pass runs: operations that arrive now are a checkpoint's recomputation."""
    task = graph_task()
    return task != -1 and task not in _outside
