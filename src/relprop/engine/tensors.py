"""Small helpers for operands: liveness, detaching, and the tensors in a nest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import ref

from torch import Tensor

NESTS = (list, tuple, dict)
"""What may hold tensors."""


def is_live(value: Any) -> bool:
    """Whether a value is a tensor that requires a gradient."""
    return isinstance(value, Tensor) and value.requires_grad


def without_history(value: Any) -> Any:
    """A tensor detached, a nest of tensors likewise; any other value unchanged."""
    if isinstance(value, Tensor):
        return value.detach()
    return each_tensor(lambda t: t.detach(), value) if isinstance(value, NESTS) else value


def each_tensor(change: Callable[[Tensor], Any], value: Any) -> Any:
    """A nest with each of its tensors changed. Its tuples and lists keep their types, torch's own among them."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (tuple, list)):
        items = [each_tensor(change, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        return {key: each_tensor(change, item) for key, item in value.items()}
    return value


def exchanged(value: Any, old: Any, new: Any) -> Any:
    """A nest with one object in the place of another. Its containers keep their types."""
    if value is old:
        return new
    if isinstance(value, (tuple, list)):
        items = [exchanged(item, old, new) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, dict):
        pairs = {key: exchanged(item, old, new) for key, item in value.items()}
        return pairs if type(value) is dict else type(value)(**pairs)
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


class WeakTensors:
    """A set of tensors, held weakly and known by identity.

    It differs from `weakref.WeakSet` in that nothing runs when a tensor dies, and nothing is compared by value.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[int, ref[Tensor]] = {}

    def add(self, tensor: Tensor) -> None:
        """Adds a tensor."""
        self._held[id(tensor)] = ref(tensor)

    def discard(self, tensor: Tensor | None) -> None:
        """Removes a tensor, if it is there."""
        self._held.pop(id(tensor), None)

    def __bool__(self) -> bool:
        """Whether a tensor was ever added that was not removed."""
        return bool(self._held)

    def __contains__(self, tensor: Tensor) -> bool:
        held = self._held.get(id(tensor))
        return held is not None and held() is tensor


def in_line(t: Tensor) -> bool:
    """Whether the rows of a tensor follow each other by their strides. Torch calls others contiguous, too.

    An axis of length 1 may have any stride.
    """
    fits, shape, stride = t.is_contiguous(), t.shape, t.stride()
    for axis in range(t.ndim - 2):
        fits &= stride[axis] == stride[axis + 1] * shape[axis + 1]
    return fits
