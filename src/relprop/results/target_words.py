"""A target in words, for headings and captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from relprop.results.contrast import Contrast
from relprop.results.forms import Form


def in_words(target: Any, labels: Sequence[str] | None) -> str:
    """The target of one sample in words: the class's name if it is known, a function's as files have it.

    Names come from outside: who prints them makes them safe to print first.
    """
    if isinstance(target, Contrast):
        return f"{in_words(target.positive, labels)} rather than {in_words(target.negative, labels)}"
    if isinstance(target, Form):
        return target.in_words(lambda one: _class_in_words(one, labels))
    if isinstance(target, Tensor) and target.numel() == 1:
        target = target.item()
    if target is None:
        return "the output"
    if isinstance(target, int) and labels is not None and 0 <= target < len(labels):
        return f"{labels[target]} ({target})"
    if callable(target):
        return f"target {getattr(target, '__qualname__', None) or repr(target)}"
    return target if isinstance(target, str) else f"target {target}"


def _class_in_words(target: Any, labels: Sequence[str] | None) -> str:
    """A class within a longer phrase."""
    named = isinstance(target, int) and (labels is None or not 0 <= target < len(labels))
    return f"class {target}" if named else in_words(target, labels)
