"""What metrics ask for: the scores of changed samples. Equal changes of a sample have equal keys, whoever asks.

Index letters: m rows, U units.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from relprop.evaluation.replacements import Replacement


class Ask(ABC):
    """Some rows whose scores are wanted.

    Attributes:
        samples: the sample of each row, (m,), on the device.
        replacement: what takes the place of removed units; None for rows that are made otherwise.
    """

    samples: Tensor
    replacement: Replacement | None

    def __len__(self) -> int:
        return len(self.samples)

    @abstractmethod
    def keys(self) -> Tensor:
        """Two integers for each row, (m, 2), on the CPU; with sample and replacement they say what the row is."""


@dataclass(eq=False)
class Removed(Ask):
    """Samples without some of their units.

    Attributes:
        samples: the sample of each row, (m,).
        replacement: what takes their place.
        gone: the removed units, boolean, (m, U); or the rank of each unit in the order of removal, integers.
        first: with ranks, how many units are removed, (m,).
        table: with ranks, which row of `gone` each row uses, (m,).
    """

    samples: Tensor
    replacement: Replacement | None
    gone: Tensor
    first: Tensor | None = None
    table: Tensor | None = None

    def units(self, rows: Tensor) -> Tensor:
        """The removed units of some rows, boolean, (len(rows), U)."""
        if self.first is None or self.table is None:
            return self.gone.index_select(0, rows)
        ranks = self.gone.index_select(0, self.table.index_select(0, rows))
        return ranks < self.first.index_select(0, rows)[:, None]

    def keys(self) -> Tensor:
        """Two sums of numbers that stand for the units, modulo 2^64: equal sets have equal sums."""
        marks = unit_marks(self.gone.shape[1]).to(self.gone.device)
        if self.first is None or self.table is None:
            sums = torch.stack([_sums(self.gone, mark) for mark in marks], 1)
        else:
            sums = torch.empty(len(self), 2, dtype=torch.long, device=marks.device)
            size = max(1, 2**22 // max(1, self.gone.shape[1]))
            for start in range(0, len(self.gone), size):
                order = self.gone[start : start + size].argsort(1)
                totals = F.pad(marks[:, order].cumsum(2), (1, 0))
                here = ((self.table >= start) & (self.table < start + size)).nonzero()[:, 0]
                sums[here] = totals[:, self.table[here] - start, self.first[here]].T
        return sums.cpu()


def _sums(gone: Tensor, mark: Tensor) -> Tensor:
    """The sums of marks, row by row, in blocks that bound the memory."""
    size = max(1, 2**22 // max(1, gone.shape[1]))
    return torch.cat([(block * mark).sum(1) for block in gone.split(size)])


@lru_cache(maxsize=8)
def unit_marks(count: int) -> Tensor:
    """Two random integers of 64 bits for each unit, always the same."""
    generator = torch.Generator().manual_seed(6_364_136_223)
    return torch.randint(-(2**62), 2**62, (2, count), generator=generator)


@dataclass(eq=False)
class Changed(Ask):
    """Samples whose main input is changed in another way than by removing units.

    Attributes:
        samples: the sample of each row, (m,).
        make: gives the main input of some rows; with a replacement, which of its entries are replaced, boolean.
        what: says what is made, for the keys.
        replacement: what takes the place of entries.
    """

    samples: Tensor
    make: Callable[[Tensor], Tensor]
    what: str
    replacement: Replacement | None = None

    def keys(self) -> Tensor:
        """The number of a row among those of its sample, and what is made."""
        mark = int.from_bytes(hashlib.sha256(self.what.encode()).digest()[:8], "big", signed=True)
        samples = self.samples.cpu()
        ordered, order = samples.sort(stable=True)
        starts = torch.searchsorted(ordered, ordered)
        seen = torch.empty_like(order)
        seen[order] = torch.arange(len(order)) - starts
        return torch.stack([seen, torch.full_like(seen, mark)], 1)
