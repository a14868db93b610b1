"""Goes on with the other inputs when one cannot be explained, and keeps what was left out for the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from relprop.errors import InputError, NonFiniteError, RelpropError, SeveredGraphError, TargetError
from relprop.rendering.visible import visible

# Errors that are faults of one input. Others, such as an unknown operation, concern the network and stop everything.
_OF_INPUTS: tuple[type[Exception], ...] = (InputError, NonFiniteError, SeveredGraphError, OSError)
T = TypeVar("T")


class NothingDone(Exception):
    """None of several inputs could be explained. The arguments are the lines that say why."""


@dataclass
class Tried:
    """The inputs that were left out, and why.

    Attributes:
        errors: the errors that are faults of one input.
        left_out: the name of each such input, safe to print, and its error.
    """

    errors: tuple[type[Exception], ...] = _OF_INPUTS
    left_out: list[tuple[str, Exception]] = field(default_factory=list)

    @classmethod
    def of_texts(cls) -> Tried:
        """For texts, `TargetError` counts too: a target may fit one text and not another."""
        return cls((*_OF_INPUTS, TargetError))

    @contextmanager
    def each(self, name: str) -> Iterator[None]:
        """A context that notes the error if it is a fault of this input, and goes on."""
        try:
            yield
        except self.errors as error:
            self.left_out.append((name, error))

    def together(self, items: Sequence[Any], act: Callable[[Sequence[Any]], Sequence[T]]) -> Sequence[T]:
        """The results of several items together; if one is at fault, of each alone."""
        try:
            return act(items)
        except self.errors as error:
            if len(items) > 1:
                return [found for item in items for found in self.together([item], act)]
            self.left_out.append((items[0].name, error))
            return []

    def check(self, done: int) -> None:
        """Raises an error if inputs were left out and nothing was done.

        Raises:
            Exception: the error of all inputs, if they have the same one.
            NothingDone: they have several.
        """
        if done or not self.left_out:
            return
        if len({str(error) for _, error in self.left_out}) == 1:
            raise self.left_out[0][1]
        raise NothingDone(*self.lines())

    def lines(self) -> list[str]:
        """A line for each input that was left out."""
        return [f"{name} was left out: {said(error)}" for name, error in self.left_out]


def said(error: Exception) -> str:
    """The message of an error, in one line that is safe to print."""
    text = error.message if isinstance(error, RelpropError) else str(error)  # without the function's name
    return visible(" ".join(text.split()))
