"""Whether a backward pass of ours runs now, in which what a checkpoint computes again arrives a second time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from relprop.engine.undo import Undo
from relprop.torch_private.state import graph_task

_outside: dict[int, set[object]] = {}
"""The calls of ours that run in the hooks and functions of backward passes, by the numbers of these."""


@contextmanager
def outside() -> Iterator[None]:
    """A call of ours, as a whole: where it is made inside a backward pass, that is not the one of its own graph."""
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
    """Whether our backward pass runs: what arrives now is a checkpoint's recomputation."""
    task = graph_task()
    return task != -1 and task not in _outside
