"""Moves: where the entries of a tensor were before operations moved them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.notes import Move, Note, note_of, noted
from relprop.engine.roles import carry, selects
from relprop.engine.traits import MOVES
from relprop.numerics import aside
from relprop.torch_private.recorded import recording


def chained(note: Note | None) -> tuple[Note | None, tuple[Move, ...]]:
    """The note of the tensor that a chain made, and how its entries were moved since."""
    moves: list[Move] = []
    while note is not None and (note.chain is None or note.chain.source is None):
        if note.move is None:
            return None, ()
        if note.move.function is not None:
            moves.append(note.move)
        note = note.move.note
    return note, tuple(reversed(moves))


def picked(call: Call, input: Tensor, result: Any, dim: int) -> Any:
    """Notes that the values of a result, (values, indices), are entries of the operand, gathered at the indices."""
    known = note_of(input)
    if isinstance(result, tuple) and len(result) == 2 and known is not None and result[0].requires_grad:
        values, indices = result
        call.run.model.note_data(indices)
        lost = values.ndim < input.ndim
        call.note(values)
        carry(call.run, frozenset({MOVES}), _gathered, [input], [known], (input, dim, indices, lost), {}, values)
    elif isinstance(result, Tensor) and known is not None:
        selects(call, [input], result)
    return result


def came_from(call: Call, t: Tensor, known: Note, shape: torch.Size, function: Any = None, *args: Any) -> None:
    """Notes that a live tensor has the entries of one that was noted before, moved by `function` if it is given."""
    known.forked = True
    note = noted(call.run, t)
    note.move = Move(known, shape, function, args, {}, None)


@dataclass(frozen=True)
class ConstantPart:
    """A part of a concatenation that is constant. Only its shape counts."""

    shape: torch.Size

    def like(self, t: Tensor) -> Tensor:
        """Zeros of that shape."""
        return t.new_zeros(()).expand(self.shape)


class Joined:
    """A concatenation of parts of one tensor, as a function of it. Each part is given by its moves or is a constant."""

    def __init__(self, pieces: list[tuple[Move, ...] | ConstantPart], join: Callable[[Any], Tensor]) -> None:
        self.pieces, self._join = pieces, join
        inner = (move.function for piece in pieces if isinstance(piece, tuple) for move in piece)
        self.depth: int = 1 + max((f.depth for f in inner if isinstance(f, Joined)), default=0)

    def __call__(self, t: Tensor) -> Tensor:
        return self._join([each.like(t) if isinstance(each, ConstantPart) else moved(t, each) for each in self.pieces])


def _gathered(t: Tensor, dim: int, indices: Tensor, lost: bool) -> Tensor:
    found = t.gather(dim, indices.unsqueeze(dim) if lost else indices)
    return found.squeeze(dim) if lost else found


def history(note: Note | None, shape: torch.Size) -> tuple[torch.Size, list[Move]]:
    """The shape of the tensor that first held these numbers, and how they were moved since."""
    _, before, moves = first_held(note)
    return before or shape, moves


def first_held(note: Note | None) -> tuple[Note | None, torch.Size | None, list[Move]]:
    """The note of the tensor that first held these numbers, its shape, and how they were moved since."""
    shape, moves = None, []
    while note is not None and note.move is not None:
        shape = note.move.shape
        if note.move.function is not None:
            moves.append(note.move)
        note = note.move.note
    return note, shape, moves[::-1]


def stay(moves: tuple[Move, ...]) -> bool:
    """Whether moves leave every entry in its place, whatever the numbers are.

    If entries were added or left out on the way, as by a padding and a slice, the result counts as another tensor: what is
    written part by part into a larger tensor, and read from there, is one, too.
    """
    if not moves:
        return True
    count = moves[0].shape.numel()
    if any(move.shape.numel() != count for move in moves) or not all(map(fixed, moves)):
        return False
    with aside(), torch.no_grad():
        at = torch.arange(1, moves[0].shape.numel() + 1).reshape(moves[0].shape)
        try:
            there = moved(at, moves)
        except (RuntimeError, TypeError, IndexError):
            return False
        return there.shape == at.shape and bool(torch.equal(there, at))


def fixed(move: Move) -> bool:
    """Whether a move is the same for all inputs. If a mask or an index depends on them, another sample may differ."""
    if isinstance(move.function, Joined):
        return all(fixed(m) for piece in move.function.pieces if isinstance(piece, tuple) for m in piece)
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


def moved(t: Tensor, moves: tuple[Move, ...]) -> Tensor:
    for move in moves:
        t = move(t)
    return t


def equal(a: Move, b: Move) -> bool:
    """Whether two moves are the same call."""
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
        indices = x.dtype is torch.int64 is y.dtype  # the same choice, computed twice; two masks may agree by chance
        return x is y or (indices and x.shape == y.shape and not recording() and torch.equal(x, y))
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        return False
    if isinstance(x, (tuple, list)) and type(x) is type(y):
        return len(x) == len(y) and all(_alike(i, j) for i, j in zip(x, y, strict=True))
    return type(x) is type(y) and bool(x == y)
