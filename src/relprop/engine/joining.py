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


def changed_part(
    run: Any, whole: Tensor, before: Note, view: Tensor, change: Callable[[Tensor], Any], traits: frozenset[str]
) -> None:
    """Gives a tensor, of which a view was changed in place, the roles that survive the change as functions of all of it.

    Args:
        run: the run.
        whole: the tensor.
        before: its note before.
        view: the part.
        change: what was done to the part, as a function that writes into its operand.
        traits: what the operation does.
    """
    if before.roles is None or not whole.requires_grad:
        return
    place = _place(whole, view)

    def step(t: Tensor) -> Tensor:
        t, part = place(t)
        change(part)
        return t

    for name, value in before.roles.items():
        known = ROLES[name]
        if known.then is not None and not traits.isdisjoint(known.survives):
            noted(run, whole).give(name, known.then(value, step, traits))


class Write(NamedTuple):
    """A live part that is written into a tensor, and the tensor as joined of what it was and that part."""

    part: Tensor
    join: Join


def write_of(run: Any, args: tuple) -> Write | None:
    """The write of a live part, as by `y[index] = value` or `view.copy_(value)`.

    None where the inputs decide which part it is, or where this cannot be told.
    """
    written, value = args[0], args[-1]
    if len(args) < 2 or value is written or not is_live(value) or value.dtype != written.dtype:
        return None
    if len(args) == 3 and not written._is_view():
        return Write(value, _with_entries(args[1])) if _fixed(run, args[1]) else None
    if len(args) == 2 and written._is_view():
        return Write(value, _with_part(written._base, written))
    return None


def _with_entries(index: Any) -> Join:
    """Joins a tensor and what is written into it at an index."""

    def join(parts: list[Tensor]) -> Tensor:
        t = parts[0].clone(memory_format=torch.contiguous_format)
        t[index] = parts[1]
        return t

    return join


def _with_part(whole: Tensor, view: Tensor) -> Join:
    """Joins a tensor like `whole`, and what is written into the part of it that `view` is."""
    place = _place(whole, view)

    def join(parts: list[Tensor]) -> Tensor:
        t, part = place(parts[0])
        part.copy_(parts[1])
        return t

    return join


def _place(whole: Tensor, view: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A function of a tensor like `whole` that gives a copy of it, and the part of the copy that `view` is."""
    of_whole, of_view = (whole.size(), whole.stride()), (view.size(), view.stride())
    offset = view.storage_offset() - whole.storage_offset()

    def copied(t: Tensor) -> tuple[Tensor, Tensor]:
        t = t.new_empty_strided(*of_whole).copy_(t)
        return t, t.as_strided(*of_view, offset)

    return copied


def _fixed(run: Any, index: Any) -> bool:
    """Whether an index is the same for all inputs."""
    if isinstance(index, (tuple, list)):
        return all(_fixed(run, each) for each in index)
    if isinstance(index, slice):
        return all(each is None or type(each) is int for each in (index.start, index.stop, index.step))
    if isinstance(index, Tensor):
        return not index.requires_grad and not run.model.depends(index)
    return index is None or type(index) in (int, bool, EllipsisType)


def joined_by_write(run: Any, whole: Tensor, before: Note | None, write: Write) -> None:
    """Notes that a tensor of which a part was overwritten is joined of what it was and that part.

    Args:
        run: the run.
        whole: the tensor.
        before: its note before, if it was live.
        write: what was written.
    """
    note = note_of(write.part)
    if note is not None:
        joined(run, [Part(whole, before), Part(write.part, note)], whole, write.join)


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
    if note is None or not whole.requires_grad:
        return
    join = _with_part(whole, value) if index is None else _with_entries(index)
    _roles_joined(noted(run, whole), [Part(whole, before), Part(value, note)], join)


def kept(entry: Entry, target: Tensor, notes: list[Note | None]) -> Tensor | None:
    """A copy of a constant that will be written into, where a role of what is written goes on from the numbers before.

    Where a part is overwritten, the result is joined of parts (`engine.joining`).
    """
    if not isinstance(target, Tensor) or target.requires_grad or entry.tests.overwrites is not None:
        return None
    traits = entry.traits if entry.tests.sums is None else entry.traits | SUMS
    return target.clone() if _go_on(notes, traits) else None


SUMS = frozenset({REDUCES})
"""The traits of an operation of which only some calls sum entries, where this one does."""


def _go_on(notes: list[Note | None], traits: frozenset[str]) -> bool:
    """Whether an operand has a role that follows each step, and survives these traits."""
    roles = (ROLES[name] for note in notes if note is not None for name in note.roles or ())
    return any(known.then is not None and not traits.isdisjoint(known.survives) for known in roles)
