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
        known: the scores so far, by sample, replacement and key.
        batches: the number of batches that ran.
    """

    subject: Subject
    units: UnitMap
    size: BatchSize
    seed: int
    keys: Sequence[bytes]
    journal: ScoreJournal | None = None
    tick: Callable[[int], None] = lambda rows: None
    known: dict[tuple[int, bytes, tuple[int, int]], float] = field(default_factory=dict)
    batches: int = 0
    _drawn: dict[bytes, Tensor] = field(default_factory=dict)
    _prints: dict[int, bytes] = field(default_factory=dict)

    def scores(self, asks: Sequence[Ask]) -> list[Tensor]:
        """The scores of each ask's rows, float64, on the CPU.

        Raises:
            NonFiniteError: a score is NaN or infinite.
        """
        wanted: list[list[tuple[int, bytes, tuple[int, int]]]] = []
        new: dict[tuple[int, bytes, tuple[int, int]], tuple[int, int]] = {}
        for number, ask in enumerate(asks):
            replaced = self._print(ask.replacement)
            keys = [(sample, replaced, key) for sample, key in zip(ask.samples.tolist(), ask.keys(), strict=True)]
            wanted.append(keys)
            for row, key in enumerate(keys):
                if key not in self.known and key not in new:
                    new[key] = (number, row)
        self._run(asks, new)
        return [torch.tensor([self.known[key] for key in keys], dtype=torch.float64) for keys in wanted]

    def _run(self, asks: Sequence[Ask], new: dict[Any, tuple[int, int]]) -> None:
        """Runs new rows, those of one ask after those of another. Batches are cut before looking at what is kept."""
        keys = list(new)
        places = torch.tensor(list(new.values()), dtype=torch.long).reshape(-1, 2)
        start = 0
        while start < len(keys):
            some, chosen = keys[start : start + self.size.rows], places[start : start + self.size.rows]
            if self.journal is not None:
                missing = [n for n, key in enumerate(some) if not self._recall(key)]
                needed, chosen = [some[n] for n in missing], chosen[missing]
            else:
                needed = some
            if needed:
                found = self.size.attempt(lambda chosen=chosen: self._batch(asks, chosen).cpu())  # type: ignore[misc]
                if found is None:
                    continue
                self._keep(needed, found)
                self.batches += 1
            self.tick(len(some))
            start += len(some)

    def _batch(self, asks: Sequence[Ask], places: Tensor) -> Tensor:
        """The scores of one batch. `places` has the number of an ask and of its row, in the order of asks."""
        parts, samples = [], []
        for number in places[:, 0].unique_consecutive().tolist():
            ask = asks[number]
            rows = places[places[:, 0] == number, 1].to(ask.samples.device)
            chosen = ask.samples.index_select(0, rows)
            samples.append(chosen)
            parts.append(self._rows(ask, rows, chosen))
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

    def _recall(self, key: tuple[int, bytes, tuple[int, int]]) -> bool:
        """Whether the score of a row is known, perhaps from an earlier run."""
        if key in self.known:
            return True
        if self.journal is not None:
            sample, replaced, (a, b) = key
            kept = self.journal.score(self.keys[sample], replaced, self.seed, a, b)
            if kept is not None:
                self.known[key] = kept
                return True
        return False

    def _keep(self, keys: Sequence[tuple[int, bytes, tuple[int, int]]], found: Tensor) -> None:
        finite = torch.isfinite(found)
        if not bool(finite.all()):
            raise NonFiniteError(
                f"the score of sample {keys[int((~finite).nonzero()[0])][0]} with some of its units replaced is NaN or "
                "infinite. Another replacement may suit the model."
            )
        values = found.tolist()
        self.known.update(zip(keys, values, strict=True))
        if self.journal is not None:
            self.journal.keep(
                [(self.keys[sample], replaced, self.seed, a, b) for sample, replaced, (a, b) in keys], values
            )


def usual_size(main: Tensor) -> int:
    """Rows in a batch: a power of two, by the number of entries of a sample."""
    most = _ENTRIES.get(main.device.type, _ENTRIES["cpu"]) // max(1, main[0].numel())
    return max(_LEAST, min(_MOST, 2 ** max(0, most.bit_length() - 1)))
