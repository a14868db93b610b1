"""What is drawn of texts and generations, and the numbers beside it: from here the outputs are those of any result.

`rendering` is imported when something is drawn: `import relprop` does without Pillow.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from relprop.rendering import Options, Scale, TokenMap
    from relprop.rendering.views import Row, View
    from relprop.text.result import GenerationRelevance, TextRelevance


def text_views(result: TextRelevance, options: Options) -> list[View]:
    """The text, and what an encoder-decoder model had written so far, on one scale."""
    from relprop.rendering.scale import number, scale_for
    from relprop.rendering.views import View

    parts = [result] if result.decoder is None else [result, result.decoder]
    values = [_tokens(part, options.merge)[1] for part in parts]
    scale: Scale = scale_for(values, percentile=options.percentile, limit=options.limit)
    (row,) = rows_of_text(result)
    numbers = [_numbers(row, result.composite.name)]
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
            )
        )  # fmt: skip
    return found


def generation_views(result: GenerationRelevance, options: Options) -> list[View]:
    """The matrix, without the last token's column, which nothing has read."""
    from relprop.rendering.matrix import TokenMatrix, label
    from relprop.rendering.views import View
    from relprop.rendering.visible import visible

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


def rows_of_text(result: TextRelevance) -> list[Row]:
    """The numbers of what was explained."""
    from relprop.rendering.views import Row, by_cause

    arrived = float(result.relevance.sum())
    if result.decoder is not None:
        arrived += float(result.decoder.relevance.sum())
    causes = {cause: float(amount[0]) for cause, amount in result.ledger.items()}
    # The ledger counts what ends in added positions as absorbed; here it is told apart.
    kept = float(result.residual)
    rest = kept + (result.in_tables() if causes else 0.0)
    return [Row(called(result.target), float(result.score), arrived, kept, by_cause(rest, causes), result.probability)]


def rows_of_generation(result: GenerationRelevance) -> list[Row]:
    """The numbers of each generated token."""
    from relprop.rendering.matrix import label
    from relprop.rendering.views import Row, by_cause

    return [
        Row(
            called(label(token)), float(result.scores[g]), float(result.relevance[g].sum()), float(result.residual[g]),
            by_cause(float(result.residual[g]), {cause: float(kept[g]) for cause, kept in result.ledger.items()}),
            float(result.probabilities[g]),
        )
        for g, token in enumerate(result.generated)
    ]  # fmt: skip


def _map(part: TextRelevance, scale: Scale, options: Options) -> TokenMap:
    from relprop.rendering import TokenMap

    pieces, values, special = _tokens(part, options.merge)
    return TokenMap.of(pieces, values, style="plain", special=special, limit=scale, palette=options.palette)


def _tokens(part: TextRelevance, merge: bool) -> tuple[list[str], Tensor, list[bool]]:
    """Pieces, their relevance, and which are special; of words where tokens are merged."""
    if not merge:
        return part.pieces, part.relevance, part.special
    words = part.words
    pieces = ["".join(part.pieces[a:b]) for a, b in part.spans]
    return pieces, torch.tensor([word.relevance for word in words]), [word.special for word in words]


def _numbers(row: Row, composite: str) -> str:
    from relprop.rendering.scale import number

    return f"score {number(row.score)}, relevance {number(row.relevance)}, residual {number(row.residual)}; {composite}"


def _likeliest(predictions: Sequence[tuple[str, float | None]]) -> str:
    from relprop.rendering.views import chance

    named = [(called(name), sure) for name, sure in predictions]
    found = ", ".join(name if sure is None else f"{name} {chance(sure)}" for name, sure in named)
    return f"Likeliest, with probabilities: {found}." if found else ""


def called(target: str) -> str:
    """A target in a sentence: between quotes where it has no letter or digit, as a full stop or a space."""
    from relprop.rendering.visible import visible

    return visible(target).strip() if any(map(str.isalnum, target)) else repr(target)
