"""Results under conditions, read off one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.books import Books, per_sample
from relprop.attribution.chains import GateChain, Planner
from relprop.attribution.conditions import words
from relprop.attribution.passes import Outcome, Passes
from relprop.attribution.points import Watch
from relprop.attribution.reading import Reader
from relprop.attribution.seeds import Start
from relprop.attribution.through import Conditions
from relprop.engine import Run
from relprop.errors import CompositeError, InputError
from relprop.results.ledger import Ledger, LedgerEntry


def check_linear(run: Run) -> None:
    """Refuses rules under which parts of relevance do not add up to the whole.

    Raises:
        CompositeError: the composite has such a rule.
    """
    composite = run.sites.composite
    for key, rule in composite.entries:
        if not getattr(rule, "linear", True):
            raise CompositeError(
                f"composite {composite.name!r} has {rule!r} at '{key}', which is not linear in the relevance: what passes some "
                "units and what avoids them would not add up to the whole. Choose another composite."
            )


class Conditioned:
    """Reads results under conditions off one forward pass.

    Args:
        run: the run.
        watch: what was caught in the forward pass.
        reader: reads relevance of the inputs.
        conditions: those of all results.
        layers: the paths whose relevance is wanted, and at which side.
    """

    def __init__(
        self, run: Run, watch: Watch, reader: Reader, conditions: Conditions, layers: Sequence[str], at: str
    ) -> None:
        check_linear(run)
        self._run, self._reader, self._conditions = run, reader, conditions
        self._layers = {path: [p for some in watch.seen[path, at] for p in some] for path in layers}
        self._planner = Planner(watch, run.inputs.samples)
        self._planned: list[list[GateChain]] = []
        for _, through in conditions.each:
            if isinstance(through, list) and len(through) != run.inputs.samples:
                raise InputError(
                    f"{len(through)} conditions for a batch of {run.inputs.samples} samples: give one per sample, or a single "
                    "one. Several of each sample are relprop.attribute_each(model, inputs, target, through=[...])."
                )
            self._planned.append(self._planner.chains(through))
        self._passes: dict[int, Passes] = {}

    def passes(self, start: Start, target: int) -> Passes:
        """The passes from one score, which the conditions of the same target share."""
        if target not in self._passes:
            chains = [
                c
                for (n, _), some in zip(self._conditions.each, self._planned, strict=True)
                if n == target
                for c in some
            ]
            self._passes = {target: Passes(self._run, start, self._reader.ends, self._layers, self._planner, chains)}
        return self._passes[target]

    def found(self, number: int, start: Start) -> tuple[list[Any], dict[str, Any], Books, Tensor]:
        """`G` where relevance ends, relevance of the layers, the books, and the relevance that passed the units."""
        target, through = self._conditions.each[number]
        passes, chains, count = self.passes(start, target), self._planned[number], len(start.handed)
        if not chains:
            raise InputError(f"'{words(through)}': these units exclude each other, so no path passes them.")
        whole = passes.outcome(chains, start.gradient, start.handed, count)
        if all(g is None for g in whole.ends):
            raise InputError(f"'{words(through)}': no path leads from there to the inputs.")
        layers: dict[str, Any] = {path: some[0] if len(some) == 1 else some for path, some in whole.layers.items()}
        recorder = self._run.trace.recorder
        apart = not self._run.inputs.mixing and (recorder is None or recorder.apart)
        if count == 1 or apart:
            values = self._reader.inputs(whole.ends, start.score)
            received, handed, kept = per_sample(values, count), whole.handed, whole.kept
        else:
            received, handed, kept = self._each(passes, chains, start)
        entries = (
            []
            if recorder is None or kept is None
            else [LedgerEntry(*made, row) for made, row in zip(recorder.entries, kept, strict=True)]
        )
        return whole.ends, layers, Books(received, Ledger(entries)), handed

    def _each(self, passes: Passes, chains: list[GateChain], start: Start) -> tuple[Tensor, Tensor, Tensor | None]:
        """The books where rows exchange relevance: every score has passes of its own."""
        received, handed, kept = [], [], []
        for n in range(len(start.handed)):
            alone, given = torch.zeros_like(start.gradient), torch.zeros_like(start.handed)
            alone[n], given[n] = start.gradient[n], start.handed[n]
            passes.forget()
            one: Outcome = passes.outcome(chains, alone, given.sum().reshape(1), 1)
            received.append(per_sample(self._reader.inputs(one.ends, start.score), 1))
            handed.append(one.handed)
            if one.kept is not None:
                kept.append(one.kept)
        passes.forget()
        return torch.cat(received), torch.cat(handed), torch.cat(kept, 1) if kept else None
