"""Steps that a model made from one tensor, to be made again from another in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

N = TypeVar("N")


def each_once(last: N, missing: Callable[[N], list[N]], run: Callable[[N], None]) -> None:
    """Runs steps in a loop, as there may be more of them than Python's stack is deep.

    Args:
        last: the step that is wanted.
        missing: the steps that must run before a step and have not yet.
        run: runs a step. It may be called again for a step that has run.
    """
    waiting = [last]
    while waiting:
        if before := missing(waiting[-1]):
            waiting += before
        else:
            run(waiting.pop())


class Rerun:
    """Steps one after another, which may be joined of several.

    `steps(t)` makes them from a tensor; each step once, however many others go on from its result. The result is None where
    the first step gives None.

    Args:
        step: the last step, a function of a tensor; of a list of tensors, if there are parts.
        before: the steps before it.
        parts: the steps, or constants, that it joins.
    """

    __slots__ = ("_before", "_parts", "_step")

    def __init__(
        self,
        step: Callable[[Any], Tensor | None] | None = None,
        before: Rerun | None = None,
        parts: Sequence[Rerun | Tensor] = (),
    ) -> None:
        self._step, self._before, self._parts = step, before, tuple(parts)

    def __bool__(self) -> bool:
        """Whether there is any step."""
        return self._step is not None

    def then(self, step: Callable[[Tensor], Tensor]) -> Rerun:
        """These steps and another."""
        return Rerun(step, self)

    def __call__(self, t: Tensor | None) -> Any:
        """What the steps make of a tensor. Those that write in place must write into a copy."""
        known: dict[int, Any] = {}

        def run(steps: Rerun) -> None:
            if id(steps) not in known:
                known[id(steps)] = steps._last(t, known)

        each_once(self, lambda steps: [each for each in steps._needs() if id(each) not in known], run)
        return known[id(self)]

    def _needs(self) -> list[Rerun]:
        """The steps whose results the last one takes."""
        given = self._parts if self._before is None else (self._before,)
        return [each for each in given if isinstance(each, Rerun)]

    def _last(self, t: Tensor | None, known: dict[int, Any]) -> Any:
        """What the last step makes of what is known of those before it."""
        if self._step is None:
            return t
        if self._parts:
            parts = [known[id(part)] if isinstance(part, Rerun) else part for part in self._parts]
            return None if any(part is None for part in parts) else self._step(parts)
        if self._before is None:
            return self._step(t)
        made = known[id(self._before)]
        return None if made is None else self._step(made)


NO_STEPS = Rerun()
"""The tensor itself."""
