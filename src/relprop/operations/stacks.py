"""Stacks, and what reduces them: `stack([a, b]).sum(0)` is `a + b`, and a maximum or a product is that of the operands.

A sum over an axis is not an elementwise function, but a sum over the axis of a stack is one. So a stack remembers what is
known of its operands, and a reduction along its axis acts on them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.moves import came_from
from relprop.engine.notes import Note, note_of
from relprop.engine.origins import chain, proportional, remembered
from relprop.engine.roles import moves, role
from relprop.engine.traits import SAME

_MOST = 16
"""A stack of more operands is a sequence: it is not remembered."""


class Stacked(NamedTuple):
    """The operands of a stack: the axis along which they lie, what is known of each, and their shape.

    A constant has no note. The operands of a concatenation already have the axis, of length one.
    """

    axis: int
    notes: tuple[Note | None, ...]
    shape: torch.Size
    has_axis: bool


STACK = role(
    "stack", SAME,
    given_by="stack, and concatenations of parts of length one",
    asked_by="sums, means, products and extremes along the axis of the stack",
)  # fmt: skip


def stacked(call: Call, tensors: Any, result: Tensor, dim: Any) -> None:
    """Notes the operands of a stack, or of a concatenation that is one."""
    if not 1 < len(tensors) <= _MOST or not isinstance(dim, int) or result.ndim == 0:
        return
    has_axis, first = result.ndim == tensors[0].ndim, tensors[0]
    axis = dim % result.ndim
    if has_axis and (first.shape[axis] != 1 or result.shape[axis] != len(tensors)):
        return
    if any(t.dtype != result.dtype for t in tensors):
        return
    notes = tuple(call.note(t) if t.requires_grad else None for t in tensors)
    call.give(result, STACK, Stacked(axis, notes, first.shape, has_axis))


def parts_of(call: Call, t: Tensor, dim: Any) -> list[Tensor] | None:
    """The operands of the stack that a live tensor is, if `dim` is their axis; else None."""
    note = note_of(t)
    known = None if note is None or note.roles is None else note.roles.get(STACK)
    if isinstance(dim, (tuple, list)) and len(dim) == 1:
        dim = dim[0]
    if known is None or not isinstance(dim, int) or dim % t.ndim != known.axis:
        return None
    parts = []
    for part, before in zip(t.unbind(known.axis), known.notes, strict=True):
        if before is None:
            parts.append(part.detach())
            continue
        moved = (torch.squeeze, known.axis) if known.has_axis else ()
        came_from(call, part, before, known.shape, *moved)
        parts.append(part)
    return parts


def elementwise_sum(call: Call, parts: list[Tensor], y: Tensor) -> None:
    """Notes that a sum or a mean of a stack's operands continues their chain, as `a + b` does."""
    count = len(parts) if call.entry.function.__name__ == "mean" else 1
    if all(t.requires_grad for t in parts):
        found = chain(_mean if count > 1 else _sum, tuple(parts), {}, affine=True)
        if found is not None:
            remembered(call, y, found)


def elementwise_extreme(call: Call, input: Tensor, y: Tensor, dim: Any, largest: bool) -> None:
    """Notes that the largest or smallest of several multiples of a tensor is an activation of it, as for two operands."""
    parts = parts_of(call, input, dim) if y.ndim < input.ndim else None
    if parts is None or not all(t.requires_grad for t in parts):
        return
    if all(proportional(parts[0], t) for t in parts[1:]):
        found = chain(_largest if largest else _smallest, tuple(parts), {})
        if found is not None:
            remembered(call, y, found)


def with_axis(call: Call, y: Tensor, input: Tensor, dim: Any) -> Tensor:
    """A result with the axis that its operation keeps, in length one."""
    axis = (dim[0] if isinstance(dim, (tuple, list)) else dim) % input.ndim
    kept = y.unsqueeze(axis)
    moves(call, lambda t: t.unsqueeze(axis), y, kept)
    return kept


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda *parts: reduce(function, parts)


_sum, _largest, _smallest = _folded(torch.add), _folded(torch.maximum), _folded(torch.minimum)


def _mean(*parts: Tensor) -> Tensor:
    return _sum(*parts) / len(parts)
