"""A contrast of two targets, and the target of one sample of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
