"""Tensors that are joined of parts, by a concatenation or by writes into a new tensor, and what they are known to be.

A role that follows each step (`Role.then`) also goes on where a part is written into a constant, or summed into it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import EllipsisType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relprop.engine.moves import ConstantPart, Joined, chained, first_held
from relprop.engine.notes import Move, Note, note_of, noted
from relprop.engine.registry import Entry
from relprop.engine.roles import ROLES
from relprop.engine.tensors import is_live
from relprop.engine.traits import REDUCES

_DEEPEST = 64
"""How many joinings in one another are followed, as of a tensor that is written step by step."""
Join = Callable[[list[Tensor]], Tensor]
"""A joining as a function of other parts."""


class Part(NamedTuple):
    """A part: a tensor, and its note if it is live."""

    tensor: Tensor
    note: Note | None


def as_parts(tensors: Any) -> list[Part]:
    """Operands of a concatenation as parts."""
    return [Part(t, note_of(t) if is_live(t) else None) for t in tensors if isinstance(t, Tensor)]


def joined(run: Any, parts: list[Part], result: Tensor, join: Join) -> Tensor:
    """Notes what is known of a tensor that is joined of parts: the roles of all of them, and where its entries were."""
    note = noted(run, result)
    live = [each.note for each in parts if each.note is not None]
    if not live:
        return result
    _roles_joined(note, parts, join)
    found = _of_one([chained(one) for one in live]) or _of_one([_held(one) for one in live])
    if found is not None:
        first, ways = found
        way = iter(ways)
        pieces = [ConstantPart(each.tensor.shape) if each.note is None else next(way) for each in parts]
        shapes = (moves[0].shape if moves else None for moves in ways)
        whole = next((each.tensor.shape for each in parts if each.note is first), None)
        shape = next(filter(None, shapes), whole)
        function = Joined(pieces, join)
        if shape is not None and function.depth <= _DEEPEST:
            note.move = Move(first, shape, function, (), {}, None)
    return result


def _roles_joined(note: Note, parts: list[Part], join: Join) -> None:
    """Gives a joined tensor the roles that all its live parts have."""
    first = next(each.note for each in parts if each.note is not None)
    for name in first.roles or ():
        make = ROLES[name].together.joined
        if make is None or note.role(name) is not None:
            continue
        known = [each.note.role(name) if each.note is not None else each.tensor.detach().clone() for each in parts]
        value = None if any(one is None for one in known) else make(known, join)
        if value is not None:
            note.give(name, value)


def _of_one(known: list[tuple[Note | None, tuple[Move, ...]]]) -> tuple[Note, list[tuple[Move, ...]]] | None:
    """The note from which all ways lead, and the ways; None if they lead from several, or from none."""
    first = known[0][0]
    if first is None or any(note is not first for note, _ in known):
        return None
    return first, [moves for _, moves in known]


def _held(note: Note | None) -> tuple[Note | None, tuple[Move, ...]]:
    first, _, moves = first_held(note)
    return first, tuple(moves)


def place_of_write(args: tuple) -> Callable[[Tensor], Tensor] | None:
    """Which part of a tensor a write overwrites, `y[index] = value` or `view.copy_(value)`, as a function of a copy of the tensor.

    None where a number of the model decides it, or where this cannot be told.
    """
    written, value = args[0], args[-1]
    if len(args) < 2 or not is_live(value) or value.dtype != written.dtype:
        return None
    if len(args) == 3 and not written._is_view():
        index = args[1]
        return (lambda t: t[index]) if _basic(index) else None
    if len(args) == 2 and written._is_view() and written._base.is_contiguous():
        size, stride, offset = written.size(), written.stride(), written.storage_offset()
        return lambda t: t.as_strided(size, stride, offset)
    return None


def _basic(index: Any) -> bool:
    if isinstance(index, tuple):
        return all(map(_basic, index))
    if isinstance(index, slice):
        return all(each is None or type(each) is int for each in (index.start, index.stop, index.step))
    return index is None or type(index) in (int, EllipsisType)


def joined_by_write(
    run: Any, whole: Tensor, before: Note | None, value: Tensor, place: Callable[[Tensor], Tensor]
) -> None:
    """Notes that a tensor of which a part was overwritten is joined of what it was and the value.

    Args:
        run: the run.
        whole: the tensor.
        before: its note before, if it was live.
        value: what was written.
        place: the part that was overwritten.
    """
    note = note_of(value)
    if note is None:
        return

    def join(parts: list[Tensor]) -> Tensor:
        t = parts[0].clone(memory_format=torch.contiguous_format)
        place(t).copy_(parts[1])
        return t

    joined(run, [Part(whole, before), Part(value, note)], whole, join)


def part_written(run: Any, whole: Tensor, before: Note | None, value: Tensor, index: Any = None) -> None:
    """Gives a tensor of which a part was written the roles that the part and the rest have.

    Args:
        run: the run.
        whole: the tensor.
        before: its note before, if it was live.
        value: the part, a view of the tensor; with an index, what was written there.
        index: masks or indices that say where. Which numbers they are does not matter to a role.
    """
    note = note_of(value) if is_live(value) else None
    if note is None or not whole.requires_grad or (value.dtype != whole.dtype):
        return
    size, stride, offset = value.size(), value.stride(), value.storage_offset()
    of_whole = whole.size(), whole.stride()

    def join(parts: list[Tensor]) -> Tensor:
        if index is not None:
            t = parts[0].clone()
            t[index] = parts[1]
            return t
        t = parts[0].new_empty_strided(*of_whole).copy_(parts[0])
        t.as_strided(size, stride, offset).copy_(parts[1])
        return t

    _roles_joined(noted(run, whole), [Part(whole, before), Part(value, note)], join)


def kept(entry: Entry, target: Tensor, notes: list[Note | None]) -> Tensor | None:
    """A copy of a constant that will be written into, where a role of what is written goes on from the numbers before.

    Where a part is overwritten, the result is joined of parts (`engine.joining`).
    """
    if not isinstance(target, Tensor) or target.requires_grad or entry.tests.overwrites is not None:
        return None
    return target.clone() if _go_on(notes) else None


def traits_of(entry: Entry, args: tuple, kwargs: dict, notes: list[Note | None]) -> frozenset[str]:
    """The traits of one call. Some operations sum entries with some arguments only, which matters to few roles."""
    sums = entry.tests.sums
    return _SUMS if sums is not None and _go_on(notes) and sums(args, kwargs) else entry.traits


def _go_on(notes: list[Note | None]) -> bool:
    """Whether an operand has a role that follows each step."""
    return any(note is not None and note.roles and any(ROLES[name].then for name in note.roles) for note in notes)


_SUMS = frozenset({REDUCES})
