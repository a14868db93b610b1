"""Small questions about operands: is it live, what is it without its history, which tensors are in a nest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def is_live(value: Any) -> bool:
    """Whether a value is a tensor that asks for a gradient."""
    return isinstance(value, Tensor) and value.requires_grad


def without_history(value: Any) -> Any:
    """A tensor detached, a tuple or list of them likewise; all else as it is."""
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
    """A size for each axis: a number counts for all, a shorter list is repeated."""
    return list(value) * (axes // len(value)) if isinstance(value, (tuple, list)) else [value] * axes
