"""The drawings of texts and generations, and their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from relprop.composites import Composite
from relprop.rendering.account import account
from relprop.rendering.matrix import TokenMatrix, label
from relprop.rendering.scale import Scale, number, scale_for
from relprop.rendering.text import TokenMap
from relprop.rendering.view import Options, Row, View, by_cause, chance
from relprop.rendering.visible import visible
from relprop.results.ledger import Ledger
from relprop.results.words import Word


class _Text(Protocol):
    """What drawing needs of the relevance of a text."""

    pieces: list[str]
    special: list[bool]
    spans: list[tuple[int, int]]
    relevance: Tensor
    target: str
    probability: float | None
    score: Tensor
    residual: Tensor
    predictions: list[tuple[str, float | None]]
    positions: dict[str, Tensor]
    composite: Composite
    ledger: Ledger

    @property
    def decoder(self) -> _Text | None: ...

    @property
    def words(self) -> list[Word]: ...

    def in_tables(self) -> float: ...


class _Generation(Protocol):
    """What drawing needs of the relevance of a generation."""

    prompt: list[str]
    generated: list[str]
    relevance: Tensor
    probabilities: Tensor
    scores: Tensor
    residual: Tensor
    composite: Composite
    ledger: Ledger

    @property
    def tokens(self) -> list[str]: ...

    @property
    def read(self) -> Tensor: ...

    @property
    def text(self) -> str: ...

    def __len__(self) -> int: ...


def text_views(result: _Text, options: Options) -> list[View]:
    """The text, and what an encoder-decoder model had written so far, both on one scale."""
    parts = [result] if result.decoder is None else [result, result.decoder]
    values = [_tokens(part, options.merge)[1] for part in parts]
    scale: Scale = scale_for(values, percentile=options.percentile, limit=options.limit)
    (row,) = rows_of_text(result)
    numbers = [_numbers(row, result.composite.name)]
    adds_up = result.composite.multiply_by_inputs
    said, bar = account(_with_positions(row, result), "tokens", options.palette) if adds_up else ("", None)
    numbers += [said] if said else []
    if result.positions:
        ended = ", ".join(f"{name} {number(float(r.sum()))}" for name, r in result.positions.items())
        numbers.append(f"in positions: {ended}")
    found = []
    for part in parts:
        first = part is result
        shown = _map(part, scale, options)
        found.append(
            View(
                "text", 0, row.title if first else f"{row.title}: written so far", tuple(numbers if first else []),
                partial(shown.drawing, options.room), [(token.text, token.value) for token in shown.tokens], shown,
                said=_likeliest(result.predictions) if first else "", rows=[row] if first else (),
                account=bar if first else None,
            )
        )  # fmt: skip
    return found


def generation_views(result: _Generation, options: Options) -> list[View]:
    """The matrix, without the column of the last token, which no other token has read."""
    shown = TokenMatrix.of(
        result.generated, result.tokens[:-1], result.relevance[:, :-1], style="plain", unread=~result.read[:, :-1],
        prompt=len(result.prompt),
        percentile=options.percentile, limit=options.limit, palette=options.palette,
    )  # fmt: skip
    strongest = sorted(
        ((shown.said(r, c).rpartition(": ")[0], value) for r in range(len(result)) for c, value in shown.strongest(r)),
        key=lambda entry: -abs(entry[1]),
    )
    rows = rows_of_generation(result)
    said = f"{len(result)} tokens generated from {len(result.prompt)}; {result.composite.name}"
    title = visible(result.text.replace("\n", "↵"), longest=200).strip() or label(result.text)
    return [View("matrix", 0, title, (said,), shown.drawing, strongest[:20], shown, rows=rows)]


def rows_of_text(result: _Text) -> list[Row]:
    """The numbers of what was explained."""
    arrived = float(result.relevance.sum())
    if result.decoder is not None:
        arrived += float(result.decoder.relevance.sum())
    causes = {cause: float(amount[0]) for cause, amount in result.ledger.items()}
    # The ledger counts what ends in added positions as absorbed, while the residual of a text does not.
    kept = float(result.residual)
    rest = kept + (result.in_tables() if causes else 0.0)
    return [Row(called(result.target), float(result.score), arrived, kept, by_cause(rest, causes), result.probability)]


def rows_of_generation(result: _Generation) -> list[Row]:
    """The numbers of each generated token."""
    return [
        Row(
            called(label(token)), float(result.scores[g]), float(result.relevance[g].sum()), float(result.residual[g]),
            by_cause(float(result.residual[g]), {cause: float(kept[g]) for cause, kept in result.ledger.items()}),
            float(result.probabilities[g]),
        )
        for g, token in enumerate(result.generated)
    ]  # fmt: skip


def facts_of_text(result: _Text) -> dict[str, Any]:
    """Plain data about a text, for programs."""
    told = {
        "probability": result.probability,
        "likeliest": {_printed(name): sure for name, sure in result.predictions},
        "tokens": _valued(result),
    }
    return told if result.decoder is None else told | {"written": _valued(result.decoder)}


def facts_of_generation(result: _Generation, n: int) -> dict[str, Any]:
    """Plain data about a generated token, for programs."""
    read = zip(result.tokens, result.relevance[n].tolist(), result.read[n].tolist(), strict=True)
    return {
        "probability": float(result.probabilities[n]),
        "tokens": [[_printed(token), value] for token, value, seen in read if seen],
    }


def _valued(part: _Text) -> list[list[Any]]:
    return [[_printed(piece), value] for piece, value in zip(part.pieces, part.relevance.tolist(), strict=True)]


def _printed(text: str) -> str:
    return visible(text, lines=True)


def _with_positions(row: Row, result: _Text) -> Row:
    """The numbers with what ended in position encodings, where the ledger has not counted it."""
    ended = sum(float(r.sum()) for r in result.positions.values())
    gap = row.score - row.relevance - sum(row.absorbed.values())
    if not ended or abs(gap - ended) > 1e-3 * max(abs(row.score), abs(ended)):
        return row
    return replace(row, absorbed=row.absorbed | {"position encodings": ended})


def _map(part: _Text, scale: Scale, options: Options) -> TokenMap:

    pieces, values, special = _tokens(part, options.merge)
    return TokenMap.of(pieces, values, style="plain", special=special, limit=scale, palette=options.palette)


def _tokens(part: _Text, merge: bool) -> tuple[list[str], Tensor, list[bool]]:
    """Pieces, their relevance, and which are special; words instead of tokens if they are merged."""
    if not merge:
        return part.pieces, part.relevance, part.special
    words = part.words
    pieces = ["".join(part.pieces[a:b]) for a, b in part.spans]
    return pieces, torch.tensor([word.relevance for word in words]), [word.special for word in words]


def _numbers(row: Row, composite: str) -> str:

    return f"score {number(row.score)}, relevance {number(row.relevance)}, residual {number(row.residual)}; {composite}"


def _likeliest(predictions: Sequence[tuple[str, float | None]]) -> str:

    named = [(called(name), sure) for name, sure in predictions]
    found = ", ".join(name if sure is None else f"{name} {chance(sure)}" for name, sure in named)
    return f"Likeliest, with probabilities: {found}." if found else ""


def called(target: str) -> str:
    """A target in a sentence. One without letters and digits, such as a full stop or a space, is quoted."""
    return visible(target).strip() if any(map(str.isalnum, target)) else repr(target)
