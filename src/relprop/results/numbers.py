"""The numbers of each sample of a result of tensors, and its target in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from relprop.composites import Composite
from relprop.rendering.scale import to_array
from relprop.rendering.view import Row, by_cause
from relprop.rendering.visible import visible
from relprop.results.contrast import target_at
from relprop.results.ledger import Ledger
from relprop.results.target_words import in_words
from relprop.trees import leaves


class Tensors(Protocol):
    """What drawing needs of the relevance of tensors."""

    values: Any
    inputs: Any
    output: Any
    score: Tensor
    residual: Tensor
    target: Any
    labels: Sequence[str] | None
    composite: Composite
    ledger: Ledger

    def __len__(self) -> int: ...


def rows(result: Tensors) -> list[Row]:
    """The numbers of every score that a result explains."""
    return [row_of(result, n, titled(result, n)) for n in range(len(result))]


def row_of(result: Tensors, sample: int, title: str) -> Row:
    """The numbers of one sample's score."""
    score, residual = float(result.score[sample]), float(result.residual[sample])
    return Row(title, score, total(result, sample), residual, absorbed(result, sample))


def titled(result: Tensors, sample: int) -> str:
    """What was explained of a sample, with its number if there are several."""
    target = target_of(result, sample)
    return f"sample {sample}: {target}" if len(result) > 1 else target


def target_of(result: Tensors, sample: int) -> str:
    """What was explained of a sample, in words: the class's name if it is known."""
    said = in_words(target_at(result.target, sample, len(result)), result.labels)
    through = target_at(getattr(result, "through", None), sample, len(result))
    return visible(said if through is None else f"{said}, {through}")


def predictions(result: Tensors, sample: int, count: int = 5) -> list[tuple[str, float]]:
    """The largest outputs of a sample, by name; empty unless the output is one row of scores per sample."""
    output = result.output
    if not isinstance(output, Tensor) or output.is_complex() or output.ndim != 2 or output.shape[0] != len(result):
        return []
    row = output[sample].float()
    best = row.topk(min(count, len(row)))
    return [
        (visible(in_words(i, result.labels)), v)
        for i, v in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def total(result: Tensors, sample: int) -> float:
    """The relevance of a sample that arrived at the inputs."""
    with np.errstate(invalid="ignore", over="ignore"):  # infinities of both signs add up to NaN
        return sum(
            float(to_array(leaf[sample] if leaf.ndim and leaf.shape[0] == len(result) else leaf).sum())
            for _, leaf in leaves(result.values)
            if isinstance(leaf, Tensor)
        )


def absorbed(result: Tensors, sample: int) -> dict[str, float]:
    """The part of the score that did not arrive, by cause; the parts add up to the residual."""
    causes = {cause: float(amounts[sample]) for cause, amounts in result.ledger.items()}
    return by_cause(float(result.residual[sample]), causes)
