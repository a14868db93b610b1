"""Operations that write into their first operand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from torch import Tensor

from relprop.engine.call import Call, Into
from relprop.engine.call_variants import Copied
from relprop.engine.handling import handle
from relprop.engine.notes import Chain, Move, Note, continues, note_of, noted, renew
from relprop.engine.origins import Origin, chain, remember
from relprop.engine.registry import Entry, native
from relprop.engine.replay import replaying
from relprop.engine.run import Run
from relprop.engine.spelling import beside
from relprop.engine.tensor_attributes import NOTE
from relprop.engine.tensors import without_history
from relprop.engine.traits import ADDS, MOVES, SAME, SCALES
from relprop.rules.base import Way
from relprop.torch_private.recorded import recording


def inplace(
    run: Run, entry: Entry, function: Callable[..., Any], args: tuple, kwargs: dict, live: list[Tensor],
    beside_it: Callable[..., Any] | None = None,
) -> Any:  # fmt: skip
    """Uses the native operation if its gradient is the rule; else works on a copy of the target.

    The copy stands for the numbers before. An activation then writes into the target itself; the result of any other
    operation is copied into it. `beside_it` makes a new tensor, if the entry's function does not.
    """
    target, written = args[0], (args, kwargs)
    kwargs = {key: value for key, value in kwargs.items() if key != "inplace"} if kwargs else kwargs
    options = {} if entry.spelling.inplace or beside_it is not None else {"inplace": True}
    call = Call(run, entry, function, args, kwargs | options, live, inplace=True)
    main = beside(entry.function) if entry.spelling.inplace else function
    found = _chained(entry, main if beside_it is None else entry.function, target, args, kwargs, live)
    main = beside_it or main
    # a chain that starts here would lose its source, which other tensors may share
    starts = found is not None and found[0].source is target and _has_origin(entry, target)
    if not starts and call.way in (Way.DEFAULT, Way.NATIVE, Way.UNDECIDED):
        if _linear(run, entry, target, live, args):
            _preserve(target)
            known, shape = note_of(target), target.shape
            result = function(*args, **kwargs)
            _renew(run, target, found)
            if known is not None and len(live) == 1 and main is not function:
                _moves(run, entry, target, Move(known, shape, main, args[1:], kwargs, None))
            return result
        if entry.handlers.in_place is not None and not run.sites.nz:
            result = entry.handlers.in_place(call, *call.args, **call.kwargs)
            if result is not NotImplemented:
                _renew(run, target, found)
                return result
    return _by_copy(call, main, (args, kwargs), written)


def _by_copy(call: Call, main: Callable[..., Any], given: tuple[tuple, dict], written: tuple[tuple, dict]) -> Any:
    """The operation on a copy of its target, whose result is then copied into the target.

    Args:
        call: the call.
        main: the operation, as one that makes a new tensor.
        given: its operands and options.
        written: those of the model's own call, which writes in place.
    """
    (args, kwargs), run, entry, function = given, call.run, call.entry, call.function
    target, live = args[0], call.live
    before = target.clone()
    _preserve(target, before.detach())
    if target.requires_grad:
        NOTE.put(before, noted(run, target))
        if run.trace.recorder is not None and not replaying():
            run.trace.recorder.copy(before, target)
    args = (before, *args[1:])
    live = [before if t is target else t for t in live]
    writes_itself = entry.family == "activation" and _may_receive(run, target)
    into = Into(target, lambda: function(*written[0], **written[1])) if writes_itself else None
    value = _own_numbers(entry, function, *written) if target.stride() != before.stride() else None
    result = handle(Copied(run, entry, main, args, kwargs, live, again=call, into=into))
    if result is target:
        return target
    note, old = note_of(result), note_of(target)
    target.copy_(result)
    if value is not None and result.requires_grad:
        target.data.copy_(value)
    if not result.requires_grad and target.requires_grad and target._base is None:
        target.detach_()  # a rule made it a constant
        return target
    _renew(run, target)
    if note is not None:
        NOTE.put(target, note)
        run.writes.rewritten.append(ref(target))
        note.version = target._version
        if old is not None:
            old.later = note
    return target


def _moves(run: Run, entry: Entry, target: Tensor, move: Move) -> None:
    """Notes where the entries of an overwritten tensor were before, as for a new one: `unsqueeze_` is `unsqueeze`.

    A view is part of its base, and remembers that.
    """
    if MOVES in entry.traits and target._base is None:
        move.note.forked = True
        noted(run, target).move = move


def _own_numbers(entry: Entry, function: Callable[..., Any], args: tuple, kwargs: dict) -> Tensor | None:
    """What the model's own operation writes into a view with gaps. Where entries lie in memory decides how torch rounds."""
    target = args[0]
    if entry.family in ("structure", "selection") or recording() or not isinstance(target, Tensor):
        return None
    alias, before = target.data, target.detach().clone()
    function(*(alias if a is target else without_history(a) for a in args), **kwargs)
    value = alias.clone()
    alias.copy_(before)
    return value


