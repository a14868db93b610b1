"""Roles: what a tensor is known to be, and which operations preserve it.

An operation declares its *traits* when it is registered: it moves entries, keeps their values, scales them, adds a
constant to them, or reduces them. A *role* declares, once, which traits it survives, and how the roles of several
operands join. After each operation, in any spelling, `carry` gives the roles to the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.engine.again import as_function_of, part_of
from relprop.engine.notes import NOTE_NAME, Move, Note, continues, note_of, noted, renew
from relprop.engine.registry import Entry
from relprop.engine.tensors import exchanged
from relprop.engine.traits import ADDS, ANY, FIRST, MOVES, REDUCES, ROLE_NAMES, SAME, SCALES

Several = Callable[[list[Any], Callable[[list[Tensor]], Any]], Any]
"""What an operation on several tensors makes of a role, from what is known of each, and the operation as a function of a list."""


@dataclass(frozen=True)
class Together:
    """What becomes of a role where tensors that have it meet.

    Attributes:
        added: in a sum of live operands, which are given as well.
        joined: where parts are joined; a constant part stands for itself.
        alike: a role that counts as this one in a sum.
    """

    added: Callable[[list[Any], Callable[[list[Tensor]], Any], list[Tensor]], Any] | None = None
    joined: Several | None = None
    alike: str = ""


@dataclass(frozen=True)
class Role:
    """Something that a tensor is known to be.

    Attributes:
        name: its name in notes.
        given_by: which operations give it, for the documentation.
        survives: the traits it survives; `ANY` for all operations.
        asked_by: what uses it, for the documentation.
        join: what an operation on several live operands makes of it, from what is known of each (None if nothing is).
            Without it the role ends there.
        joined_by: the traits of the operations that join it; `ANY` for all.
        scaled: what scaling makes of it, from the run, what is known, and the operation's arguments.
        read: how to read it off a note, if the note does not hold it by its name.
        then: what an operation makes of it, from what is known, the operation as a function, and its traits.
        together: what a sum of tensors, or joining them, makes of it.
    """

    name: str
    given_by: str
    survives: frozenset[str]
    asked_by: str
    join: Callable[[list[Any]], Any] | None = None
    scaled: Callable[[Any, Any, tuple], Any] | None = None
    read: Callable[[Note | None], Any] | None = None
    then: Callable[[Any, Callable[[Tensor], Any], frozenset[str]], Any] | None = None
    joined_by: frozenset[str] = frozenset({MOVES})
    together: Together = Together()


ROLES: dict[str, Role] = {}
_READ: list[Role] = []
_LASTING: set[str] = set()
"""The roles that all operations keep or join, whatever their traits."""
_MOVING: set[str] = set()
"""The roles that moved entries keep as they are."""
SUMMED: set[str] = set()  # those that follow each step, sums among them


def role(
    name: str,
    *survives: str,
    given_by: str,
    asked_by: str,
    join: Callable[[list[Any]], Any] | None = None,
    scaled: Callable[[Any, Any, tuple], Any] | None = None,
    read: Callable[[Note | None], Any] | None = None,
    then: Callable[[Any, Callable[[Tensor], Any], frozenset[str]], Any] | None = None,
    joined_by: Iterable[str] = (MOVES,),
    together: Together = Together(),
) -> str:
    """Declares a role and returns its name; see `Role` for the arguments.

    Most roles need the traits that they survive, and no function: `role("scores", MOVES, SAME, given_by=..., asked_by=...)`.
    """
    ROLES[name] = Role(
        name, given_by, frozenset(survives), asked_by, join, scaled, read, then, frozenset(joined_by), together
    )
    ROLE_NAMES.add(name)
    if read is not None:
        _READ.append(ROLES[name])
    if ANY in survives or ANY in joined_by:
        _LASTING.add(name)
    if then is None and (ANY in survives or MOVES in survives):
        _MOVING.add(name)
    SUMMED.update({name} if then is not None and REDUCES in survives else ())
    return name


def give(result: Any, name: str, value: Any) -> None:
    """Notes a role on all live tensors of a result, unless the handler gave them one that says more."""
    for t in result if isinstance(result, (tuple, list)) else (result,):
        note: Note | None = getattr(t, NOTE_NAME, None)
        if note is None or not t.requires_grad:
            continue
        if note.roles is None:
            note.roles = {name: value}
        elif note.roles.get(name) is None:
            note.roles[name] = value


def carry(
    run: Any, traits: frozenset[str], function: Callable[..., Any], operands: list[Tensor], notes: list[Note | None],
    args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, linked: bool = True,
) -> None:  # fmt: skip
    """Gives the results of an operation the roles of its live operands that survive it.

    With `linked`, results whose entries were moved remember from where.
    """
    lone = len(operands) == 1 or (FIRST in traits and bool(args) and args[0] is operands[0])
    if linked and lone and notes[0] is not None and (MOVES in traits or SAME in traits):
        _link(traits, function, operands[0], notes[0], args, kwargs, result)
    if not traits:
        for note in notes:
            if note is not None and note.roles is not None and not _LASTING.isdisjoint(note.roles):
                break
        else:
            return
    found = _found(run, traits, notes[:1] if lone else notes, args)
    several = isinstance(result, (tuple, list))
    going_on = {name: found.pop(name) for name in list(found) if ROLES[name].then is not None} if found else {}
    if going_on and (not lone or (args and result is args[0] and result is not operands[0])):
        going_on = {}  # they end where tensors meet, or are written into another one
    if not lone and ADDS in traits and isinstance(result, Tensor):
        found |= _added(function, operands, notes, args, kwargs)
    for n, t in enumerate(result if several else (result,)):
        note = note_of(t) if isinstance(t, Tensor) and t.requires_grad else None
        if note is None:
            continue
        new = found
        if going_on:
            step = as_function_of(function, operands[0], args, kwargs)
            step = part_of(step, n) if several else step
            new = found | {name: ROLES[name].then(value, step, traits) for name, value in going_on.items()}  # type: ignore[misc]
        if new:
            note.roles = dict(new) if note.roles is None else {**new, **note.roles}
        if note.chain is None and note.move is None:  # else it is read off the step or the move
            for known in _READ:
                value = _read(known, traits, notes[:1] if lone else notes)
                if value is not None and note.role(known.name) is None:
                    note.give(known.name, value)


def carry_constant(
    run: Any, entry: Entry, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> None:
    """Gives a constant the roles of the constant that it was made of. Few constants have any."""
    operand = args[0] if args else None
    note: Note | None = getattr(operand, NOTE_NAME, None)
    if note is None or note.roles is None or not isinstance(operand, Tensor) or operand.requires_grad:
        return
    if not isinstance(result, Tensor) or result is operand:
        return
    step = as_function_of(function, operand, args, kwargs)
    for name, value in note.roles.items():
        known = ROLES[name]
        if known.then is not None and entry.traits & known.survives:
            noted(run, result).give(name, known.then(value, step, entry.traits))


def _added(
    function: Callable[..., Any], operands: list[Tensor], notes: list[Note | None], args: tuple, kwargs: dict
) -> dict[str, Any]:
    """The roles of a sum of live operands that all have them."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for note in notes if note is not None for name in note.roles or ()):
        if (make := ROLES[name].together.added) is None:
            continue
        alike = ROLES[name].together.alike
        known = [None if note is None else note.role(name) or note.role(alike) for note in notes]
        if None not in known:
            places = [object() for _ in operands]
            given: Any = (args, kwargs)
            for operand, place in zip(operands, places, strict=True):
                given = exchanged(given, operand, place)

            def again(tensors: list[Tensor], given: Any = given, places: list[Any] = places) -> Any:
                for place, t in zip(places, tensors, strict=True):
                    given = exchanged(given, place, t)
                return function(*given[0], **given[1])

            if (value := make(known, again, operands)) is not None:
                found[name] = value
    return found


