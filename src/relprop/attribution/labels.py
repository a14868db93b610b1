"""What is said of a name that is none of the labels: all of them if they are few, else those that are near."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

FEW = 12
"""The most labels of which all are listed."""
_NEAR = 5


def near_labels(text: str, labels: Sequence[str]) -> list[str]:
    """Labels near a text, the nearest first: those that hold it as whole words, those that are spelled alike, those that hold it."""
    wanted = text.strip().lower()
    if not wanted:
        return []
    lowered: dict[str, str] = {}
    for label in labels:
        lowered.setdefault(label.lower(), label)
    whole = [name for name in lowered if re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", name)]
    alike = difflib.get_close_matches(wanted, list(lowered), n=3)
    inside = [name for name in lowered if wanted in name]
    return [lowered[name] for name in dict.fromkeys([*sorted(whole, key=len), *alike, *inside])][:_NEAR]


def instead(text: str, labels: Sequence[str]) -> str:
    """The end of a sentence about a class that does not exist: what there is."""
    if len(labels) <= FEW:
        return f"; there are: {', '.join(map(repr, labels))}"
    near = near_labels(text, labels)
    return f"; near it: {', '.join(map(repr, near))}" if near else "; use one of its names or numbers"
