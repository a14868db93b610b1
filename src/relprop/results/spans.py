"""Spans of texts: the relevance of a question, a passage or a few words, as the sum of their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from relprop.errors import InputError

REST = "in no group"
"""The name of the relevance of tokens that are in no span."""


class _SpannedText(Protocol):
    """What is needed of the relevance of a text."""

    pieces: list[str]
    special: list[bool]
    relevance: Tensor

    def __len__(self) -> int: ...


def grouped(result: _SpannedText, groups: Any) -> dict[str, float]:
    """The relevance of each span, and of the tokens in none; see `TextRelevance.grouped`."""
    if not isinstance(groups, Mapping) or not groups:
        raise InputError(f"groups is a dict from names to spans, such as {{'question': (0, 8)}}; got {groups!r}.")
    taken, found = torch.zeros(len(result), dtype=torch.bool), {}
    for name, parts in groups.items():
        inside = torch.zeros(len(result), dtype=torch.bool)
        for part in parts if isinstance(parts, list) else [parts]:
            start, stop = _span(result, name, part)
            inside[start:stop] = True
        if bool((inside & taken).any()):
            raise InputError(f"span {name!r} shares a token with another: its relevance would count twice.")
        taken |= inside
        found[str(name)] = float(result.relevance[inside].sum())
    return found if bool(taken.all()) else found | {REST: float(result.relevance[~taken].sum())}


def columns(results: Sequence[_SpannedText], groups: Any) -> dict[str, list[float]]:
    """The relevance of each span as a column with a number per text, NaN where a text has no such span.

    Raises:
        InputError: a list of groups has another length than that of texts, or a span does not fit its text.
    """
    each = list(groups) if isinstance(groups, (list, tuple)) else [groups] * len(results)
    if len(each) != len(results):
        raise InputError(f"{len(each)} groups for {len(results)} texts: give one for all, or a list with one per text.")
    rows = [grouped(result, one) for result, one in zip(results, each, strict=True)]
    names = dict.fromkeys(name for row in rows for name in row)
    last = [REST] if REST in names else []
    return {name: [row.get(name, float("nan")) for row in rows] for name in [*(n for n in names if n != REST), *last]}


def _span(result: _SpannedText, name: Any, part: Any) -> tuple[int, int]:
    """The tokens of a part of the text, as (start, stop)."""
    if isinstance(part, str):
        return _of_words(result, name, part)
    start, stop = part if isinstance(part, tuple) and len(part) == 2 else (0, 0)
    if not all(hasattr(end, "__index__") for end in (start, stop)) or not 0 <= start < stop <= len(result):
        raise InputError(
            f"span {name!r} is {part!r}; it is (start, stop) within the {len(result)} tokens, words of the text as a str, or a "
            "list of such."
        )
    return int(start), int(stop)


def _of_words(result: _SpannedText, name: Any, words: str) -> tuple[int, int]:
    """The tokens that words of the text are made of. Spaces and capitals are not compared: tokenizers change them."""
    letters = [
        (letter, token)
        for token, (piece, special) in enumerate(zip(result.pieces, result.special, strict=True))
        if not special
        for letter in _bare(piece)
    ]
    text, wanted = "".join(letter for letter, _ in letters), _bare(words)
    tokens = [-1, *(token for _, token in letters), -1]
    places = [n for n in range(len(text)) if wanted and text.startswith(wanted, n)]
    # Only whole tokens: "a" does not stand for a part of "bad".
    whole = [n for n in places if tokens[n] != tokens[n + 1] and tokens[n + len(wanted)] != tokens[n + len(wanted) + 1]]
    if len(whole) != 1:
        raise InputError(
            f"span {name!r}: {words!r} occurs {len(whole)} times as whole tokens of the text. Give the span as (start, stop), "
            "the numbers of its tokens."
        )
    return tokens[whole[0] + 1], tokens[whole[0] + len(wanted)] + 1


def _bare(text: str) -> str:
    return "".join(text.split()).casefold()
