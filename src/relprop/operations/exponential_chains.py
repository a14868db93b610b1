"""Linear functions of exponentials, as graphs of steps that can be run again on other exponentials.

A tensor may be used several times, as a buffer that is written part by part. So each step is run once, however many paths
lead to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import Share, scaled
from relprop.engine.moves import first_held
from relprop.engine.notes import Note
from relprop.engine.traits import REDUCES
from relprop.numerics import aside

_DEEPEST = 2000
"""How many steps in a row are followed."""
Step = Callable[[list[Tensor]], Tensor]


class Read(NamedTuple):
    """A tensor as it was when an operation read it.

    Attributes:
        tensor: the tensor.
        version: its version then.
        held: one that has the numbers.
        note: the note of the tensor whose part it is.
        part: which part.
    """

    tensor: Tensor
    version: int
    held: Tensor
    note: Note
    part: tuple[Any, ...]

    @classmethod
    def by(cls, call: Call, t: Tensor) -> Read:
        known = call.note(t)
        note, _, moves = first_held(known)
        part = tuple((move.function, move.part, move.shape, _key((move.args, move.kwargs))) for move in moves)
        return cls(t, t._version, t.clone() if call.copies_are_kept else t, note or known, part)

    def same(self, other: Read) -> bool:
        """Whether two tensors have the same numbers, as the same part of one tensor."""
        return self.note is other.note and self.part == other.part

    def again(self) -> Tensor:
        """The tensor as it was.

        Raises:
            RuntimeError: the model has overwritten it. `attribute` then runs the model once more, and copies are kept.
        """
        if self.held is self.tensor and self.tensor._version != self.version:
            raise RuntimeError(
                f"a tensor of shape {tuple(self.held.shape)} of which a softmax is written out, by exp and a quotient, has been "
                "modified by an inplace operation before the quotient: make a new tensor there."
            )
        return self.held


def _key(value: Any) -> Any:
    """Arguments of an operation, to be compared. Of tensors it is known whether they are one."""
    if isinstance(value, (tuple, list)):
        return tuple(map(_key, value))
    if isinstance(value, dict):
        return tuple((name, _key(a)) for name, a in value.items())
    return (id(value), value._version) if isinstance(value, Tensor) else repr(value)


class Exponential:
    """A linear function of `exp(scores)`, or of several of these, as of the chunks of a row.

    Attributes:
        scores: the exponents.
        parts: what it is made of by one step; empty for the exponential itself.
        summed: whether a step summed entries.
        shares: of a product with a live tensor, what the exponential gets and what the other gets.
    """

    __slots__ = ("_step", "depth", "parts", "scores", "shares", "summed")

    def __init__(
        self, scores: tuple[Read, ...], parts: tuple[Exponential, ...] = (), step: Step | None = None, summed: bool = False,
        shares: tuple[Share, Share] | None = None,
    ) -> None:  # fmt: skip
        self.scores, self.parts, self._step = scores, parts, step
        self.summed: bool = summed or any(part.summed for part in parts)
        self.shares: tuple[Share, Share] | None = shares or next(
            (part.shares for part in parts if part.shares is not None), None
        )
        self.depth: int = 1 + max((part.depth for part in parts), default=0)

    def then(self, step: Callable[[Tensor], Tensor], summed: bool = False) -> Exponential | None:
        """What one more step makes of it. The step must not write into its operand."""
        return joined((self,), lambda parts: step(parts[0]), summed)

    def within(self, other: Exponential) -> bool:
        """Whether all of its exponents are exponents of the other."""
        return all(any(one.same(each) for each in other.scores) for one in self.scores)

    def again(self, exp: Callable[[Tensor], Tensor], other: float | None = None) -> Tensor:
        """The same steps from other exponentials of the scores. `other` is what another factor gets, if not its share."""
        known: dict[int, Tensor] = {}
        todo: list[Exponential] = [self]
        while todo:
            one = todo[-1]
            missing = [part for part in one.parts if id(part) not in known]
            if missing:
                todo += missing
                continue
            todo.pop()
            if id(one) not in known:
                known[id(one)] = one.made([known[id(part)] for part in one.parts], exp, other)
        return known[id(self)]

    def made(self, parts: list[Tensor], exp: Callable[[Tensor], Tensor], other: float | None) -> Tensor:
        """The last step, on these parts, or the exponential itself."""
        return exp(self.scores[0].again()) if self._step is None else self._step(parts)


class Product(Exponential):
    """A product of a function of an exponential, not yet summed, and another live tensor."""

    __slots__ = ("_function", "_other")

    def __init__(
        self, e: Exponential, other: Read, function: Callable[[Tensor, Tensor], Tensor], shares: tuple[Share, Share]
    ) -> None:
        super().__init__(e.scores, (e,), shares=shares)
        self._other, self._function = other, function

    def made(self, parts: list[Tensor], exp: Callable[[Tensor], Tensor], other: float | None) -> Tensor:
        """The product."""
        assert self.shares is not None
        share = self.shares[1] if other is None else other
        return self._function(parts[0], scaled(self._other.again(), share))


def joined(parts: tuple[Exponential, ...], step: Step, summed: bool = False) -> Exponential | None:
    """What a step makes of several functions; None if their shares differ, or if there are too many steps."""
    shares = [part.shares for part in parts if part.shares is not None]
    if any(part.depth > _DEEPEST for part in parts) or any(one != shares[0] for one in shares):
        return None
    scores = list(parts[0].scores)
    for part in parts[1:]:
        scores += [one for one in part.scores if not any(one.same(each) for each in scores)]
    return Exponential(tuple(scores), parts, step, summed)


def after(known: Exponential, step: Callable[[Tensor], Tensor], traits: frozenset[str]) -> Exponential | None:
    """What an operation makes of it."""
    return known.then(step, REDUCES in traits)


def added(
    known: list[Exponential], total: Callable[[list[Tensor]], Tensor], summands: list[Tensor]
) -> Exponential | None:
    """A sum of parts of exponentials. A difference of them is below no softmax."""
    with aside(), torch.no_grad():
        for n in range(len(summands)):
            alone = total([part.detach() if m == n else torch.zeros_like(part) for m, part in enumerate(summands)])
            if bool((alone < 0).any()):
                return None
    return joined(tuple(known), total, True)


def added_products(
    known: list[Exponential], total: Callable[[list[Tensor]], Tensor], summands: list[Tensor]
) -> Exponential | None:
    """A sum of products with exponentials, whatever their signs."""
    return joined(tuple(known), total, True)


def joined_parts(known: list[Any], join: Callable[[Any], Tensor]) -> Exponential | None:
    """Parts that are joined, some of which may be constants."""
    places = [n for n, part in enumerate(known) if isinstance(part, Exponential)]

    def step(parts: list[Tensor]) -> Tensor:
        given = dict(zip(places, parts, strict=True))
        return join([given.get(n, part) for n, part in enumerate(known)])

    return joined(tuple(known[n] for n in places), step)
