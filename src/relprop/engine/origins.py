"""Origins: the live tensor that another is an elementwise function of, by a chain of operations with scalars alone.

An activation acts on its operand, such as `x + 0.3`, in which the 0.3 is a bias. So a chain starts at the operand of
its first step that is not affine, nor a relu or its like, whose secant is its gradient. If operands meet, as in
`x * relu6(x + 3)`, their origin is the tensor they share: x.

Copies, casts and views keep an origin. After entries change places, an activation of one operand starts a new chain,
but tensors moved in the same way still share an origin. Two tensors hold the same numbers if both come from one tensor
by equivalent moves.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.moves import chained, equal, first_held, fixed, moved, stay
from relprop.engine.notes import Chain, Move, Note, note_of, noted
from relprop.engine.run import Run
from relprop.numerics import aside

SOURCE = object()


class ChainStep:
    """One operation of an elementwise chain. Among its operands, `SOURCE` stands for the source."""

    __slots__ = ("_judged", "affine", "args", "function", "kwargs", "line")
    affine: bool
    """Whether an activation behind it starts a chain of its own: it consists of scales, shifts, relus and their like."""
    line: bool
    """Whether the operation itself is a scale or a shift, whatever its operand is."""

    def __init__(self, function: Callable[..., Any], args: tuple, kwargs: dict, affine: bool = False) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.line = self.affine = affine
        for a in args:
            if isinstance(a, ChainStep) and not a.affine:
                self.affine = False
        self._judged: Any = None

    def anew(self) -> ChainStep:
        """The chain itself, of which the last operation is a relu or its like: behind it an activation starts anew."""
        self.affine = all(a.affine for a in self.args if isinstance(a, ChainStep))
        return self

    def __call__(self, s: Tensor) -> Tensor:
        order = self.steps()
        readers = Counter(id(a) for step in order for a in step.args if isinstance(a, ChainStep))
        found: dict[int, Tensor] = {}
        for step in order:
            found[id(step)] = step.function(*(step._operand(a, s, found) for a in step.args), **step.kwargs)
            for a in step.args:
                if isinstance(a, ChainStep):
                    readers[id(a)] -= 1
                    if not readers[id(a)]:
                        del found[id(a)]
        return found[id(self)]

    def judged(self, judge: Callable[[ChainStep], Any]) -> Any:
        """What `judge` says of the step. It is asked once, and there is one judge (`operations.gates`)."""
        if self._judged is None:
            self._judged = judge(self)
        return self._judged

    def steps(self) -> list[ChainStep]:
        """All operations of the chain, operands first. It is a loop: a chain may be longer than Python's stack."""
        order: dict[int, ChainStep] = {}
        waiting = [self]
        while waiting:
            step = waiting[-1]
            before = [a for a in step.args if isinstance(a, ChainStep) and id(a) not in order]
            if before:
                waiting += before
            else:
                order.setdefault(id(step), waiting.pop())
        return list(order.values())

    def ends(self) -> Iterator[ChainStep]:
        """The chain, and each end of it that is a function of what a step before it returns."""
        yield self
        order = self.steps()
        for start in reversed(order[:-1]):
            made: dict[int, Any] = {id(start): SOURCE}
            for step in order:
                if step is start or not any(isinstance(a, ChainStep) for a in step.args):
                    continue
                if any(a is SOURCE for a in step.args) or any(
                    isinstance(a, ChainStep) and id(a) not in made for a in step.args
                ):
                    continue  # not a function of that step alone
                args = tuple(made[id(a)] if isinstance(a, ChainStep) else a for a in step.args)
                made[id(step)] = ChainStep(step.function, args, step.kwargs, step.line)
            if id(self) in made:
                yield made[id(self)]

    def _operand(self, a: Any, s: Tensor, found: dict[int, Tensor]) -> Any:
        if a is SOURCE:
            return s
        if isinstance(a, ChainStep):
            return found[id(a)]
        return a.to(s.dtype) if isinstance(a, Tensor) and a.is_floating_point() else a


class Origin(NamedTuple):
    """A tensor as `step` of `source`, with its entries then moved by `moves`. `SOURCE` as a step is the source itself.

    `note` is the source's note at that time. An origin is `stale` if the source was written into since.
    """

    source: Tensor
    step: Any
    moves: tuple[Move, ...] = ()
    note: Note | None = None
    stale: bool = False

    def __call__(self) -> Tensor:
        """The start of the chain: the source, with its entries moved as those of the tensor."""
        return moved(self.source, self.moves)


_DEEPEST = 16
"""How many successive affine steps are looked through. Each keeps its operand alive."""


def origin(t: Tensor) -> Origin:
    """The tensor that an activation of a live tensor is a function of: the start of its chain, or itself."""
    own = note_of(t)
    if own is None or (own.chain is None and own.move is None):  # nothing is known beyond it
        return Origin(t, SOURCE, (), own)
    found = next(_levels(t))
    return Origin(t, SOURCE, (), note_of(t)) if found.stale else found


def beyond(t: Tensor) -> Origin:
    """The farthest tensor that a live tensor is known to be a function of, beyond its affine steps."""
    *_, last = (level for level in _levels(t) if not level.stale)
    return last


