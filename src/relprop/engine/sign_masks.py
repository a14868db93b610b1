"""Masks by sign: `x > 0`, whose product with x is a relu, however the program writes it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relprop.engine.notes import Note, note_of
from relprop.engine.registry import TABLE, Entry
from relprop.engine.roles import as_function_of
from relprop.engine.tensor_attributes import SIGN
from relprop.torch_private.recorded import recording


class SignMask(NamedTuple):
    """Which entries of a live tensor a mask names: those above zero, or those below. Zeros may be on either side."""

    of: weakref.ref[Note]
    positive: bool


def compared(function: Callable[..., Any], positive: bool) -> Callable[..., Any]:
    """A comparison, whose result is noted as a mask by sign if one side is 0."""

    def compare(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if len(args) == 2 and not kwargs and isinstance(result, Tensor):
            a, b = args
            for live, other, above in ((a, b, positive), (b, a, not positive)):
                note = note_of(live) if isinstance(live, Tensor) and live.requires_grad else None
                if note is not None and live.is_floating_point() and is_zero(other):
                    SIGN.put(result, SignMask(weakref.ref(_first(note)), above))
                    note.run.model.note_sign()
        return result

    return compare


def inverted(function: Callable[..., Any]) -> Callable[..., Any]:
    """A negation, which turns a mask by sign into that of the other sign."""

    def invert(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        known = SIGN.of(args[0]) if args and not kwargs and args[0].dtype is torch.bool else None
        if known is not None:
            SIGN.put(result, known._replace(positive=not known.positive))
        return result

    return invert


def keep_sign(result: Any, operand: Any) -> None:
    """A copy or a cast of a mask by sign is one too."""
    known = SIGN.of(operand) if isinstance(operand, Tensor) else None
    if known is not None and isinstance(result, Tensor):
        SIGN.put(result, known)


def side(x: Any, mask: Any) -> bool | None:
    """Whether a mask names the entries of a live tensor above zero, or those below; None if it is no such mask."""
    known = SIGN.of(mask) if isinstance(mask, Tensor) else None
    if known is None or not isinstance(x, Tensor) or not x.requires_grad:
        return None
    note = note_of(x)
    return known.positive if note is not None and known.of() is _first(note) else None


def _first(note: Note) -> Note:
    """The note of the tensor of which a tensor is a copy: they hold the same numbers."""
    while note.move is not None and note.move.function is None:
        note = note.move.note
    return note


def is_zero(value: Any) -> bool:
    """Whether a number or a constant tensor is 0 everywhere."""
    if not isinstance(value, Tensor):
        return isinstance(value, (int, float)) and value == 0
    return not value.requires_grad and not recording() and value.numel() > 0 and not bool(value.any())


def keeps_above(x: Tensor) -> Tensor:
    """`x * (x > 0)`: what a mask by sign makes of its tensor, as a function of it."""
    return torch.relu(x)


def keeps_below(x: Tensor) -> Tensor:
    """`x * (x < 0)`."""
    return torch.clamp(x, max=0)


class Rectifier(NamedTuple):
    """An operation with a mask by sign, as a relu of one operand.

    Attributes:
        entry: the register's entry of `keeps_above` or `keeps_below`.
        function: the operation itself, as a function of x alone.
        main: the same, if the operation writes into x, as one that makes a new tensor.
        x: the operand.
    """

    entry: Entry
    function: Callable[[Tensor], Any]
    main: Callable[[Tensor], Tensor]
    x: Tensor


def rectifier(entry: Entry, function: Callable[..., Any], args: tuple, kwargs: dict) -> Rectifier | None:
    """The relu that an operation with a mask by sign is; None for any other operation."""
    name = getattr(entry.function, "__name__", "").strip("_")
    if kwargs or not 2 <= len(args) <= 3 or name not in _MAIN:
        return None
    for x, mask, other, keeps in _readings(name, *args):
        above = side(x, mask)
        if above is not None and is_zero(other):
            known = TABLE[keeps_above if above == keeps else keeps_below]
            main = _MAIN[name] if entry.spelling.inplace else function
            given = (x, mask, 0) if name == "setitem" else args  # whose mask may stand in a tuple
            return Rectifier(known, as_function_of(function, x, args, {}), as_function_of(main, x, given, {}), x)
    return None


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
