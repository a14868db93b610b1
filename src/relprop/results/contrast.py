"""A contrast of two targets, and the target of one sample of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from relprop.signatures import public


@dataclass(frozen=True)
class Contrast:
    """The score of one target minus that of another, to ask why this and not that.

    Args:
        positive: any target, as `relprop.attribute` takes it.
        negative: the target that is subtracted.
    """

    positive: Any
    negative: Any


Contrast.__init__ = public("relprop.Contrast")(Contrast.__init__)  # type: ignore[method-assign]


def target_at(target: Any, index: int | slice, count: int) -> Any:
    """The target of one or some of `count` samples. A list has one target per sample, also within a contrast."""
    if isinstance(target, Contrast):
        return Contrast(target_at(target.positive, index, count), target_at(target.negative, index, count))
    return target[index] if isinstance(target, list) and len(target) == count else target


def in_words(target: Any, labels: Sequence[str] | None) -> str:
    """The target of one sample in words: the class's name if it is known, a function's as files have it."""
    if isinstance(target, Contrast):
        return f"{in_words(target.positive, labels)} rather than {in_words(target.negative, labels)}"
    if isinstance(target, Tensor) and target.numel() == 1:
        target = target.item()
    if target is None:
        return "the output"
    if isinstance(target, int) and labels is not None and 0 <= target < len(labels):
        return f"{labels[target]} ({target})"
    if callable(target):
        return f"target {getattr(target, '__qualname__', None) or repr(target)}"
    return target if isinstance(target, str) else f"target {target}"
