"""What `relprop.search` finds on small networks that are trained here, beside the full grid of the same space."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import relprop
from benchmarks.faithfulness.cases import Case
from benchmarks.faithfulness.kept import SEARCH
from relprop.evaluation.paired_statistics import mean, standard_error

SEARCHED = ("vgg", "resnet", "motifs", "gunpoint", "lstm", "mlp")
TRAINED, SPLITS, SAMPLES = 3, 5, 60
"""Networks of each kind, trained with other seeds; searches of each, with other splits of the samples; and the samples."""


@dataclass(frozen=True)
class Searched:
    """One search, and what it could have found.

    Attributes:
        evaluations: its evaluations as a share of the grid's.
        chosen: whether it took another composite than `auto`.
        choice: the gain over `auto` of its choice, on all its samples.
        grid: that of the best of the grid.
        fresh: the gain of what it took, on samples that it did not see.
        fresh_choice: that of its choice.
        fresh_grid: that of the best of the grid.
    """

    evaluations: float
    chosen: bool
    choice: Tensor
    grid: Tensor
    fresh: Tensor
    fresh_choice: Tensor
    fresh_grid: Tensor


@dataclass(frozen=True)
class Searching:
    """The searches of one kind of network."""

    name: str
    candidates: int
    searches: list[Searched]


def searched(make: Callable[[int], Case], samples: int = SAMPLES) -> Searching:
    """Trains networks, measures every candidate on twice as many samples, and searches on the first half of them."""
    found: list[Searched] = []
    for seed in range(TRAINED):
        torch.manual_seed(seed)
        whole = make(2 * samples)
        case = replace(whole, inputs=whole.inputs[:samples], targets=whole.targets[:samples])
        options = {name: value for name, value in case.options.items() if name in ("units", "replace")}
        gains: dict[str, Tensor] = {}
        for split in range(SPLITS):
            search = relprop.search(case.model, case.inputs, case.targets, seed=split, **options)
            grid = {each.name: each.composite for each in search.candidates if each.name != "auto" and not each.why}
            gains = gains or _gains(whole, grid, options)
            best = max(gains, key=lambda name: mean(gains[name][:samples]))
            choice = next(each.name for each in search.candidates if each.name != "auto")
            fresh = gains[choice][samples:] if search.chosen else torch.zeros(1)
            found.append(
                Searched(
                    search.evaluations / search.of, search.chosen, gains[choice][:samples], gains[best][:samples], fresh,
                    gains[choice][samples:], gains[best][samples:],
                )
            )  # fmt: skip
    return Searching(f"{case.name}, {case.data}", len(gains), found)


def _gains(case: Case, grid: dict[str, Any], options: dict[str, Any]) -> dict[str, Tensor]:
    """The gain of each candidate over `auto`, sample by sample, the mean of the replacements."""
    found = relprop.evaluate(case.model, case.inputs, case.targets, {"auto": "auto", **grid}, free=(), **options)
    return dict(zip(grid, found["abpc"][1:] - found["abpc"][0], strict=True))


def row_of(one: Searching) -> str:
    """Its row in the table of the page."""
    return f"| {one.name} | {one.candidates} | {' | '.join(_cells(one.searches))} |"


def section_of_searches(rows: Mapping[str, Sequence[str]]) -> list[str]:
    """The table of the page."""
    lines = [
        f"## {SEARCH}",
        "",
        f"What `relprop.search` finds on networks of this page: {TRAINED} networks of each kind, trained with other seeds, and",
        f"{SPLITS} searches of each, with other splits of its {SAMPLES} samples. *Choice* and *grid* are the mean gains over `auto`",
        "of what the search chose and of the best of all candidates. *Share* is their ratio, where the best of the grid is two",
        "standard errors better than `auto`: the mean over searches, and the worst. *Fresh* is measured on as many samples that",
        "neither has seen. *Taken* says how many searches took their choice; in the others `auto` stayed. *Worst* is the smallest",
        "gain over `auto` on fresh samples of what a search took, in standard errors.",
        "",
        "| networks | candidates | evaluations of the grid's, at most | choice | grid | share | fresh choice | fresh grid | taken | worst |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    return [*lines, *itertools.chain(*rows.values()), ""]


def _cells(searches: Sequence[Searched]) -> list[str]:
    means = [
        sum(mean(getattr(one, name)) for one in searches) / len(searches)
        for name in ("choice", "grid", "fresh_choice", "fresh_grid")
    ]
    shares = [mean(one.choice) / mean(one.grid) for one in searches if mean(one.grid) >= 2 * standard_error(one.grid)]
    share = f"{sum(shares) / len(shares):.0%}, {min(shares):.0%}" if shares else "nothing to find"
    errors = [mean(one.fresh) / standard_error(one.fresh) for one in searches if one.chosen]
    taken = f"{len(errors)} of {len(searches)}"
    worst = f"{min(errors):+.1f}" if errors else "`auto`"
    choice, grid, fresh_choice, fresh_grid = (f"{each:+.3g}" for each in means)
    most = f"{max(one.evaluations for one in searches):.0%}"
    return [most, choice, grid, share, fresh_choice, fresh_grid, taken, worst]
