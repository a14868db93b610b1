"""Operations that write into their first operand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from relprop.composites.composite import UNDECIDED
from relprop.engine.call import Call, handle
from relprop.engine.notes import note_of, noted, renew
from relprop.engine.registry import Entry
from relprop.engine.run import Run
from relprop.rules import Native, Zero


def inplace(run: Run, entry: Entry, function: Callable[..., Any], args: tuple, kwargs: dict, live: list[Tensor]) -> Any:
    """Natively where the native gradient is the rule, else computed beside and written back."""
    target = args[0]
    kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
    options = {} if entry.spelling.inplace else {"inplace": True}
    call = Call(run, entry, function, args, kwargs | options, live, inplace=True)
    if call.rule is None or call.rule is UNDECIDED or isinstance(call.rule, (Zero, Native)):
        if _linear(run, entry, target, live):
            _preserve(target)
            result = function(*args, **kwargs)
            _renew(run, target)
            return result
        if getattr(entry.handler, "inplace", False) and not run.nz:
            result = entry.handler(call, *call.args, **call.kwargs)
            if result is not NotImplemented:
                _renew(run, target)
                return result
    _preserve(target)
    before = target.clone()
    if target.requires_grad:
        before._relprop = noted(run, target)
    main = entry.function if entry.spelling.inplace else function
    args = (before, *args[1:])
    live = [before if t is target else t for t in live]
    result = handle(Call(run, entry, main, args, kwargs, live, again=call))
    note = note_of(result)
    target.copy_(result)
    _renew(run, target)
    if note is not None and (note.source is not None or note.layer is not None or note.scaled is not None or note.gate):
        target._relprop = note
        note.version = target._version
    return target


def _linear(run: Run, entry: Entry, target: Tensor, live: list[Tensor]) -> bool:
    """Whether torch's own in-place operation has the gradient that relevance needs."""
    if entry.family in ("structure", "selection"):
        return not getattr(entry.handler, "beside", False)  # else its handler gives it another gradient
    note = note_of(target)
    if len(live) == 1 and note is not None and (note.layer is not None or note.scaled is not None):
        return False  # a constant may merge with the layer that made the target
    return (entry.family == "sum" and not run.nz) or (
        entry.family == "product" and len(live) == 1 and live[0] is target
    )


def _preserve(target: Any) -> None:
    """Before a tensor is overwritten: what a layer's rule still needs of it is copied."""
    note = note_of(target) if isinstance(target, Tensor) else None
    if note is not None and note.layer is not None:
        note.layer.preserve()


def _renew(run: Run, target: Any) -> None:
    if isinstance(target, Tensor) and target.requires_grad:
        renew(run, target)
