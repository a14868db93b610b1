"""Origins: the live tensor that another is an elementwise function of, by a chain of operations with scalars alone.

An activation acts on what it is given, `x + 0.3` say, in which the 0.3 is a bias. So a chain starts at the operand of its
first step that is not affine. Where operands meet, as in `x * relu6(x + 3)`, they have what they have in common: x.

Copies, casts and views keep an origin. Where entries change their place, a lone activation starts anew; what was moved in
the same way still meets. Two tensors hold the same numbers where both come from one tensor by moves that amount to the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.notes import Move, Note, note_of, noted
from relprop.engine.run import Run
from relprop.numerics import aside
from relprop.torch_private.recorded import recording

SOURCE = object()


class Step:
    """One operation of an elementwise chain; `SOURCE` among its operands stands for the source."""

    __slots__ = ("affine", "args", "function", "gate", "kwargs", "line")
    affine: bool
    line: bool
    """Whether the operation itself is a scale or a shift, whatever its operand is."""

    def __init__(self, function: Callable[..., Any], args: tuple, kwargs: dict, affine: bool = False) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs
        self.line = affine
        self.affine = affine and all(a.affine for a in args if isinstance(a, Step))
        self.gate: int | None = None  # see operations.gates

    def __call__(self, s: Tensor) -> Tensor:
        order = self.steps()
        readers = Counter(id(a) for step in order for a in step.args if isinstance(a, Step))
        found: dict[int, Tensor] = {}
        for step in order:
            found[id(step)] = step.function(*(step._operand(a, s, found) for a in step.args), **step.kwargs)
            for a in step.args:
                if isinstance(a, Step):
                    readers[id(a)] -= 1
                    if not readers[id(a)]:
                        del found[id(a)]
        return found[id(self)]

    def steps(self) -> list[Step]:
        """Every operation of the chain, operands before what reads them. A loop: a chain may be longer than Python's stack."""
        order: dict[int, Step] = {}
        waiting = [self]
        while waiting:
            step = waiting[-1]
            before = [a for a in step.args if isinstance(a, Step) and id(a) not in order]
            if before:
                waiting += before
            else:
                order.setdefault(id(step), waiting.pop())
        return list(order.values())

    def _operand(self, a: Any, s: Tensor, found: dict[int, Tensor]) -> Any:
        if a is SOURCE:
            return s
        if isinstance(a, Step):
            return found[id(a)]
        return a.to(s.dtype) if isinstance(a, Tensor) and a.is_floating_point() else a


class Origin(NamedTuple):
    """A tensor as `step` of `source`, its entries moved by `moves` since; `SOURCE` as a step is the source itself.

    `note` is the source's at that time. Where the source was written into since, it is `stale`.
    """

    source: Tensor
    step: Any
    moves: tuple[Move, ...] = ()
    note: Note | None = None
    stale: bool = False

    def __call__(self) -> Tensor:
        """The source, its entries moved as those of the tensor: what a chain starts from."""
        return _moved(self.source, self.moves)


_DEEPEST = 16
"""How many affine steps, one behind the other, are looked through: each keeps its operand."""


def origin(t: Tensor) -> Origin:
    """What an activation of a live tensor is a function of: the start of its chain, or itself."""
    found = next(_levels(t))
    return Origin(t, SOURCE, (), note_of(t)) if found.stale else found


def beyond(t: Tensor) -> Origin:
    """The farthest that a live tensor is known to be a function of, beyond its affine steps."""
    *_, last = (level for level in _levels(t) if not level.stale)
    return last


def _levels(t: Tensor) -> Iterator[Origin]:
    """What a live tensor is a function of: itself, unless a chain made it; that chain's start; what that is affine in."""
    own = note_of(t)
    note, moved = _chained(own)
    if note is None or note.step.affine or not _stay(moved):
        yield Origin(t, SOURCE, (), own)
    step: Any = SOURCE
    moves: tuple[Move, ...] = ()
    for _ in range(_DEEPEST):
        if note is None or note.source is None:
            return
        step = note.step if step is SOURCE else Step(step, (note.step,), {}, affine=step.affine)
        moves = (*note.moves, *moved, *moves)
        yield Origin(note.source, step, moves, note.source_note, note.source._version != note.source_version)
        note, moved = _chained(note.source_note)
        if note is not None and not note.step.affine:
            return


def _chained(note: Note | None) -> tuple[Note | None, tuple[Move, ...]]:
    """The note of the chain that made a tensor, and how it was moved since."""
    moves: list[Move] = []
    while note is not None and note.source is None:
        if note.move is None:
            return None, ()
        if note.move.function is not None:
            moves.append(note.move)
        note = note.move.note
    return note, tuple(reversed(moves))


