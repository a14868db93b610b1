"""Vectors and pages of strategies for runs over texts: which words a network uses, wherever they stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from relprop.data.chunks import decoded
from relprop.data.store import Store
from relprop.data.strategies import Strategies
from relprop.rendering import html
from relprop.rendering.scale import number
from relprop.rendering.text import TokenMap, read

WORDS, TOKENS = "words", "tokens"
_FEATURES = 1024
"""The words of a class that its vectors have: those with the most relevance."""
_ROWS = 1024
_SHOWN = 12
"""How many words stand for a cluster."""


def text_vectors(store: Store, rows: np.ndarray, which: int, on: str) -> Iterator[np.ndarray]:
    """Vectors of length 1, one for each text: the relevance of each word, summed over the places where it stands.

    Of all words of these texts, those with the most relevance in size are taken. Special tokens are left out.
    """
    total: Counter[tuple[int, ...]] = Counter()
    for some in _bags(store, rows, which, on):
        for bag in some:
            total.update({word: abs(value) for word, value in bag.items()})
    chosen = sorted(total, key=lambda word: (-total[word], word))[:_FEATURES]
    place = {word: n for n, word in enumerate(chosen)}
    for some in _bags(store, rows, which, on):
        found = np.zeros((len(some), max(len(place), 1)))
        for n, bag in enumerate(some):
            for word, value in bag.items():
                if word in place:
                    found[n, place[word]] = value
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        yield found / np.where(lengths > 0, lengths, 1)


def text_clusters_html(store: Store, one: Strategies) -> str:
    """The clusters of a class: the words with the most relevance in each, and its most central texts."""
    names = store.vocabulary()
    parts = [f"<h2>Class {html.text(one.target)}</h2>"]
    for cluster, size in enumerate(one.sizes):
        parts.append(f"<h3>Cluster {cluster + 1}: {size} of {len(one.keys)} samples</h3>")
        inside = np.flatnonzero(one.clusters == cluster)
        total: Counter[tuple[int, ...]] = Counter()
        for some in _bags(store, one.rows[inside], one.which, WORDS):
            for bag in some:
                for word, value in bag.items():
                    total[word] += value  # type: ignore[assignment]  # a Counter of floats
        best = sorted(total, key=lambda word: -abs(total[word]))[:_SHOWN]
        said = ", ".join(f"{_spelled(names, word)} {number(total[word] / len(inside))}" for word in best)
        parts.append(f"<p>Mean relevance of its words: {html.text(said)}</p>")
        at = {one.keys[int(n)]: int(n) for n in inside}
        for key in one.central[cluster]:
            ids, words, values = next(iter(_texts(store, one.rows[[at[key]]], one.which)))
            shown = [names[n] if n < len(names) else str(n) for n in ids]
            drawn = TokenMap.of(shown, values, special=[bool(word < 0) for word in words])
            parts.append(f"<h4>{html.text(key)}</h4>{html.tokens_html(drawn, many=True)}")
    return f"<section>{''.join(parts)}</section>"


def _spelled(names: Sequence[str], word: tuple[int, ...]) -> str:
    tokens = [names[n] if n < len(names) else str(n) for n in word]
    return "".join(token.text for token in read(tokens, [0.0] * len(tokens))).strip()


def _bags(store: Store, rows: np.ndarray, which: int, on: str) -> Iterator[list[dict[tuple[int, ...], float]]]:
    """The relevance of each word of each text, some texts at a time. A word is the ids of its tokens."""
    for start in range(0, len(rows), _ROWS):
        found = []
        for ids, words, values in _texts(store, rows[start : start + _ROWS], which):
            groups = words if on == WORDS else np.where(words < 0, -1, np.arange(len(words)))
            bag: dict[tuple[int, ...], float] = {}
            starts = np.flatnonzero(np.diff(groups, prepend=-2))
            for first, stop in zip(starts, [*starts[1:], len(groups)], strict=True):
                if groups[first] >= 0:
                    word = tuple(ids[first:stop].tolist())
                    bag[word] = bag.get(word, 0.0) + float(values[first:stop].sum())
            found.append(bag)
        yield found


def _texts(store: Store, rows: np.ndarray, which: int) -> Iterator[tuple[Any, Any, Any]]:
    """The ids, the words and the relevance of the tokens of each text."""
    maps = decoded(store, "maps", rows)
    maps = maps[:, which] if maps.ndim == 3 else maps
    lengths, ids, words = (decoded(store, f"tokens.{name}", rows) for name in ("length", "id", "word"))
    for n, length in enumerate(lengths):
        yield ids[n, :length], words[n, :length], maps[n, :length].astype(np.float64)
