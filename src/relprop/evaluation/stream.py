"""One stream of changed samples for all samples, steps, orders and methods, cut into batches.

Rows that several metrics or methods ask for run once, and so do the two ends of a curve. Only one number per row leaves
the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from relprop.errors import NonFiniteError
from relprop.evaluation.asks import Ask, Changed, Removed
from relprop.evaluation.generators import generator
from relprop.evaluation.known_scores import KnownScores, distinct
from relprop.evaluation.memory import BatchSize
from relprop.evaluation.replacements import Replacement
from relprop.evaluation.score_journal import ScoreJournal
from relprop.evaluation.subject import Subject
from relprop.evaluation.units import UnitMap
from relprop.trees import join

# Entries of the main inputs in a batch, where the user names no size. More per batch was slower on a CPU: its cache is small.
_ENTRIES = {"cpu": 2**15, "cuda": 2**25}
_LEAST, _MOST = 4, 1024


@dataclass(eq=False)
class Stream:
    """Scores changed samples.

    Attributes:
        subject: the model and the samples.
        units: what is removed as one.
        size: rows in a batch.
        seed: the seed of all generators.
        keys: a digest of each sample with its model, target and units.
        journal: where scores are kept between runs, or None.
        tick: called with the number of rows that were done.
        known: the scores so far.
    """

    subject: Subject
    units: UnitMap
    size: BatchSize
    seed: int
    keys: Sequence[bytes]
    journal: ScoreJournal | None = None
    tick: Callable[[int], None] = lambda rows: None
    known: KnownScores = field(default_factory=KnownScores)
    _numbers: dict[bytes, int] = field(default_factory=dict)
    _drawn: dict[bytes, Tensor] = field(default_factory=dict)
    _prints: dict[int, bytes] = field(default_factory=dict)

    def scores(self, asks: Sequence[Ask]) -> list[Tensor]:
        """The scores of each ask's rows, float64, on the CPU.

        Raises:
            NonFiniteError: a score is NaN or infinite.
        """
        if not asks:
            return []
        keys = torch.cat([self._keys(ask) for ask in asks])
        first, group = distinct(keys)
        found = self.known.find(keys[first])
        new = found.isnan()
        rows = first[new]
        if len(rows):
            found[new] = values = self._run(asks, keys[rows], rows)
            self.known.add(keys[rows], values)
        return list(found[group].split([len(ask) for ask in asks]))

    def _keys(self, ask: Ask) -> Tensor:
        """What the rows of an ask are: sample, replacement, and two integers for what is changed, (m, 4)."""
        replaced = self._numbers.setdefault(self._print(ask.replacement), len(self._numbers))
        return torch.cat([ask.samples.cpu()[:, None], torch.full((len(ask), 1), replaced), ask.keys()], 1)

    def _run(self, asks: Sequence[Ask], keys: Tensor, rows: Tensor) -> Tensor:
        """The scores of new rows. Batches are cut before looking at what is kept, so that they are always the same.

        Args:
            asks: the asks.
            keys: those of the new rows.
            rows: their numbers among the rows of all asks, ascending.
        """
        values = torch.empty(len(keys), dtype=torch.float64)
        ends = torch.tensor([len(ask) for ask in asks]).cumsum(0)
        start = 0
        while start < len(keys):
            some = slice(start, start + self.size.rows)
            found = self._some(asks, ends, keys[some], rows[some])
            if found is None:
                continue
            values[some] = found
            self.tick(len(found))
            start += len(found)
        return values

    def _some(self, asks: Sequence[Ask], ends: Tensor, keys: Tensor, rows: Tensor) -> Tensor | None:
        """The scores of some rows, from the journal where they are there; None if memory ran out."""
        if self.journal is None:
            return self._scored(asks, ends, keys, rows)
        names = self._names(keys)
        kept = [self.journal.score(*name) for name in names]
        values = torch.tensor([float("nan") if value is None else value for value in kept], dtype=torch.float64)
        missing = values.isnan().nonzero()[:, 0]
        if len(missing):
            found = self._scored(asks, ends, keys[missing], rows[missing])
            if found is None:
                return None
            self.journal.keep([names[n] for n in missing.tolist()], found.tolist())
            values[missing] = found
        return values

    def _scored(self, asks: Sequence[Ask], ends: Tensor, keys: Tensor, rows: Tensor) -> Tensor | None:
        """The scores of one batch by the model; None if memory ran out.

        Raises:
            NonFiniteError: one of them is NaN or infinite.
        """
        found = self.size.attempt(lambda: self._batch(asks, ends, rows).cpu())
        if found is not None and not bool((finite := torch.isfinite(found)).all()):
            raise NonFiniteError(
                f"the score of sample {int(keys[~finite][0, 0])} with some of its units replaced is NaN or infinite. Another "
                "replacement may suit the model."
            )
        return found

    def _names(self, keys: Tensor) -> list[tuple[bytes, bytes, int, int, int]]:
        """The keys of rows in the journal, where samples and replacements are known by their digests."""
        prints = list(self._numbers)
        return [(self.keys[sample], prints[number], self.seed, a, b) for sample, number, a, b in keys.tolist()]

    def _batch(self, asks: Sequence[Ask], ends: Tensor, chosen: Tensor) -> Tensor:
        """The scores of one batch: `chosen` are the numbers of rows, and `ends` says where the rows of each ask end."""
        parts, samples = [], []
        numbers = torch.bucketize(chosen, ends, right=True)
        for number in numbers.unique_consecutive().tolist():
            ask = asks[number]
            rows = (chosen[numbers == number] - (ends[number] - len(ask))).to(ask.samples.device)
            drawn_from = ask.samples.index_select(0, rows)
            samples.append(drawn_from)
            parts.append(self._rows(ask, rows, drawn_from))
        return self.subject.scores(parts[0] if len(parts) == 1 else join(parts), torch.cat(samples))

    def _rows(self, ask: Ask, rows: Tensor, samples: Tensor) -> Any:
        """The model's inputs of some rows of an ask."""
        if isinstance(ask, Removed) and ask.replacement is not None:
            drawn = self._drawn_for(ask.replacement).index_select(0, samples)
            return ask.replacement.rows(self.subject, self.units, samples, ask.units(rows), drawn)
        assert isinstance(ask, Changed)
        if ask.replacement is None:
            return self.subject.rows(samples, ask.make(rows))
        x, gone = self.subject.main.index_select(0, samples), ask.make(rows)
        drawn = self._drawn_for(ask.replacement).index_select(0, samples)
        return self.subject.rows(samples, torch.where(gone, ask.replacement.values(x, gone, drawn).to(x.dtype), x))

    def _drawn_for(self, replacement: Replacement) -> Tensor:
        """What a replacement draws for each sample, by a generator of the sample's own."""
        key = self._print(replacement)
        if key not in self._drawn:
            main = self.subject.main
            purpose = f"replacement {replacement!r}"
            if not replacement.alone:
                self._drawn[key] = replacement.draw(main, generator(self.seed, purpose))
                return self._drawn[key]
            rows = [
                replacement.draw(main[n : n + 1], generator(self.seed, purpose, self.subject.fingerprint(n)))
                for n in range(len(main))
            ]
            self._drawn[key] = torch.cat(rows)
        return self._drawn[key]

    def _print(self, replacement: Replacement | None) -> bytes:
        if replacement is None:
            return b""
        if id(replacement) not in self._prints:
            self._prints[id(replacement)] = replacement.fingerprint()
        return self._prints[id(replacement)]


def usual_size(main: Tensor) -> int:
    """Rows in a batch: a power of two, by the number of entries of a sample."""
    most = _ENTRIES.get(main.device.type, _ENTRIES["cpu"]) // max(1, main[0].numel())
    return max(_LEAST, min(_MOST, 2 ** max(0, most.bit_length() - 1)))
