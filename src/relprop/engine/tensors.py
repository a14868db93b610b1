"""Small helpers for operands: liveness, detaching, and the tensors in a nest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def is_live(value: Any) -> bool:
    """Whether a value is a tensor that requires a gradient."""
    return isinstance(value, Tensor) and value.requires_grad


def without_history(value: Any) -> Any:
    """A tensor detached, a tuple or list of tensors likewise; any other value unchanged."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, (tuple, list)):
        return type(value)(without_history(item) for item in value)
    return value


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and dictionaries, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)


def per_axis(value: Any, axes: int) -> list[int]:
    """A size for each axis: a number holds for all axes, a shorter list is repeated."""
    return list(value) * (axes // len(value)) if isinstance(value, (tuple, list)) else [value] * axes


def in_line(t: Tensor) -> bool:
    """Whether the rows of a tensor follow each other by their strides. Torch calls others contiguous, too.

    An axis of length 1 may have any stride.
    """
    fits, shape, stride = t.is_contiguous(), t.shape, t.stride()
    for axis in range(t.ndim - 2):
        fits &= stride[axis] == stride[axis + 1] * shape[axis + 1]
    return fits
