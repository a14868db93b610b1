"""The entry to an operation. Parameters become constants; custom functions, which the mode cannot see, are examined."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from relprop.engine import applied
from relprop.engine.call_variants import FinishedCall
from relprop.engine.gradients import is_plain
from relprop.engine.handling import handle
from relprop.engine.messages import COMPILED, transformed, unseen
from relprop.engine.notes import NOTE_NAME, descends, note_of, noted, renew
from relprop.engine.overwritten import check, seen
from relprop.engine.registry import CUSTOM, FAMILIES, REFUSED, TABLE, Entry, Handlers, native
from relprop.engine.replay import replaying
from relprop.engine.run import Run
from relprop.engine.tensor_attributes import MET, NOTE, PARAMETER, STAND_IN, WRITTEN
from relprop.engine.tensors import NESTS
from relprop.errors import UnsupportedOperationError
from relprop.torch_private.autograd_graph import function_of, innermost, notes_on, wrapped, written_as_view
from relprop.torch_private.names import HOOK_FUNCTION, LINEAR_FUNCTIONS
from relprop.torch_private.recorded import recording
from relprop.torch_private.state import transforms_active

_HOOKS = HOOK_FUNCTION
SIMPLE = frozenset({int, float, bool, str, type(None), slice, torch.dtype, torch.device})
"""Types of options, which hold no tensors. It is quicker to ask for them first."""


def operands(run: Run, args: Any, live: list[Tensor]) -> Any:
    """The operands as the operation gets them. Live tensors are added to `live`.

    Most are constants or tensors that an operation of this run returned, and pass as they are. Others are examined.
    """
    entered: list[Any] | None = None
    known = not transforms_active()
    for number, value in enumerate(args):
        if isinstance(value, Tensor):
            if not value.requires_grad:
                if known and not value.is_inference():
                    continue
            elif (
                (note := getattr(value, NOTE_NAME, None)) is not None
                and note.run is run
                and note.version == value._version
            ):
                if note.layer is not None:
                    note.layer.saved.read()
                live.append(value)
                continue
        elif (
            type(value) in SIMPLE
            or not isinstance(value, NESTS)
            or (type(value) is tuple and SIMPLE.issuperset(map(type, value)))
        ):
            continue
        found = enter(run, value, live)
        if found is not value:
            if entered is None:
                entered = list(args)
            entered[number] = found
    return args if entered is None else tuple(entered)


def enter(run: Run, value: Any, live: list[Tensor]) -> Any:
    """An operand as the operation gets it. Live tensors are added to `live`."""
    if isinstance(value, Tensor):
        if value.is_inference():
            value = value.clone()
        if wrapped(value):
            if innermost(value).requires_grad:
                raise transformed(run)
            return value
        if not value.requires_grad:
            return value
        note = note_of(value)
        if note is None or note.run is not run:
            return _stranger(run, value, live)
        if note.version != value._version:
            if _handed_back(value):
                NOTE.put(value, None)
                return _stranger(run, value, live)
            check(run, value)
            note = renew(run, value)  # it was written into through a view
        if note.layer is not None:
            note.layer.saved.read()
        live.append(value)
        return value
    if isinstance(value, list):
        return list(operands(run, value, live))  # a copy: the model may change its own
    if isinstance(value, tuple):
        items = operands(run, value, live)
        if items is value:
            return value
        return type(value)(*items) if hasattr(value, "_fields") else items
    if isinstance(value, dict):
        return {key: enter(run, item, live) for key, item in value.items()}
    return value


def write_inside(argument: Tensor) -> None:
    """Notes that a custom function writes into a live argument, which may also be its result."""
    mark = object()
    if argument.grad_fn is not None:
        notes_on(argument.grad_fn)["relprop written"] = mark
    WRITTEN.put(argument, (mark, note_of(argument)))
    NOTE.put(argument, None)


def _written_inside(run: Run, value: Tensor) -> bool:
    """Whether a custom function wrote into a tensor of this run without saying so (`mark_dirty`)."""
    mark, note = WRITTEN.of(value, (None, None))
    if note is None or note.run is not run:
        return False
    return value.grad_fn is None or notes_on(value.grad_fn).get("relprop written") is mark


def _stranger(run: Run, value: Tensor, live: list[Tensor]) -> Tensor:
    """A live tensor that no operation of this run returned: a parameter, an alias, or a custom function's output."""
    if _written_inside(run, value):
        noted(run, value)
        live.append(value)
        return value
    if id(value) in run.inputs.live:
        live.append(value)
        return value
    if run.gradients.any_plain and is_plain(run, value):
        return value
    stand_in = standing(value)
    if stand_in is not value and _is_of(run, stand_in):
        return enter(run, stand_in, live)
    if value.is_leaf:
        if not run.inputs.adopt or isinstance(value, nn.Parameter):
            constant = value.detach()
            PARAMETER.put(constant, value)
            run.model.note_constant(constant)
            return constant
    elif not run.inputs.adopt and not descends(run, value):
        return value.detach()
    maker = function_of(value.grad_fn)
    written = value._version > 0 and (value._is_view() or written_as_view(value.grad_fn))
    if maker is not None and _full_name(maker) not in LINEAR_FUNCTIONS:
        entry = TABLE.get(maker)
        if entry is not None and entry.family == REFUSED:
            _unseen(run, value, maker.__qualname__, f"{_full_name(maker)}: {entry.reason}")
        if not torch.is_grad_enabled() or run.functions.note():  # inside a custom function: its result is met later
            live.append(value)
            return value
        MET.put(value, weakref.ref(value.grad_fn))
        stand_in = _applied(run, value, maker)
        if stand_in is not value:
            STAND_IN.put(value, stand_in)
            return enter(run, stand_in, live)
        if not value.requires_grad:
            return value
    elif maker is None and not (written or run.inputs.adopt or replaying()):
        _unseen(run, value, type(value.grad_fn).__name__, COMPILED)
    note = noted(run, value)
    if note.layer is not None:
        note.layer.saved.read()
    live.append(value)
    return value


