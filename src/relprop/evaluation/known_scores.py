"""The scores of rows that ran already, found by keys of four integers, many at a time.

A key is the row's sample, its replacement, and two integers that say what is removed. Index letters: m rows, k known ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

_MIX = (-7046029254386353131, -4417276706812531889, 1609587929392839161, -1617863519217450737)


@dataclass(frozen=True)
class KnownBlock:
    """Some known scores, in the order of their hashes.

    Attributes:
        hashes: of the keys, sorted, (k,).
        keys: (k, 4).
        values: (k,).
    """

    hashes: Tensor
    keys: Tensor
    values: Tensor


@dataclass(eq=False)
class KnownScores:
    """Scores by their keys. They lie in sorted blocks, of which each is at least twice as long as the next."""

    _blocks: list[KnownBlock] = field(default_factory=list)
    _added: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def find(self, keys: Tensor) -> Tensor:
        """The scores of some rows, float64; NaN where they are not known.

        Args:
            keys: (m, 4), int64.
        """
        found = torch.full((len(keys),), float("nan"), dtype=torch.float64)
        while self._added:
            self._sort_in(*self._added.pop())
        hashes = hashed(keys) if self._blocks else None
        for block in self._blocks:
            assert hashes is not None
            place = torch.searchsorted(block.hashes, hashes).clamp(max=len(block.hashes) - 1)
            # Two keys with one hash are so rare that the second may be computed again.
            same = (block.keys[place] == keys).all(1)
            found = torch.where(same, block.values[place], found)
        return found

    def add(self, keys: Tensor, values: Tensor) -> None:
        """Notes scores, none of which may be NaN. `keys` is (m, 4), `values` is (m,)."""
        if len(keys):
            self._added.append((keys, values))

    def _sort_in(self, keys: Tensor, values: Tensor) -> None:
        while self._blocks and len(self._blocks[-1].values) < 2 * len(values):
            last = self._blocks.pop()
            keys, values = torch.cat([last.keys, keys]), torch.cat([last.values, values])
        hashes, order = hashed(keys).sort()
        self._blocks.append(KnownBlock(hashes, keys[order], values[order]))


def distinct(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The rows whose keys come first, in ascending order, and for each row which of those has its key.

    Args:
        keys: (m, 4), int64.
    """
    order = hashed(keys).sort(stable=True).indices
    ordered = keys[order]
    starts = torch.ones(len(keys), dtype=torch.bool)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(1)
    first = order[starts]
    leads = torch.zeros(len(keys), dtype=torch.bool)
    leads[first] = True
    group = torch.empty_like(order)
    group[order] = (leads.cumsum(0) - 1)[first][starts.cumsum(0) - 1]
    return leads.nonzero()[:, 0], group


def hashed(keys: Tensor) -> Tensor:
    """An integer of 64 bits for each key, (m,)."""
    a, b, c, d = (keys[:, n] * mix for n, mix in enumerate(_MIX))
    return a + b + c + d
