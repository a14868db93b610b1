"""What results by several composites share: their composites, rules and ledgers, each as one for all columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from relprop.composites import Composite
from relprop.results.files.folder import RecordedComposite
from relprop.results.ledger import Ledger, LedgerEntry


class _Scored(Protocol):
    """What is needed of a result."""

    score: Tensor
    composite: Composite
    ledger: Ledger


def composite_of(columns: Sequence[_Scored], names: Sequence[str]) -> RecordedComposite:
    """The composites of columns as one, for reports."""
    return RecordedComposite(
        ", ".join(names),
        "\n\n".join(str(result.composite) for result in columns),
        all(result.composite.multiply_by_inputs for result in columns),
    )


def recorded(columns: Sequence[_Scored]) -> list[list[Any]]:
    """The composites of columns, as a folder stores them."""
    return [[r.composite.name, str(r.composite), r.composite.multiply_by_inputs] for r in columns]


def joined(every: Sequence[_Scored]) -> Ledger:
    """One ledger of all scores. Composites differ in the operations that absorb something, so it sums by family."""
    families = dict.fromkeys(entry.family for result in every for entry in result.ledger.entries)
    found = []
    for family in families:
        parts = []
        for result in every:
            kept = torch.zeros(result.score.numel(), dtype=torch.float64)
            for entry in result.ledger.entries:
                if entry.family == family:
                    kept += entry.absorbed.detach().cpu().double()
            parts.append(kept)
        found.append(LedgerEntry(family, family, "", torch.cat(parts)))
    return Ledger(found)


def restored_composites(tables: Any, count: int) -> list[Composite]:
    """The composites of columns from what `recorded` made.

    Raises:
        ValueError: they are not described.
    """
    kinds = (str, str, bool)
    if not isinstance(tables, list) or len(tables) != count:
        raise ValueError("its composites do not fit its columns")
    for table in tables:
        if not isinstance(table, list) or [type(part) for part in table] != list(kinds):
            raise ValueError("one of its composites is not described")
    return [RecordedComposite(*table) for table in tables]


def split_rules(rules: list[Any], counts: Any, columns: int) -> list[list[Any]]:
    """The rules of each column.

    Raises:
        ValueError: the numbers of rules do not fit.
    """
    plain = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
    if not plain or len(counts) != columns or sum(counts) != len(rules):
        raise ValueError("its rules do not fit its columns")
    ends = [sum(counts[: n + 1]) for n in range(columns)]
    return [rules[end - count : end] for end, count in zip(ends, counts, strict=True)]
