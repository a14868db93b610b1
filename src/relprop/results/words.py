"""The words of a text, merged from its tokens."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """The tokens of a word, and the sum of their relevance.

    Attributes:
        text: the word as it reads.
        relevance: the sum over its tokens.
        special: whether all its tokens are the model's own.
        tokens: the positions of its tokens.
    """

    text: str
    relevance: float
    special: bool
    tokens: range
