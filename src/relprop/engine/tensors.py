"""Small helpers for operands: liveness, detaching, and the tensors in a nest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import ref

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

    def __contains__(self, tensor: Tensor) -> bool:
        held = self._held.get(id(tensor))
        return held is not None and held() is tensor