def moves(call: Any, function: Callable[[Tensor], Any], operand: Tensor, result: Any) -> None:
    """Notes that a result has the entries of a live operand, moved by `function`, and therefore its roles."""
    call.note(result)
    carry(call.run, frozenset({MOVES}), function, [operand], [note_of(operand)], (operand,), {}, result)


COPY = frozenset({SAME})


def itself(t: Tensor) -> Tensor:
    """A copy, as a function of what is copied."""
    return t


def same(call: Any, operand: Tensor, result: Tensor) -> Tensor:
    """Notes that a result has the numbers of a live operand, each in its place, and therefore its roles."""
    if result.requires_grad and result is not operand:
        call.note(result)
        carry(call.run, COPY, itself, [operand], [note_of(operand)], (operand,), {}, result)
    return result


def copies(entry: Entry, args: tuple, live: list[Tensor], made: Any) -> bool:
    """Whether a write gives all numbers of the one live operand to a constant: `y.copy_(x)`, `y[:] = x`."""
    if entry.tests.overwrites is None or len(live) != 1 or len(args) < 2 or args[-1] is not live[0]:
        return False
    if not isinstance(made, Tensor) or made._is_view():
        return False
    return entry.tests.overwrites(args) and made.shape == live[0].shape and made.dtype == live[0].dtype


