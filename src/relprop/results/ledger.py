"""The ledger of a result: how much relevance the constants, stabilisers and offsets of each operation absorbed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from relprop.engine.recorder import SINK

CAUSES = {
    "conv": "biases and stabilisers",
    "linear": "biases and stabilisers",
    "bilinear": "biases and stabilisers",
    "batch_norm": "biases and stabilisers",
    "activation": "activations that are not 0 at 0",
    "softmax": "softmax",
    "attention": "attention",
    "norm": "normalisation",
    "sum": "constants in sums",
    "product": "products",
    "division": "divisions",
    "recurrent": "recurrent layers",
    SINK: "position encodings",
    "splice": "reconstruction errors",
}
"""What absorbed relevance, by family of operations."""
OTHER = "other constants"


@dataclass
class LedgerEntry:
    """The relevance that one call of one operation absorbed.

    Attributes:
        family: the operation's family.
        name: the operation's name.
        where: the module that called it.
        absorbed: the relevance, shape (N,), float64.
    """

    family: str
    name: str
    where: str
    absorbed: Tensor

    @property
    def cause(self) -> str:
        """The cause in words: what absorbed the relevance."""
        return CAUSES.get(self.family, OTHER)


class Ledger(Mapping[str, Tensor]):
    """Where the residual went: a mapping from a cause to the relevance it absorbed, shape (N,), float64.

    The causes sum to the residual up to rounding. A cause that absorbed no more than rounding is left out. `entries`
    has one entry per call of an operation, and `print(ledger)` shows the largest.
    """

    def __init__(self, entries: list[LedgerEntry]) -> None:
        self.entries = entries
        causes: dict[str, Tensor] = {}
        for entry in entries:
            causes[entry.cause] = causes[entry.cause] + entry.absorbed if entry.cause in causes else entry.absorbed
        sizes = {cause: float(kept.abs().max()) for cause, kept in causes.items()}
        rounding = 1e-12 * max(sizes.values(), default=0.0)
        self._causes = {cause: kept for cause, kept in causes.items() if sizes[cause] > rounding}

    def __getitem__(self, cause: str) -> Tensor:
        return self._causes[cause]

    def __iter__(self) -> Iterator[str]:
        return iter(self._causes)

    def __len__(self) -> int:
        return len(self._causes)

    def __bool__(self) -> bool:
        return bool(self.entries)

    @staticmethod
    def joined(parts: list[Ledger]) -> Ledger:
        """The ledger of a batch, joined from those of its parts."""
        rows = zip(*(part.entries for part in parts), strict=True)
        return Ledger(
            [LedgerEntry(r[0].family, r[0].name, r[0].where, torch.cat([e.absorbed for e in r])) for r in rows]
        )

    def sample(self, index: int | slice) -> Ledger:
        """The ledger of some samples."""
        return Ledger([LedgerEntry(e.family, e.name, e.where, e.absorbed[index]) for e in self.entries])

    def __str__(self) -> str:
        if not self.entries:
            return "empty: ledger=True, as in relprop.attribute(model, inputs, ledger=True), records what absorbed the residual"
        rows = [(f"{e.name} ({e.family}) in {e.where}", e.absorbed.tolist()) for e in self.entries]
        rows = sorted(rows, key=lambda row: -max(map(abs, row[1]), default=0.0))[:12]
        width = max((len(name) for name, _ in rows), default=0)
        return "\n".join(f"{name:<{width}}  {' '.join(f'{v:10.4g}' for v in kept)}" for name, kept in rows)

    __repr__ = __str__
