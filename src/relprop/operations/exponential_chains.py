"""Linear functions of exponentials, as graphs of steps that can be run again on other exponentials.

A tensor may be used several times, as a buffer that is written part by part or a running sum. So each step is run once,
however many paths lead to it and however many quotients ask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import Share, custom, scaled
from relprop.engine.moves import first_held
from relprop.engine.notes import Note
from relprop.engine.reruns import each_once
from relprop.engine.traits import REDUCES
from relprop.numerics import aside

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

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for tensors with the same numbers, as the same part of one tensor."""
        return id(self.note), self.part

    @classmethod
    def by(cls, call: Call, t: Tensor) -> Read:
        known = call.note(t)
        note, _, moves = first_held(known)
        part = tuple((move.function, move.part, move.shape, _key((move.args, move.kwargs))) for move in moves)
        return cls(t, t._version, t.clone() if call.copies_are_kept else t, note or known, part)

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


class Anew(NamedTuple):
    """How the steps are run again.

    Attributes:
        temperature: by which the exponents are divided.
        share: what the exponentials get; all if it is None.
        constant: whether the exponentials are constants.
        other: what another factor gets, if not its share.
    """

    temperature: float = 1.0
    share: Share | None = None
    constant: bool = False
    other: float | None = None

    def exp(self, scores: Tensor) -> Tensor:
        """`exp(scores / t)`, whose gradient with respect to `scores / t` is torch's."""
        value = (scores.detach() / self.temperature).exp() if self.temperature != 1 else scores.detach().exp()
        if self.constant:
            return value
        e = custom(scores, lambda: value, lambda _, g: g * value)
        return e if self.share is None else scaled(e, self.share)


class Exponential:
    """A linear function of `exp(scores)`, or of several of these, as of the chunks of a row.

    Attributes:
        scores: the exponent, if it is the exponential itself.
        of: the keys of all exponents.
        parts: what it is made of by one step; empty for the exponential itself.
        summed: whether a step summed entries.
        shares: of a product with a live tensor, what the exponential gets and what the other gets.
    """

    __slots__ = ("_known", "_step", "of", "parts", "scores", "shares", "summed")

    def __init__(
        self, scores: Read | None, parts: tuple[Exponential, ...] = (), step: Step | None = None, summed: bool = False,
        shares: tuple[Share, Share] | None = None,
    ) -> None:  # fmt: skip
        self.scores, self.parts, self._step = scores, parts, step
        self.of: frozenset[Any] = frozenset({scores.key} if scores is not None else ())
        for part in parts:
            self.of = self.of if part.of <= self.of else self.of | part.of
        self.summed: bool = summed or any(part.summed for part in parts)
        self.shares: tuple[Share, Share] | None = shares or next(
            (part.shares for part in parts if part.shares is not None), None
        )
        self._known: dict[Anew, Tensor] = {}

    def then(self, step: Callable[[Tensor], Tensor], summed: bool = False) -> Exponential | None:
        """What one more step makes of it. The step must not write into its operand."""
        return joined((self,), lambda parts: step(parts[0]), summed)

    def exponent(self) -> Read:
        """The exponent; the first one, if there are several."""
        one = self
        while one.scores is None:
            one = one.parts[0]
        return one.scores

    def again(self, anew: Anew) -> Tensor:
        """The same steps from the exponential of the scores."""
        each_once(self, lambda e: [part for part in e.parts if anew not in part._known], lambda e: e.run(anew))
        return self._known[anew]

    def run(self, anew: Anew) -> None:
        """Runs the last step, after all before it."""
        if anew not in self._known:
            self._known[anew] = self.made([part._known[anew] for part in self.parts], anew)

    def made(self, parts: list[Tensor], anew: Anew) -> Tensor:
        """The last step, on these parts, or the exponential itself."""
        if self._step is None:
            assert self.scores is not None
            return anew.exp(self.scores.again())
        return self._step(parts)


class Product(Exponential):
    """A product of a function of an exponential, not yet summed, and another live tensor."""

    __slots__ = ("_function", "_other")

    def __init__(
        self, e: Exponential, other: Read, function: Callable[[Tensor, Tensor], Tensor], shares: tuple[Share, Share]
    ) -> None:
        super().__init__(None, (e,), shares=shares)
        self._other, self._function = other, function

    def made(self, parts: list[Tensor], anew: Anew) -> Tensor:
        """The product."""
        assert self.shares is not None
        share = self.shares[1] if anew.other is None else anew.other
        return self._function(parts[0], scaled(self._other.again(), share))


def joined(parts: tuple[Exponential, ...], step: Step, summed: bool = False) -> Exponential | None:
    """What a step makes of several functions; None if their shares differ."""
    shares = [part.shares for part in parts if part.shares is not None]
    if any(one != shares[0] for one in shares):
        return None
    return Exponential(None, parts, step, summed)


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