def selects(call: Any, operands: list[Tensor], result: Any) -> None:
    """Notes that each entry of a result is an entry of a live operand, such as the larger one, and so has its roles."""
    values = result[0] if isinstance(result, tuple) else result  # the second are indices
    if not isinstance(values, Tensor) or not values.requires_grad:
        return
    note = note_of(operands[0])
    if len(operands) == 1 and note is not None and note.chain is None and note.move is None:
        known = note.roles
        if known is None:
            return
        if known.keys() <= _MOVING:  # nothing is to be computed
            note = renew(call.run, values)
            note.roles = dict(known)
            return
    function = (lambda *a, **k: call.function(*a, **k)[0]) if values is not result else call.function
    noted(call.run, values)
    notes = [note_of(t) for t in operands]
    carry(call.run, _MOVES, function, operands, notes, call.args, call.kwargs, values, linked=False)


_MOVES = frozenset({MOVES})


def spread(run: Any, view: Tensor) -> None:
    """After a write into a view, gives the base the roles that both the written values and the base have.

    A constant base does not count at the first write: `y[:, :3] = a; y[:, 3:] = b` is a concatenation.
    """
    whole = view._base if view._is_view() else None
    if whole is None or not whole.requires_grad:
        return
    written, before = note_of(view), note_of(whole)
    live = before is not None and before.run is run
    found = {}
    for known in ROLES.values():
        if known.join is None or MOVES not in known.joined_by or known.join([None, 1]) is not None:
            continue
        values = [_known(known, note) for note in ([before, written] if live else [written])]
        value = None if None in values else known.join(values)
        if value is not None:
            found[known.name] = value
    note = renew(run, whole)
    note.roles = found or None


def _known(known: Role, note: Note | None) -> Any:
    if note is None:
        return None
    return note.role(known.name) if known.read is None else known.read(note)


def _found(run: Any, traits: frozenset[str], notes: list[Note | None], args: tuple) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if len(notes) == 1:
        for name, value in ((notes[0] and notes[0].roles) or {}).items():
            known = ROLES[name]
            if known.read is None and (ANY in known.survives or traits & known.survives):
                scales = known.scaled is not None and SCALES in traits
                found[name] = known.scaled(run, value, args) if scales else value  # type: ignore[misc]
        return found
    for name in dict.fromkeys(name for note in notes if note is not None for name in note.roles or ()):
        known = ROLES[name]
        if known.read is None and known.join is not None and (ANY in known.joined_by or traits & known.joined_by):
            value = known.join([None if note is None else note.role(name) for note in notes])
            if value is not None:
                found[name] = value
    return found


def _read(known: Role, traits: frozenset[str], notes: list[Note | None]) -> Any:
    if not traits & known.survives or known.read is None:
        return None
    if len(notes) == 1:
        return known.read(notes[0])
    return (
        known.join([known.read(note) for note in notes])
        if known.join is not None and traits & known.joined_by
        else None
    )


def _link(
    traits: frozenset[str], function: Callable[..., Any], operand: Tensor, known: Note,
    args: tuple[Any, ...], kwargs: dict[str, Any], result: Any,
) -> None:  # fmt: skip
    """Notes where the entries of a result were before. A part of a complex number, or its conjugate, is a new number."""
    if not args or args[0] is not operand or operand.is_complex():
        return
    parts = enumerate(result) if isinstance(result, (tuple, list)) else ((None, result),)
    shape = operand.shape
    for part, t in parts:
        if not isinstance(t, Tensor) or t is operand or not t.requires_grad:
            continue
        note = note_of(t)
        if note is None or continues(note) or note is known:
            continue
        known.forked = True
        if SAME in traits or _alias(t, operand, shape):
            note.move = Move(known, shape, None, (), {}, None)
            if note.layer is None and known.layer is not None and t.dtype == operand.dtype:
                note.layer, note.input = known.layer, known.input
            if note.scaled is None and t.dtype == operand.dtype:
                note.scaled = known.scaled
        else:
            note.move = Move(known, shape, function, args[1:], kwargs, part)


def _alias(t: Tensor, operand: Tensor, shape: torch.Size) -> bool:
    """Whether a view shows the whole tensor unchanged."""
    if t.shape != shape or t.layout is not torch.strided or operand.layout is not torch.strided:
        return False  # a sparse tensor has no strides
    return t.stride() == operand.stride() and t.data_ptr() == operand.data_ptr()