def _chained(
    entry: Entry, main: Callable[..., Any], target: Any, args: tuple, kwargs: dict, live: list[Tensor]
) -> tuple[Origin, int] | None:
    """The chain from a source to what the target will be, and the source's version; None if there is none."""
    activates = entry.family == "activation"
    if not (activates or ADDS in entry.traits or SCALES in entry.traits):
        return None
    for t in live:
        if t is target:
            break
    else:
        return None
    for a in args[1:]:
        if isinstance(a, Tensor) and a.ndim and not a.requires_grad:
            return None
    found = chain(main, args, kwargs, not activates and (entry.family == "sum" or len(live) == 1), target)
    return None if found is None else (found, found.source._version)


def _has_origin(entry: Entry, target: Tensor) -> bool:
    """Whether a tensor about to be overwritten is a function of another, or holds its numbers, scaled or shifted now."""
    note = note_of(target)
    if note is None or (note.move is None and note.chain is None):
        return False
    return (note.move is not None and (ADDS in entry.traits or SCALES in entry.traits)) or continues(note)


def _linear(run: Run, entry: Entry, target: Tensor, live: list[Tensor], args: tuple) -> bool:
    """Whether torch's own in-place operation has the gradient that relevance needs."""
    scales = entry.family == "structure" and SCALES in entry.traits  # as a product with a number
    if entry.family in ("structure", "selection") and not scales:
        if entry.handler is not native and entry.handlers.in_place is None:
            return False  # its handler gives it another gradient
        return not run.sites.nz or MOVES in entry.traits or SAME in entry.traits
    if entry.family not in ("sum", "product") and not scales:
        return False
    note = note_of(target)
    if len(live) == 1 and note is not None and (note.layer is not None or note.scaled is not None):
        return False  # a constant may fold into the layer that made the target
    if len(live) == 1 and len(args) > 1 and isinstance(args[1], Tensor) and args[1].ndim and _of_layer(note):
        return False  # likewise behind a view
    if run.sites.nz or (note is not None and note.forked and len(live) == 1):
        return False  # zeros carry relevance, or a tensor made from the old numbers may meet the new ones
    if run.inputs.positions and entry.family == "sum":
        return False  # the summand may be a position encoding
    return entry.family == "sum" or (len(live) == 1 and live[0] is target)


def _may_receive(run: Run, target: Tensor) -> bool:
    """Whether an operation on a copy may write into the target: a tensor of its own that the graph made."""
    plain = target._base is None and not target.is_leaf and not run.sites.nz
    return plain and not recording()


def _of_layer(note: Note | None) -> bool:
    """Whether a tensor's entries are those of a layer's output."""
    while note is not None and note.move is not None and note.layer is None and note.scaled is None:
        note = note.move.note
    return note is not None and (note.layer is not None or note.scaled is not None)


def _preserve(target: Any, copy: Tensor | None = None) -> None:
    """Saves what a layer's rule still needs of a tensor, before the tensor is overwritten. `copy` has its numbers."""
    note = note_of(target) if isinstance(target, Tensor) else None
    if note is not None and note.layer is not None:
        note.layer.saved.preserve(copy)


def _renew(run: Run, target: Any, chained: tuple[Origin, int] | None = None) -> None:
    """Writes a new note on a tensor that was overwritten. The source of its chain may be gone with the old numbers."""
    if not isinstance(target, Tensor) or not target.requires_grad:
        return
    before = note_of(target)
    note = renew(run, target)
    if chained is not None:
        found, version = chained
        if found.source._version == version:
            remember(target, run, found)
        elif not found.step.affine:
            note.chain = Chain(found.step, note=before if found.source is target and _derived(before) else None)


def _derived(note: Note | None) -> bool:
    """Whether more is known of a tensor than which layer made it."""
    return note is not None and (note.move is not None or note.chain is not None or note.roles is not None)
