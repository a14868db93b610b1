"""What `relprop.search` finds on small networks that are trained here, beside the full grid of the same space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

import relprop
from benchmarks.faithfulness.cases import Case
from relprop.evaluation.paired_statistics import mean, standard_error
from relprop.evaluation.search import Search

SEARCHED = ("vgg", "resnet", "motifs", "gunpoint", "lstm", "mlp")


@dataclass(frozen=True)
class Searching:
    """A search, and what it could have found.

    Attributes:
        case: the network and its samples.
        search: what the search found on half of the samples and tested on the other half.
        leader: the gain over `auto` of the best of the race, on all samples.
        best: that of the best of the grid.
    """

    case: Case
    search: Search
    leader: torch.Tensor
    best: torch.Tensor


def searched(case: Case) -> Searching:
    """Searches, and then measures every candidate on every sample."""
    options = {name: value for name, value in case.options.items() if name in ("units", "replace")}
    found = relprop.search(case.model, case.inputs, case.targets, **options)
    grid = {each.name: each.composite for each in found.candidates if each.name != "auto" and not each.why}
    whole = relprop.evaluate(case.model, case.inputs, case.targets, {"auto": "auto", **grid}, free=(), **options)[
        "abpc"
    ]
    gains = dict(zip(grid, whole[1:] - whole[0], strict=True))
    leader = next(each.name for each in found.candidates if each.name != "auto")
    return Searching(case, found, gains[leader], max(gains.values(), key=mean))


def section_of_searches(made: Sequence[Searching]) -> list[str]:
    """The table of the page."""
    lines = [
        "## The search",
        "",
        "What `relprop.search` finds on networks of this page. It chooses on half of the samples, tests on the others, and keeps",
        '`"auto"` unless the choice is two errors better there. *Leader* is the best of its race and *grid* the best of all',
        "candidates; both gains are measured on all samples, the mean of two replacements, ± one standard error.",
        "",
        "| network, data (n) | candidates | evaluations of the grid's | held-out gain | taken | leader | grid |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in made:
        search = one.search
        tested = next(each for each in search.candidates if each.held_out == each.held_out and each.name != "auto")
        taken = next((each.name for each in search.candidates if each.composite is search.best), "auto")
        lines.append(
            f"| {one.case.name}, {one.case.data} ({len(one.leader)}) | {len(search.candidates) - 1} "
            f"| {search.evaluations / search.of:.0%} | {tested.held_out:+.3g} ± {tested.held_out_error:.2g} "
            f"| {taken} "
            f"| {mean(one.leader):+.3g} ± {standard_error(one.leader):.2g} | {mean(one.best):+.3g} ± {standard_error(one.best):.2g} |"
        )
    return [*lines, ""]
