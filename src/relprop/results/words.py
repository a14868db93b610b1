"""The words of a text, made of its tokens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """The tokens of a word, and the sum of their relevance.

    Attributes:
        text: as it reads.
        relevance: of all its tokens.
        special: whether it is one of the model's own signs.
        tokens: its tokens, as a range of positions.
    """

    text: str
    relevance: float
    special: bool
    tokens: range