def chain(
    function: Callable[..., Any], args: tuple, kwargs: dict, affine: bool = False, written: Tensor | None = None
) -> Origin | None:
    """What the result of an elementwise function is, if all its live operands have something in common.

    Args:
        function: the operation.
        args: its operands.
        kwargs: its options.
        affine: whether it is a scale or a shift.
        written: a tensor that is about to be overwritten: another with the same numbers is the better source.
    """
    live = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
    if not live or any(a.shape != live[0].shape for a in live[1:]):
        return None
    origins = [origin(live[0])] if len(live) == 1 else _common(live)
    if origins is None:
        return None
    first = min(origins, key=lambda one: (one.stale, one.source is written, len(one.moves)))
    if first.stale:
        return None
    found = iter(origins)
    steps = tuple(next(found).step if isinstance(a, Tensor) and a.requires_grad else a for a in args)
    return first._replace(step=Step(function, steps, kwargs, affine))


def proportional(a: Tensor, b: Tensor) -> bool:
    """Whether two live tensors are known to be multiples of one: `h` and `0.1 * h`, `h` and `-h`."""
    found = None if a.shape != b.shape else _common([a, b])
    if found is None or found[0].moves != found[1].moves:
        return False
    roots = [_unscaled(one.step) for one in found]
    return roots[0] is roots[1]


def _unscaled(step: Any) -> Any:
    """A chain without the factors at its end."""
    while isinstance(step, Step) and step.line:
        (operand, *others) = [a for a in step.args if a is SOURCE or isinstance(a, Step)]
        if others or float(step.function(*(_as_zero(a) for a in step.args), **step.kwargs)) != 0:
            break  # a shift
        step = operand
    return step


def _as_zero(a: Any) -> Any:
    return torch.zeros((), dtype=torch.float64) if a is SOURCE or isinstance(a, Step) else a


def _common(live: list[Tensor]) -> list[Origin] | None:
    """The nearest tensor that all of some tensors are functions of."""
    first, *others = (list(_levels(t)) for t in live)
    for one in first:
        found = [one]
        for levels in others:
            match = next((other for other in levels if _one(one, other) or _same(one, other)), None)
            if match is None:
                break
            found.append(match)
        else:
            return found
    return None


def _one(a: Origin, b: Origin) -> bool:
    return a.source is b.source and a.note is b.note and not (a.moves or b.moves)


def remember(result: Tensor, run: Run, found: Origin) -> Tensor:
    """Notes on a result that it is an elementwise function of a source."""
    note = noted(run, result)
    note.source, note.step, note.moves, note.move = found.source, found.step, found.moves, None
    note.source_note = found.note if found.note is not None else note_of(found.source)
    note.source_version = found.source._version
    if note.source_note is not None:
        note.source_note.forked = True
    return result


def remembered(call: Call, result: Tensor, found: Origin) -> Tensor:
    """As `remember`, for the result of a call."""
    return remember(result, call.run, found)


def picked(call: Call, input: Tensor, result: Any, dim: int) -> Any:
    """Notes that the values of a result, (values, indices), are entries of the operand, moved to where the indices say."""
    known = note_of(input)
    if isinstance(result, tuple) and len(result) == 2 and known is not None and result[0].requires_grad:
        values, indices = result
        call.run.model.note_data(indices)
        lost = values.ndim < input.ndim
        note = noted(call.run, values)
        known.forked = True
        note.move = Move(known, input.shape, _gathered, (dim, indices, lost), {}, None)
    return result


def joined(call: Call, parts: Any, result: Tensor, join: Callable[[Any], Tensor]) -> Tensor:
    """Notes of a concatenation whose live parts are parts of one tensor that it is this tensor, its entries moved.

    Args:
        call: of the operation.
        parts: its operands; constants may be among them.
        result: what it returned.
        join: the operation on other operands.
    """
    live = [t for t in parts if isinstance(t, Tensor) and t.requires_grad]
    known = [_chained(note_of(t)) for t in live]
    first = known[0][0] if known else None
    if first is None or any(note is not first for note, _ in known):
        return result
    ways = iter([moves for _, moves in known])
    pieces = [next(ways) if isinstance(t, Tensor) and t.requires_grad else torch.zeros_like(t) for t in parts]
    moves = known[0][1]
    shape = moves[0].shape if moves else live[0].shape
    noted(call.run, result).move = Move(first, shape, Joined(pieces, join), (), {}, None)
    return result


