"""The race of a search: candidates are compared on a few samples at a time, and the worse leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from relprop.errors import InputError, RelpropError
from relprop.evaluation.evaluator import evaluate
from relprop.evaluation.paired_statistics import mean, standard_error
from relprop.evaluation.subject import Subject

BLOCK = 5
BEHIND = 2.5
"""After every 5 samples, what is 2.5 standard errors behind the leader goes, and of the rest the worse half."""
_FINALISTS = 3, 5


def finalists(candidates: int) -> int:
    """How many are tested on held-out samples, 3 to 5; the race does not halve fewer.

    What costs a search its gain is not the race but the split: all candidates on half of the samples choose no better.
    So several go on, and are compared on both halves. This many keep a search below 35 % of the evaluations of the grid.
    """
    least, most = _FINALISTS
    return max(least, min(most, candidates // 7))


@dataclass(eq=False)
class Race:
    """Candidates on some samples. Gains are over `auto`, sample by sample."""

    subject: Subject
    metric: Any
    options: dict[str, Any]
    better: int = 0
    score: str = ""
    spent: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def gains(self, candidates: dict[str, Any], samples: Sequence[int]) -> dict[str, Tensor]:
        """The gains of candidates on some samples; those that fail are left out."""
        rows = torch.tensor(list(samples), device=self.subject.main.device)
        inputs, targets = self.subject.rows(rows), self.subject.targets(samples)
        tried = {name: each for name, each in candidates.items() if name not in self.failed}
        try:
            found = self._evaluate(inputs, targets, tried)
        except RelpropError:
            for name, each in tried.items():  # which of them is it?
                try:
                    self._evaluate(inputs, targets, {name: each})
                except RelpropError as error:
                    self.failed[name] = error.message
            tried = {name: each for name, each in tried.items() if name not in self.failed}
            found = self._evaluate(inputs, targets, tried)
        self.spent += (len(tried) + 1) * len(samples)
        sign = -1.0 if self.better < 0 else 1.0
        return {name: sign * (found[n + 1] - found[0]) for n, name in enumerate(tried)}

    def _evaluate(self, inputs: Any, targets: Any, candidates: dict[str, Any]) -> Tensor:
        found = evaluate(
            self.subject.model,
            inputs,
            targets,
            {"auto": "auto", **candidates},
            metrics=self.metric,
            free=(),
            **self.options,
        )
        self.score = found.main()
        self.better = found.find(self.score)[0].better
        if not self.better:
            raise InputError(f"metric={self.metric[0].name!r} ranks nothing, so that nothing can be best by it.")
        return found[self.score]

    def race(self, candidates: dict[str, Any], samples: Sequence[int], budget: float) -> dict[str, Tensor]:
        """The gains of each candidate on as many samples as it took part in."""
        gains: dict[str, list[Tensor]] = {name: [] for name in candidates}
        running = dict(candidates)
        for start in range(0, len(samples), BLOCK):
            some = samples[start : start + BLOCK]
            if self.spent + (len(running) + 1) * len(some) > budget and start:
                break
            for name, gain in self.gains(running, some).items():
                gains[name].append(gain)
            running = {name: each for name, each in running.items() if name not in self.failed}
            joined = {name: torch.cat(gains[name]) for name in running}
            kept = halved(self.left(joined), joined, finalists(len(candidates)))
            running = {name: running[name] for name in kept}
        return {name: torch.cat(parts) for name, parts in gains.items() if parts and name not in self.failed}

    @staticmethod
    def left(gains: dict[str, Tensor]) -> list[str]:
        """Those that are not clearly behind the leader, which may be `auto` itself, of gain 0."""
        if not gains:
            return []
        leader = max(gains.values(), key=lambda gain: mean(gain))
        leader = leader if mean(leader) > 0 else torch.zeros_like(leader)
        kept = []
        for name, gain in gains.items():
            gap = leader - gain
            error = standard_error(gap)
            if not (mean(gap) > 0 and mean(gap) >= BEHIND * error):
                kept.append(name)
        return kept


def halved(names: Sequence[str], gains: dict[str, Tensor], least: int) -> list[str]:
    """The better half of the candidates, one of those that are equal on every sample; `least` where that is less.

    Successive halving: Karnin et al. 2013, "Almost optimal exploration in multi-armed bandits", ICML.
    """
    different = {tuple(gains[name].tolist()): name for name in reversed(names)}
    ranked = sorted(different.values(), key=lambda name: -mean(gains[name]))
    return ranked[: max(least, -(-len(gains) // 2))]
