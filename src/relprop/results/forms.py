"""Targets with a form of their own: they take a score off a model's output, say in words what it is, and can be saved.

Index letters: n sample, c class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from relprop.errors import TargetError
from relprop.torch_private.recorded import recording
from relprop.trees import map_tree

Called = Callable[[Any], str]
"""A class in words."""


class Find(Protocol):
    """Finds classes that are given by their labels or numbers."""

    @property
    def known(self) -> int | None:
        """The number of labels, if they are known."""

    def __call__(self, target: Any, count: int) -> int:
        """The index of a class among that many."""


FORMS: dict[str, type[Form]] = {}
"""The classes of such targets by their names in files."""


class Form(ABC):
    """The base of such targets. Subclasses are frozen dataclasses, decorated with `form`."""

    @abstractmethod
    def score(self, output: Any, find: Find) -> tuple[Tensor, Any]:
        """One score per sample, (N,), or a single number; and the target as it was understood.

        Raises:
            TargetError: the output has no such score.
        """

    @abstractmethod
    def in_words(self, called: Called) -> str:
        """What is explained, for a caption."""

    def alone(self, output: Any, n: int) -> Any:
        """The output of sample n, with its axis of samples."""
        return map_tree(lambda t: t[n : n + 1] if isinstance(t, Tensor) and t.ndim else t, output)

    def __repr__(self) -> str:
        """As it is written: fields that have their defaults are left out."""
        own = [f for f in fields(self) if f.default is MISSING or getattr(self, f.name) != f.default]  # type: ignore[arg-type]
        first = [f.name for f in fields(self)][:2]  # type: ignore[arg-type]
        shown, gap = [], False
        for name in first:
            given = any(f.name == name for f in own)
            if given:
                shown.append(f"{name}={getattr(self, name)!r}" if gap else repr(getattr(self, name)))
            gap = gap or not given
        shown += [f"{f.name}={getattr(self, f.name)!r}" for f in own if f.name not in first]
        return f"{type(self).__name__}({', '.join(shown)})"

    def kept(self) -> dict[str, Any]:
        """What a file stores: the fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def restored(cls, content: dict[str, Any]) -> Form:
        """Rebuilds the target from what `kept` returned.

        Raises:
            ValueError: the content is not that of such a target.
        """
        try:
            return cls(**content)
        except (TypeError, TargetError) as error:
            raise ValueError(f"a target is not described: {error}") from None


F = TypeVar("F", bound=Form)


def form(made: type[F]) -> type[F]:
    """Decorates the class of a target, so that files can hold it."""
    FORMS[made.__name__] = made
    return made


def each(target: Any, change: Callable[[Any], Any]) -> Any:
    """A target as it was understood, changed: each one of a list, where samples have targets of their own."""
    return [change(one) for one in target] if isinstance(target, list) else change(target)


def whole(value: Any) -> bool:
    """Whether this is an int, and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_class(target: Any, name: str) -> None:
    """Refuses a class that is neither a label, nor a number, nor None."""
    if target is not None and not isinstance(target, str) and not whole(target):
        raise TargetError(f"{name} takes a class, by its label or number, or None; got {target!r}.")


def check_tensor(output: Any, name: str) -> Tensor:
    """The output as a tensor."""
    if not isinstance(output, Tensor):
        raise TargetError(
            f"the model returned a {type(output).__name__}, and {name} is about a tensor: pass select=, a key, index or "
            "function that picks it."
        )
    return output


def index_in(number: int, count: int, what: str) -> int:
    """A number from 0 below `count`; negative ones count from the end.

    Raises:
        TargetError: there is no such number.
    """
    if not -count <= number < count:
        raise TargetError(f"there is no {what} {number}: there are {count}, 0 to {count - 1}.")
    return number % count


def best(scores: Tensor) -> list[int]:
    """The index of the largest score of each row (N, C).

    Raises:
        TargetError: a graph is being recorded, which would keep the first inputs' answer.
    """
    if recording():
        raise TargetError("a compiled function needs a class by its label or number, for the likeliest may change.")
    return scores.detach().argmax(1).tolist()


def picked(rows: Tensor, target: Any, find: Find) -> tuple[Tensor, Any]:
    """The score of a class in each row (N, C), and the class: the likeliest of each row where none is given."""
    if target is None:
        found = [0] * len(rows) if rows.shape[1] == 1 else best(rows)
        every = torch.arange(len(rows), device=rows.device)
        same = len(set(found)) == 1
        return rows[every, torch.tensor(found, device=rows.device)], found[0] if same else found
    index = find(target, rows.shape[1])
    return rows[:, index], index


def understood(made: Any, **changed: Any) -> Any:
    """The target with some of its fields replaced. Fields that are lists give a list of targets, one per sample."""
    lists = {name: value for name, value in changed.items() if isinstance(value, list)}
    if not lists:
        return replace(made, **changed)
    count = len(next(iter(lists.values())))
    return [
        replace(made, **{name: value[n] if name in lists else value for name, value in changed.items()})
        for n in range(count)
    ]