class Joined:
    """A concatenation of parts of one tensor, as a function of that tensor: each part by its moves, or a constant."""

    def __init__(self, pieces: list[Any], join: Callable[[Any], Tensor]) -> None:
        self.pieces, self._join = pieces, join

    def __call__(self, t: Tensor) -> Tensor:
        return self._join([_moved(t, piece) if isinstance(piece, tuple) else piece for piece in self.pieces])


def _gathered(t: Tensor, dim: int, indices: Tensor, lost: bool) -> Tensor:
    found = t.gather(dim, indices.unsqueeze(dim) if lost else indices)
    return found.squeeze(dim) if lost else found


def root(note: Note | None) -> Note | None:
    """The note of the tensor that first held some numbers."""
    while note is not None and note.move is not None:
        note = note.move.note
    return note


def history(note: Note | None, shape: torch.Size) -> tuple[torch.Size, list[Move]]:
    """The shape of the tensor that first held some numbers, and how they were moved since."""
    _, before, moves = _root(note)
    return before or shape, moves


def _root(note: Note | None) -> tuple[Note | None, torch.Size | None, list[Move]]:
    """The note of the tensor that first held some numbers, its shape, and how they were moved since."""
    shape, moves = None, []
    while note is not None and note.move is not None:
        shape = note.move.shape
        if note.move.function is not None:
            moves.append(note.move)
        note = note.move.note
    return note, shape, moves[::-1]


def _same(a: Origin, b: Origin) -> bool:
    """Whether two sources, moved, hold the same numbers."""
    (one, shape, before), (other, there_shape, there) = _root(a.note), _root(b.note)
    if one is None or one is not other:
        return False
    left, right = [*before, *a.moves], [*there, *b.moves]
    if len(left) == len(right) and all(_equal(m, n) for m, n in zip(left, right, strict=True)):
        return True
    if not all(map(_fixed, (*left, *right))):
        return False
    shape = next(s for s in (shape, there_shape, (left or right)[0].shape) if s is not None)
    with aside(), torch.no_grad():
        # one number for each entry, none of which a move would fill in
        at = math.pi * torch.arange(1, shape.numel() + 1, dtype=torch.float64).reshape(shape)
        try:
            one_way, other_way = (_moved(at, tuple(moves)) for moves in (left, right))
        except (RuntimeError, TypeError, IndexError):
            return False
        return one_way.shape == other_way.shape and bool(torch.equal(one_way, other_way))


def _stay(moves: tuple[Move, ...]) -> bool:
    """Whether moves leave all entries where they were, whatever these are."""
    if not moves:
        return True
    if not all(map(_fixed, moves)):
        return False
    with aside(), torch.no_grad():
        at = torch.arange(1, moves[0].shape.numel() + 1).reshape(moves[0].shape)
        try:
            there = _moved(at, moves)
        except (RuntimeError, TypeError, IndexError):
            return False
        return there.shape == at.shape and bool(torch.equal(there, at))


def _fixed(move: Move) -> bool:
    """Whether a move is the same for all inputs: where a mask or an index depends on them, another sample may differ."""
    if isinstance(move.function, Joined):
        return all(_fixed(m) for piece in move.function.pieces if isinstance(piece, tuple) for m in piece)
    given = [*move.args, *move.kwargs.values()]
    while given:
        value = given.pop()
        if isinstance(value, Tensor) and (
            value.dtype is torch.bool or value.requires_grad or move.note.run.model.depends(value)
        ):
            return False
        if isinstance(value, (list, tuple)):
            given += value
    return True


def _moved(t: Tensor, moves: tuple[Move, ...]) -> Tensor:
    for move in moves:
        t = move(t)
    return t


def _equal(a: Move, b: Move) -> bool:
    """Whether two moves are one by how they were called."""
    return (
        a.function is b.function
        and a.part == b.part
        and a.shape == b.shape
        and len(a.args) == len(b.args)
        and a.kwargs.keys() == b.kwargs.keys()
        and all(_alike(x, y) for x, y in zip(a.args, b.args, strict=True))
        and all(_alike(x, b.kwargs[key]) for key, x in a.kwargs.items())
    )


def _alike(x: Any, y: Any) -> bool:
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        indices = x.dtype is torch.int64 is y.dtype  # of one pick, asked for twice; a mask may fit by chance
        return x is y or (indices and x.shape == y.shape and not recording() and torch.equal(x, y))
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        return False
    if isinstance(x, (tuple, list)) and type(x) is type(y):
        return len(x) == len(y) and all(_alike(i, j) for i, j in zip(x, y, strict=True))
    return type(x) is type(y) and bool(x == y)