def _levels(t: Tensor) -> Iterator[Origin]:
    """The origins of a live tensor: itself unless a chain made it, that chain's start, and on through affine chains."""
    own = note_of(t)
    note, moved = chained(own)
    if note is None or note.chain is None or note.chain.step.affine or not stay(moved) or _stale(note.chain):
        yield Origin(t, SOURCE, (), own)
    step: Any = SOURCE
    moves: tuple[Move, ...] = ()
    for _ in range(_DEEPEST):
        known = None if note is None else note.chain
        if known is None or known.source is None:
            return
        step = known.step if step is SOURCE else ChainStep(step, (known.step,), {}, affine=step.affine)
        moves = (*known.moves, *moved, *moves)
        yield Origin(known.source, step, moves, known.note, known.source._version != known.version)
        note, moved = chained(known.note)
        if note is not None and note.chain is not None and not note.chain.step.affine and stay(moved):
            return


def _stale(known: Chain) -> bool:
    """Whether the source of a chain was written into since: then what it made stands for itself."""
    return known.source is not None and known.source._version != known.version


def chain(
    function: Callable[..., Any], args: tuple, kwargs: dict, affine: bool = False, written: Tensor | None = None
) -> Origin | None:
    """The origin of an elementwise function's result, if all its live operands are real and share one.

    Args:
        function: the operation.
        args: its operands.
        kwargs: its options.
        affine: whether it is a scale or a shift.
        written: a tensor about to be overwritten; another source with the same numbers is preferred.
    """
    operands, live = list(args), []
    for number, a in enumerate(args):
        if isinstance(a, Tensor) and a.requires_grad:
            if a.is_complex():
                return None
            live.append(number)
    if not live:
        return None
    first = args[live[0]]
    if len(live) == 1:
        origins: list[Origin] | None = [origin(first)]
    else:
        several = [args[number] for number in live]
        for other in several:
            if other.shape != first.shape:
                return None
        origins = _common(several)
    if origins is None:
        return None
    one = origins[0]
    if len(origins) > 1:
        one = min(origins, key=lambda one: (one.stale, one.source is written, len(one.moves)))
    if one.stale:
        return None
    for number, found in zip(live, origins, strict=True):
        operands[number] = found.step
    return Origin(one.source, ChainStep(function, tuple(operands), kwargs, affine), one.moves, one.note, one.stale)


def proportional(a: Tensor, b: Tensor) -> bool:
    """Whether two live tensors are known to be multiples of the same tensor: `h` and `0.1 * h`, `h` and `-h`."""
    found = None if a.shape != b.shape else _common([a, b])
    if found is None or found[0].moves != found[1].moves:
        return False
    roots = [_unscaled(one.step) for one in found]
    return roots[0] is roots[1]


def _unscaled(step: Any) -> Any:
    """A chain without the factors at its end."""
    while isinstance(step, ChainStep) and step.line:
        (operand, *others) = [a for a in step.args if a is SOURCE or isinstance(a, ChainStep)]
        if others or float(step.function(*(_as_zero(a) for a in step.args), **step.kwargs)) != 0:
            break  # a shift
        step = operand
    return step


def _as_zero(a: Any) -> Any:
    return torch.zeros((), dtype=torch.float64) if a is SOURCE or isinstance(a, ChainStep) else a


def _common(live: list[Tensor]) -> list[Origin] | None:
    """For each of several tensors, its origin in the nearest tensor that all are functions of."""
    if _strangers(*live[:2]):
        return None
    first, *others = (list(_levels(t)) for t in live)
    for one in first:
        found = [one]
        for levels in others:
            match = None
            for other in levels:
                if _one(one, other) or _same(one, other):
                    match = other
                    break
            if match is None:
                break
            found.append(match)
        else:
            return found
    return None


def _strangers(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are different numbers of which nothing else is known: the most common case."""
    one, other = note_of(a), note_of(b)
    if one is None or other is None or one is other:
        return False
    return one.chain is None and one.move is None and other.chain is None and other.move is None


def _one(a: Origin, b: Origin) -> bool:
    return a.source is b.source and a.note is b.note and not (a.moves or b.moves)


def remember(result: Tensor, run: Run, found: Origin) -> Tensor:
    """Notes on a result that it is an elementwise function of a source."""
    note = noted(run, result)
    source = found.note if found.note is not None else note_of(found.source)
    note.chain, note.move = Chain(found.step, found.source, found.moves, source, found.source._version), None
    if source is not None:
        source.forked = True
    return result


def remembered(call: Call, result: Tensor, found: Origin) -> Tensor:
    """The same as `remember`, for the result of a call."""
    return remember(result, call.run, found)


def _same(a: Origin, b: Origin) -> bool:
    """Whether two sources, after their moves, hold the same numbers."""
    (one, shape, before), (other, there_shape, there) = first_held(a.note), first_held(b.note)
    if one is None or one is not other:
        return False
    left, right = [*before, *a.moves], [*there, *b.moves]
    if len(left) == len(right) and all(equal(m, n) for m, n in zip(left, right, strict=True)):
        return True
    if not all(map(fixed, (*left, *right))):
        return False
    shape = next(s for s in (shape, there_shape, (left or right)[0].shape) if s is not None)
    with aside(), torch.no_grad():
        # a distinct number for each entry, which no move would use as a fill value
        at = math.pi * torch.arange(1, shape.numel() + 1, dtype=torch.float64).reshape(shape)
        try:
            one_way, other_way = (moved(at, tuple(moves)) for moves in (left, right))
        except (RuntimeError, TypeError, IndexError):
            return False
        return one_way.shape == other_way.shape and bool(torch.equal(one_way, other_way))
