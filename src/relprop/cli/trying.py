"""Many inputs, of which some cannot be explained: the others are, and what was left out is said at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from relprop.errors import InputError, NonFiniteError, RelpropError, SeveredGraphError, TargetError
from relprop.rendering.visible import visible

# Faults of one input. Others, such as an operation that is unknown, are of the network, and stop everything.
_OF_INPUTS: tuple[type[Exception], ...] = (InputError, NonFiniteError, SeveredGraphError, OSError)
T = TypeVar("T")


class NothingDone(Exception):
    """Nothing could be done for any of several inputs; the arguments are the lines that say why."""


@dataclass
class Tried:
    """What could not be done, and why.

    Attributes:
        errors: what is a fault of one input.
        left_out: its name, safe to print, and the error.
    """

    errors: tuple[type[Exception], ...] = _OF_INPUTS
    left_out: list[tuple[str, Exception]] = field(default_factory=list)

    @classmethod
    def of_texts(cls) -> Tried:
        """A target may fit one text and not another, as an answer does that only one of them holds."""
        return cls((*_OF_INPUTS, TargetError))

    @contextmanager
    def each(self, name: str) -> Iterator[None]:
        """Goes on where one input is at fault."""
        try:
            yield
        except self.errors as error:
            self.left_out.append((name, error))

    def together(self, items: Sequence[Any], act: Callable[[Sequence[Any]], Sequence[T]]) -> Sequence[T]:
        """What comes of some that go together; where one is at fault, of each alone."""
        try:
            return act(items)
        except self.errors as error:
            if len(items) > 1:
                return [found for item in items for found in self.together([item], act)]
            self.left_out.append((items[0].name, error))
            return []

    def check(self, done: int) -> None:
        """Where nothing was done, says why: in one line where there is one reason.

        Raises:
            NothingDone: for several reasons.
        """
        if done or not self.left_out:
            return
        if len({str(error) for _, error in self.left_out}) == 1:
            raise self.left_out[0][1]
        raise NothingDone(*self.lines())

    def lines(self) -> list[str]:
        """A line for each that was left out."""
        return [f"{name} was left out: {said(error)}" for name, error in self.left_out]


def said(error: Exception) -> str:
    """What an error says, in one line that is safe to print."""
    text = error.message if isinstance(error, RelpropError) else str(error)  # which function it was is no matter here
    return visible(" ".join(text.split()))
