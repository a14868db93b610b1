"""Masks by size: `x > 0`, whose product with x is a relu, and `where(x > c, x, c)`, a bound, however they are written."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relprop.engine.again import as_function_of
from relprop.engine.notes import Note, note_of
from relprop.engine.registry import TABLE, Entry
from relprop.engine.tensor_attributes import SIGN
from relprop.torch_private.recorded import recording


class SignMask(NamedTuple):
    """Which entries of a live tensor a mask names: those above a number, or those below. Equal ones may be on either side."""

    of: weakref.ref[Note]
    positive: bool
    bound: float


def compared(function: Callable[..., Any], positive: bool) -> Callable[..., Any]:
    """A comparison, whose result is noted as a mask if one side is a number."""

    def compare(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if len(args) == 2 and not kwargs and isinstance(result, Tensor):
            a, b = args
            for live, other, above in ((a, b, positive), (b, a, not positive)):
                note = note_of(live) if isinstance(live, Tensor) and live.requires_grad else None
                bound = _number(other) if note is not None and live.is_floating_point() else None
                if note is not None and bound is not None:
                    SIGN.put(result, SignMask(weakref.ref(_first(note)), above, bound))
                    note.run.model.note_sign()
        return result

    return compare


def inverted(function: Callable[..., Any]) -> Callable[..., Any]:
    """A negation, which turns a mask into that of the other side."""

    def invert(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        known = SIGN.of(args[0]) if args and not kwargs and args[0].dtype is torch.bool else None
        if known is not None:
            SIGN.put(result, known._replace(positive=not known.positive))
        return result

    return invert


def keep_sign(result: Any, operand: Any) -> None:
    """A copy or a cast of a mask is one too."""
    known = SIGN.of(operand) if isinstance(operand, Tensor) else None
    if known is not None and isinstance(result, Tensor):
        SIGN.put(result, known)


def side(x: Any, mask: Any) -> SignMask | None:
    """What is known of a mask, if it names the entries of this live tensor on one side of a number."""
    known = SIGN.of(mask) if isinstance(mask, Tensor) else None
    if known is None or not isinstance(x, Tensor) or not x.requires_grad:
        return None
    note = note_of(x)
    return known if note is not None and known.of() is _first(note) else None


def _first(note: Note) -> Note:
    """The note of the tensor of which a tensor is a copy: they hold the same numbers."""
    while note.move is not None and note.move.function is None:
        note = note.move.note
    return note


def _number(value: Any) -> float | None:
    """A number, or a constant tensor whose entries are all equal, as a number."""
    if isinstance(value, (int, float)):
        return float(value)
    if not isinstance(value, Tensor) or value.requires_grad or recording() or not value.numel():
        return None
    first = value.flatten()[:1]
    return float(first) if value.numel() == 1 or bool((value == first).all()) else None


def _fills(value: Any, bound: float) -> bool:
    """Whether a filling is this number everywhere."""
    if isinstance(value, Tensor):
        return not value.requires_grad and not recording() and value.numel() > 0 and bool((value == bound).all())
    return isinstance(value, (int, float)) and value == bound


def keeps_above(x: Tensor) -> Tensor:
    """`x * (x > 0)`: what a mask by sign makes of its tensor, as a function of it."""
    return torch.relu(x)


def keeps_below(x: Tensor) -> Tensor:
    """`x * (x < 0)`."""
    return torch.clamp(x, max=0)


def at_least(x: Tensor, bound: float) -> Tensor:
    """`where(x > bound, x, bound)`."""
    return torch.clamp(x, min=bound)


def at_most(x: Tensor, bound: float) -> Tensor:
    """`where(x < bound, x, bound)`."""
    return torch.clamp(x, max=bound)


class Rectifier(NamedTuple):
    """An operation with a mask by size, as a relu or a bound of one operand.

    Attributes:
        entry: the register's entry of `keeps_above`, `keeps_below`, `at_least` or `at_most`.
        function: the operation itself, as a function of `args`.
        main: the same, if the operation writes into x, as one that makes a new tensor.
        args: the operand x, and the bound if it is not 0.
    """

    entry: Entry
    function: Callable[..., Any]
    main: Callable[..., Tensor]
    args: tuple[Any, ...]


def rectifier(entry: Entry, function: Callable[..., Any], args: tuple, kwargs: dict) -> Rectifier | None:
    """The relu or bound that an operation with a mask by size is; None for any other operation."""
    name = getattr(entry.function, "__name__", "").strip("_")
    if kwargs or not 2 <= len(args) <= 3 or name not in _MAIN:
        return None
    for x, mask, other, keeps in _readings(name, *args):
        known = side(x, mask)
        if known is not None and _fills(other, known.bound):
            kept, given = known.positive == keeps, args
            if name == "setitem":
                given = (x, mask, known.bound)  # the mask may stand in a tuple
            main = as_function_of(_MAIN[name] if entry.spelling.inplace else function, x, given, {})
            itself = as_function_of(function, x, args, {})
            if known.bound == 0:
                return Rectifier(TABLE[keeps_above if kept else keeps_below], itself, main, (x,))
            return Rectifier(TABLE[at_least if kept else at_most], _first_of(itself), _first_of(main), (x, known.bound))
    return None


def _first_of(function: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda x, _: function(x)


_MAIN: dict[str, Callable[..., Any]] = {
    "where": torch.where,
    "mul": torch.mul,
    "multiply": torch.mul,
    "masked_fill": torch.masked_fill,
    "setitem": torch.masked_fill,
}
"""The operations that may be a relu, and for those that write into x, the one that makes a new tensor."""


def _readings(name: str, *args: Any) -> list[tuple[Any, Any, Any, bool]]:
    """The ways in which operands may be a tensor, a mask, and a filling, and whether the mask names what is kept."""
    if len(args) == 2:
        a, b = args
        return [(a, b, 0, True), (b, a, 0, True)] if "mul" in name else []
    a, b, c = args
    if name == "where":
        condition, one, other = (a, b, c) if isinstance(a, Tensor) and a.dtype is torch.bool else (b, a, c)
        return [(one, condition, other, True), (other, condition, one, False)]
    mask = b[0] if isinstance(b, tuple) and len(b) == 1 else b
    return [] if "mul" in name else [(a, mask, c, False)]
