"""Targets at a place of the output: a step of a sequence or a forecast; a node, an edge or a graph.

Index letters: n sample, t step, c class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from relprop.errors import TargetError
from relprop.results.forms import (
    Called,
    Find,
    Form,
    check_class,
    check_tensor,
    form,
    index_in,
    picked,
    understood,
    whole,
)
from relprop.signatures import public_class


@public_class("relprop.Step")
@form
@dataclass(frozen=True, repr=False)
class Step(Form):
    """The score at one step of a sequence, or at some horizons of a forecast.

    Args:
        number: the step, from 0; negative ones count from the end. Several, as a list or a range, are summed.
        target: the class or variable, by its label or number, of an output (N, T, C). None for an output (N, T); else it is
            the class with the largest score at that step.
        axis: the axis of steps. 2 is for outputs (N, C, T).

    Raises:
        TargetError: an argument is not valid, or the output has no such step or class.
    """

    number: int | Sequence[int]
    target: Any = None
    axis: int = 1

    def __post_init__(self) -> None:
        check_class(self.target, "Step")
        if self.axis not in (1, 2, -1):
            raise TargetError(f"axis is the axis of steps, 1 or 2; got {self.axis!r}.")
        object.__setattr__(self, "number", _numbers(self.number, "a step"))

    def score(self, output: Any, find: Find) -> tuple[Tensor, Any]:
        """One score per sample."""
        output = check_tensor(output, "Step")
        if output.ndim not in (2, 3) or (output.ndim == 2 and self.axis == 2):
            raise TargetError(
                f"Step is about outputs (N, T) and (N, T, C); this one has the shape {tuple(output.shape)}. relprop.Over sums a "
                "class over positions."
            )
        axis = self.axis % output.ndim
        many = [self.number] if isinstance(self.number, int) else list(self.number)
        steps = [index_in(t, output.shape[axis], "step") for t in many]
        named: int | tuple[int, ...] = steps[0] if isinstance(self.number, int) else tuple(steps)
        rows = output.index_select(axis, torch.tensor(steps, device=output.device)).sum(axis)
        if output.ndim == 2:
            if self.target is not None:
                raise TargetError(
                    f"the output of shape {tuple(output.shape)} has no classes: write Step({self.number!r})."
                )
            return rows, replace(self, number=named)
        found, target = picked(rows, self.target, find)
        return found, understood(self, number=named, target=target)

    def in_words(self, called: Called) -> str:
        """The class and the step."""
        what = "the output" if self.target is None else called(self.target)
        return f"{what} at {_listed('step', self.number)}"


@dataclass(frozen=True, repr=False)
class _Row(Form):
    """The score of one row, or of several, of an output whose rows are not independent samples."""

    what: ClassVar[str] = "row"

    number: int | Sequence[int] | None
    target: Any = None

    def __post_init__(self) -> None:
        check_class(self.target, type(self).__name__)
        if self.number is not None:
            object.__setattr__(self, "number", _numbers(self.number, f"{_article(self.what)} {self.what}"))

    def score(self, output: Any, find: Find) -> tuple[Tensor, Any]:
        """A single number."""
        name = type(self).__name__
        output = check_tensor(output, name)
        if output.ndim not in (1, 2):
            raise TargetError(
                f"{name} is about outputs ({self.what}s, C); this one has the shape {tuple(output.shape)}."
            )
        count = output.shape[0]
        many = range(count) if self.number is None else [self.number] if isinstance(self.number, int) else self.number
        rows = [index_in(i, count, self.what) for i in many]
        named: Any = None if self.number is None else rows[0] if isinstance(self.number, int) else tuple(rows)
        found = output[torch.tensor(rows, device=output.device)].sum(0, keepdim=True)
        if output.ndim == 1:
            if self.target is not None:
                raise TargetError(f"the output has one score per {self.what}, and no classes: leave the class out.")
            return found[0], replace(self, number=named)
        if self.target is None and len(rows) > 1 and output.shape[1] > 1:
            raise TargetError(f"{name} of several {self.what}s needs a class: {name}({self.number!r}, 1).")
        score, target = picked(found, self.target, find)
        return score[0], replace(self, number=named, target=target)

    def alone(self, output: Any, n: int) -> Any:
        """Raises TargetError: rows are not samples."""
        name = type(self).__name__
        raise TargetError(
            f"{name} is about one score of the whole output: explain several with relprop.attribute_each."
        )

    def in_words(self, called: Called) -> str:
        """The class and the row."""
        what = "the output" if self.target is None else called(self.target)
        return f"{what} of {f'all {self.what}s' if self.number is None else _listed(self.what, self.number)}"


@public_class("relprop.Node")
@form
@dataclass(frozen=True, repr=False)
class Node(_Row):
    """The score of one node of a graph; those of the others are not explained.

    The nodes are the rows of the model's output, (nodes, C) or (nodes,). They are not independent samples, so
    the result has one score.

    Args:
        number: the node, from 0; negative ones count from the end. Several, as a list or a range, are summed. None sums
            all of them.
        target: the class, by its label or number. None for an output with one score per node; else it is the class with the
            largest score, if a node is explained alone.

    Raises:
        TargetError: an argument is not valid, or the output has no such node or class.
    """

    what: ClassVar[str] = "node"


@public_class("relprop.Edge")
@form
@dataclass(frozen=True, repr=False)
class Edge(_Row):
    """The score of one edge of a graph; those of the others are not explained.

    The edges are the rows of the model's output, (edges, C) or (edges,). They are not independent samples, so
    the result has one score.

    Args:
        number: the edge, from 0; negative ones count from the end. Several, as a list or a range, are summed. None sums
            all of them.
        target: the class, by its label or number. None for an output with one score per edge; else it is the class with the
            largest score, if an edge is explained alone.

    Raises:
        TargetError: an argument is not valid, or the output has no such edge or class.
    """

    what: ClassVar[str] = "edge"


@public_class("relprop.Graph")
@form
@dataclass(frozen=True, repr=False)
class Graph(_Row):
    """The score of one graph of a batch; those of the others are not explained.

    The graphs are the rows of the model's output, (graphs, C) or (graphs,). They are not independent samples, so
    the result has one score.

    Args:
        number: the graph, from 0; negative ones count from the end. Several, as a list or a range, are summed. None sums
            all of them. The first if it is left out.
        target: the class, by its label or number. None for an output with one score per graph; else it is the class with the
            largest score, if a graph is explained alone.

    Raises:
        TargetError: an argument is not valid, or the output has no such graph or class.
    """

    what: ClassVar[str] = "graph"

    number: int | Sequence[int] | None = 0


def _numbers(number: Any, what: str) -> int | tuple[int, ...]:
    """A number, or several as a tuple."""
    if (
        hasattr(number, "__index__")
        and not isinstance(number, bool)
        and not (isinstance(number, Tensor) and number.ndim)
    ):
        return int(number)
    if isinstance(number, (list, tuple, range)) and number and all(whole(one) for one in number):
        return tuple(number)
    raise TargetError(f"{what} is an int, or several are a list of ints; got {number!r}.")


def _listed(what: str, number: Any) -> str:
    if isinstance(number, int):
        return f"{what} {number}"
    numbers = list(number)
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{what}s {numbers[0]} to {numbers[-1]}"
    return f"{what}s {', '.join(map(str, numbers))}"


def _article(what: str) -> str:
    return "an" if what[0] in "aeiou" else "a"
