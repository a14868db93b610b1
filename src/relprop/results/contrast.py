"""A contrast of two targets, and the target of one sample of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.signatures import public_class


@public_class("relprop.Contrast")
@dataclass(frozen=True)
class Contrast:
    """The score of one target minus that of another, to ask why this and not that.

    Args:
        positive: any target, as `relprop.attribute` takes it.
        negative: the target that is subtracted.
    """

    positive: Any
    negative: Any


def target_at(target: Any, index: int | slice, count: int) -> Any:
    """The target of one or some of `count` samples.

    A list, or a tensor or array with one axis, has one target per sample, also within a contrast.
    """
    if isinstance(target, Contrast):
        return Contrast(target_at(target.positive, index, count), target_at(target.negative, index, count))
    array = hasattr(target, "__array__") and target.ndim == 1
    if not (array or isinstance(target, list)) or len(target) != count:
        return target
    return target[index].item() if array and isinstance(index, int) else target[index]


def targets_of(parts: Sequence[Any], counts: Sequence[int]) -> Any:
    """The target of several batches of that many samples. It is a list with one per sample where they differ."""
    if all(isinstance(part, Contrast) for part in parts):
        positive, negative = (
            targets_of([getattr(part, side) for part in parts], counts) for side in ("positive", "negative")
        )
        return Contrast(positive, negative)
    if all(isinstance(part, Tensor) and part.ndim and len(part) == n for part, n in zip(parts, counts, strict=True)):
        return torch.cat(list(parts))
    lists = [isinstance(part, list) and len(part) == count for part, count in zip(parts, counts, strict=True)]
    if not any(lists) and all(_same(part, parts[0]) for part in parts):
        return parts[0]
    return [
        one
        for part, count, several in zip(parts, counts, lists, strict=True)
        for one in (part if several else [part] * count)
    ]


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return False
    try:
        return bool(a == b)
    except (TypeError, ValueError, RuntimeError):  # such as arrays
        return False