def _handed_back(value: Tensor) -> bool:
    """Whether a custom function whose result was not met yet wrote into a tensor and returned it."""
    maker, met = function_of(value.grad_fn), MET.of(value)
    if maker is None or maker.__module__.startswith("relprop."):
        return False
    return met is None or met() is not value.grad_fn


def standing(value: Tensor) -> Tensor:
    """The tensor that operations use in place of one met before: another with the same numbers, or itself."""
    while (other := STAND_IN.of(value)) is not None:
        value = other
    return value


def _is_of(run: Run, tensor: Tensor) -> bool:
    note = note_of(tensor)
    return (note is not None and note.run is run) or id(tensor) in run.inputs.live


def _applied(run: Run, value: Tensor, maker: Any) -> Tensor:
    """Gives the output of a custom autograd function the backward pass of an operation of its family.

    A view keeps its own history in any case. Another tensor, which is returned, stands in for it from then on.
    """
    if maker is _HOOKS:  # hooks on gradients; relevance passes by them
        found = run.functions.made(value)
        return value if found is None else found.args[value.output_nr]
    entry = TABLE.get(maker)
    if entry is not None and recording():
        raise _unrecorded(run, maker)
    as_it_is = entry is not None and entry.handler is native
    found = run.functions.made(value)
    # a nested checkpoint gets its input back as a new tensor, whose origin was seen the first time
    if found is None and (as_it_is or replaying()):
        return value
    if found is None:
        lost = "its arguments are not known: no torch operation that runs inside its forward could be seen"
        _unseen(run, value, maker.__qualname__, applied.advice(maker, lost, entry is not None))
        return value
    same = any(a is value for a in found.args)
    if same or any(isinstance(a, Tensor) and _written_inside(run, a) for a in found.args):
        if not as_it_is:
            why = "it writes into its argument"
            _unseen(run, value, maker.__qualname__, applied.advice(maker, why, entry is not None, writes=True))
        if same:
            return value
    live: list[Tensor] = []
    args = tuple(enter(run, a, live) for a in found.args)
    carrying = [edge for edge in found.edges if edge[0] is not None and not _is_parameters(run, edge[0])]
    if as_it_is and list(map(applied.edge_or_none, live)) == carrying:
        return value
    known = entry or Entry(maker, "structure", Handlers(FAMILIES[CUSTOM].handler))
    call = FinishedCall(run, known, maker.apply, args, {}, live, value=value)
    try:
        result = call(*args) if as_it_is else handle(call)
    except applied.Invisible as error:
        why = f"it returns a view, and {error}" if value._is_view() else str(error)
        _unseen(run, value, maker.__qualname__, applied.advice(maker, why, False))
        return value
    result = result[value.output_nr] if isinstance(result, tuple) else result
    stand_in = value
    if result is not value and value._is_view():
        stand_in = result
        noted(run, result)
    elif result is not value:
        _replace(value, result)
    run.inputs.mix()  # nothing is known of how it treats the samples
    if run.trace.recorder is not None and not replaying():
        family = "other" if entry is None else entry.family
        run.trace.recorder.record(family, maker.__qualname__, run.where(), stand_in)
    return stand_in


def _unrecorded(run: Run, maker: Any) -> UnsupportedOperationError:
    return UnsupportedOperationError(
        f"{_full_name(maker)} in {run.where()} is a custom autograd.Function that was "
        "registered: it may compute where no graph can follow, which would freeze its numbers. Use "
        "relprop.attribute instead of relprop.compile."
    )


def _is_parameters(run: Run, node: Any) -> bool:
    """Whether a gradient ends at this node, in a tensor that is not an input."""
    variable = getattr(node, "variable", None)
    return variable is not None and not run.inputs.adopt and id(variable) not in run.inputs.live


def _replace(value: Tensor, result: Tensor) -> None:
    """Gives a tensor the history of another with the same numbers."""
    note = note_of(result)
    value.detach_()
    if result.requires_grad:
        value.copy_(result)
        seen(value)
        if note is not None:
            NOTE.put(value, note)
            note.version = value._version
            if note.layer is not None:
                note.layer.saved.stands_in(value)


def _unseen(run: Run, value: Tensor, name: str, maker: str) -> None:
    """Refuses a tensor that was made where the mode cannot see, or counts it if the run is not strict."""
    if run.trace.strict:
        raise unseen(run, value, maker)
    run.trace.unfollowed(name)


def _full_name(kind: Any) -> str:
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', '')}"
