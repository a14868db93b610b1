"""Targets at a place of the output: a step of a sequence or a forecast; a node, an edge or a graph; the number behind a probability.

Index letters: n sample, t step, c class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from relprop.errors import TargetError
from relprop.results.contrast import Contrast
from relprop.results.forms import (
    Called,
    Find,
    Form,
    check_class,
    check_tensor,
    each,
    form,
    index_in,
    picked,
    understood,
    whole,
)
from relprop.signatures import public


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
    """The score of one row, or of several, of an output whose rows are no independent samples."""

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
        """Raises TargetError: rows are no samples."""
        name = type(self).__name__
        raise TargetError(
            f"{name} is about one score of the whole output: explain several with relprop.attribute_each."
        )

    def in_words(self, called: Called) -> str:
        """The class and the row."""
        what = "the output" if self.target is None else called(self.target)
        return f"{what} of {f'all {self.what}s' if self.number is None else _listed(self.what, self.number)}"


@form
@dataclass(frozen=True, repr=False)
class Node(_Row):
    """The score of one node of a graph; those of the others are not explained.

    The nodes are the rows of the model's output, (nodes, C) or (nodes,). They are no independent samples, so that the result has
    one score.

    Args:
        number: the node, from 0; negative ones count from the end. Several, as a list or a range, are summed. None sums
            all of them.
        target: the class, by its label or number. None for an output with one score per node; else it is the class with the
            largest score, if a node is explained alone.

    Raises:
        TargetError: an argument is not valid, or the output has no such node or class.
    """

    what: ClassVar[str] = "node"


@form
@dataclass(frozen=True, repr=False)
class Edge(_Row):
    """The score of one edge of a graph; those of the others are not explained.

    The edges are the rows of the model's output, (edges, C) or (edges,). They are no independent samples, so that the result has
    one score.

    Args:
        number: the edge, from 0; negative ones count from the end. Several, as a list or a range, are summed. None sums
            all of them.
        target: the class, by its label or number. None for an output with one score per edge; else it is the class with the
            largest score, if an edge is explained alone.

    Raises:
        TargetError: an argument is not valid, or the output has no such edge or class.
    """

    what: ClassVar[str] = "edge"


@form
@dataclass(frozen=True, repr=False)
class Graph(_Row):
    """The score of one graph of a batch; those of the others are not explained.

    The graphs are the rows of the model's output, (graphs, C) or (graphs,). They are no independent samples, so that the result has
    one score.

    Args:
        number: the graph, from 0, 0 where it is left out; negative ones count from the end. Several, as a list or a range, are summed. None sums
            all of them.
        target: the class, by its label or number. None for an output with one score per graph; else it is the class with the
            largest score, if a graph is explained alone.

    Raises:
        TargetError: an argument is not valid, or the output has no such graph or class.
    """

    what: ClassVar[str] = "graph"

    number: int | Sequence[int] | None = 0


@form
@dataclass(frozen=True, repr=False)
class Logit(Form):
    """The number behind a probability: what the model's final softmax or sigmoid is given.

    A probability near 1 hardly changes with the inputs, so that nearly all of it ends in the residual. The number behind it
    has no such limit. The model is not changed: its last softmax, log-softmax or sigmoid returns its operand while this
    target is explained, and `Relevance.output` holds these numbers. Finding it takes one more forward pass.

    Args:
        target: any other target, as `relprop.attribute` takes it, within the classes of the output.

    Raises:
        TargetError: the model does not end in one, or the output has no such target.
    """

    target: Any = None

    def __post_init__(self) -> None:
        many = isinstance(self.target, list) or (isinstance(self.target, Tensor) and self.target.numel() != 1)
        if many or any(logits_in(self.target)):
            raise TargetError(
                f"Logit takes one target that is no Logit, as in Logit(3) or Logit(Contrast(3, 5)); got {self.target!r}. For one "
                "per sample write a list, [Logit(3), Logit(5)]."
            )

    def score(self, output: Any, find: Find) -> tuple[Tensor, Any]:
        """Raises TargetError: a logit is read where the softmax is left out."""
        raise TargetError("a Logit is explained by attribute and attribute_each; it is no part of another target.")

    def in_words(self, called: Called) -> str:
        """The target, and that it is the number behind its probability."""
        inner = self.target.in_words(called) if isinstance(self.target, Form) else called(self.target)
        return f"{inner}, before the final softmax or sigmoid"


def logits_in(target: Any) -> list[bool]:
    """Of each part of a target, whether it is a Logit."""
    if isinstance(target, Contrast):
        return logits_in(target.positive) + logits_in(target.negative)
    if isinstance(target, list) and target:
        return [found for one in target for found in logits_in(one)]
    return [isinstance(target, Logit)]


def without_logits(target: Any) -> Any:
    """The target with what each Logit in it holds."""
    if isinstance(target, Contrast):
        return Contrast(without_logits(target.positive), without_logits(target.negative))
    if isinstance(target, list):
        return [without_logits(one) for one in target]
    return target.target if isinstance(target, Logit) else target


def as_logits(target: Any) -> Any:
    """The target, as it was understood, with a Logit around each of its parts."""
    if isinstance(target, Contrast):
        return Contrast(as_logits(target.positive), as_logits(target.negative))
    return each(target, lambda one: as_logits(one) if isinstance(one, Contrast) else Logit(one))


for _made, _name in ((Step, "Step"), (Node, "Node"), (Edge, "Edge"), (Graph, "Graph"), (Logit, "Logit")):
    _made.__init__ = public(f"relprop.{_name}")(_made.__init__)  # type: ignore[method-assign]


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
