"""`relprop.search`: the best composite for a model and its data, by a race on one half and a test on the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.survey import survey
from relprop.composites import Composite
from relprop.errors import InputError
from relprop.evaluation.batches import together
from relprop.evaluation.generators import generator
from relprop.evaluation.left_unchanged import guarded
from relprop.evaluation.memory import BatchSize
from relprop.evaluation.metrics import metrics_of
from relprop.evaluation.paired_statistics import mean, standard_error
from relprop.evaluation.racing import BEHIND, BLOCK, Race, finalists
from relprop.evaluation.replacing import replacements_of
from relprop.evaluation.space import Searched, Space, space_of
from relprop.evaluation.subject import subject
from relprop.evaluation.units import units_of
from relprop.signatures import public

GRID = 40
"""Up to this number of candidates, all are tried."""
BETTER = 2.0
"""`auto` stays unless the choice is two standard errors better on samples that it was not chosen on."""
_TRIALS = 60


@dataclass(frozen=True)
class Candidate:
    """One composite of a search.

    Attributes:
        name: what it is, in words.
        composite: the composite.
        gain: its mean gain over `auto` on the samples it was tried on.
        error: the standard error of that.
        samples: the number of these samples; fewer than others if it left the race.
        held_out: its mean gain on held-out samples; NaN if it was not tested.
        held_out_error: the standard error of that.
        why: why it could not be tried, in words; "" if it could.
    """

    name: str
    composite: Any
    gain: float
    error: float
    samples: int
    held_out: float = math.nan
    held_out_error: float = math.nan
    why: str = ""


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        best: the composite to use: the choice, or what "auto" stands for if the choice is not clearly better.
        chosen: whether `best` is the choice.
        candidates: all candidates, best first, `auto` among them: those that were tested by both halves, the others by the
            samples that they were tried on.
        evaluations: how many pairs of a candidate and a sample were scored.
        of: how many a full grid on all samples would score.
        score: the score that was compared.
        held_out: the number of held-out samples.
    """

    best: Composite
    chosen: bool
    candidates: list[Candidate]
    evaluations: int
    of: int
    score: str
    held_out: int
    notes: list[str] = field(default_factory=list)

    @public(".table")
    def table(self, most: int = 12) -> str:
        """The candidates with their gains over `auto`, on the samples that they were chosen on, and on others.

        Args:
            most: how many candidates to list.
        """
        heads = ("candidate", "gain ± error", "samples", "held-out gain ± error")
        rows = [heads]
        for each in self.candidates[:most]:
            tested = "" if each.held_out != each.held_out else f"{each.held_out:+.3g} ± {each.held_out_error:.2g}"
            gain = each.why or (f"{each.gain:+.3g} ± {each.error:.2g}" if each.name != "auto" else "0")
            rows.append((each.name, gain, str(each.samples), tested if each.name != "auto" else "0"))
        widths = [max(len(row[n]) for row in rows) for n in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        if len(self.candidates) > most:
            lines.append(f"... {len(self.candidates) - most} more")
        lines += [""]
        verdict = "the choice is two standard errors better on held-out samples" if self.chosen else "auto stays"
        lines.append(
            f"{self.score}: {verdict}; {self.evaluations} of {self.of} evaluations; {self.held_out} held-out samples."
        )
        return "\n".join([*lines, *self.notes])

    def __repr__(self) -> str:
        return self.table()


@public("relprop.search")
def search(
    model: Any,
    inputs: Any,
    targets: Any = None,
    *,
    space: Any = "auto",
    metric: Any = "flipping",
    budget: int | None = None,
    bounds: tuple[Any, Any] | None = None,
    by_depth: bool = False,
    units: Any = None,
    replace: Any = None,
    of: Any = "logit",
    select: Any = None,
    forward_kwargs: dict[str, Any] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> Search:
    """Finds the best composite for a model and its data.

    Samples are split at random. On one half, candidates race: after every 5 samples, those that are 2.5 standard errors
    behind the leader drop out, and of the rest the worse half, until three to five are left. These are tested on the other
    half. The choice is the best of them on both halves, and "auto" stays unless the choice is two standard errors better on
    the other half alone. Up to 40 candidates are all tried; of larger spaces Optuna's TPE picks some (needs Optuna).

    Args:
        model: as in `relprop.evaluate`, like all arguments that are not listed here.
        inputs: samples; at least 10, and better 40; or an iterable of batches of them, each a pair of inputs and targets.
        targets: as `relprop.attribute` takes them.
        space: "auto", by what the network is made of; a mapping from keys of composites to lists of rules, all of whose
            combinations are tried; or a list of composites.
        metric: the metric to be best by: its first score that ranks.
        budget: the most pairs of a candidate and a sample to score in the race; None sets no limit.
        bounds: the smallest and the largest value an input can have, for a z-box; None takes those of each sample for
            pictures and series, and those observed in each column of a table.
        by_depth: whether layers have other rules in three parts of the depth.
        seed: the seed of the split and of all generators.

    Returns:
        A `Search`. `print(S.best)` shows code to paste.

    Raises:
        InputError: an argument does not fit, or there are too few samples.
        ModuleNotFoundError: the space is larger than 40, and Optuna is not installed.
    """
    inputs, targets = together(inputs, targets)
    made = subject(model, inputs, targets, of=of, select=select, kwargs=dict(forward_kwargs or {}))
    count = len(made)
    if count < 2 * BLOCK:
        raise InputError(
            f"search needs at least {2 * BLOCK} samples, half to choose on and half to test on; got {count}."
        )
    if budget is not None and (not isinstance(budget, int) or isinstance(budget, bool) or budget < 1):
        raise InputError(f"budget must be a positive int, a number of pairs of candidate and sample; got {budget!r}.")
    order = torch.randperm(count, generator=generator(seed, "split")).tolist()
    chosen_on, tested_on = order[: (count + 1) // 2], order[(count + 1) // 2 :]
    with guarded(model):
        seen = survey(model, made.alone(0), "auto", forward_kwargs=made.kwargs)
        families = {place.family for place, _ in seen.places}
        layers = sum(place.index is not None for place, _ in seen.places)
        found = space_of(space, families, layers, made.main, bounds, by_depth)
        made.measure(BatchSize(batch_size or 16))
        # Replacements and units that look at the data look at all of them, not at five.
        options = {
            "replace": replacements_of(replace, made, inputs), "of": of, "select": select, "forward_kwargs": made.kwargs,
            "batch_size": batch_size, "seed": seed,
            "units": units if not hasattr(inputs, "encodings") else units_of(units, made.main, inputs, made.path).at,
        }  # fmt: skip
        race = Race(made, metrics_of(metric), options)
        limit = math.inf if budget is None else budget
        if len(found) <= GRID:
            candidates = found.grid()
            gains = race.race(candidates, chosen_on, limit)
        else:
            candidates, gains = _by_tpe(race, found, chosen_on, limit, seed)
        return _verdict(race, candidates, gains, tested_on, seen.composite, len(candidates) * count)


def _by_tpe(
    race: Race, space: Space, samples: Sequence[int], budget: float, seed: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Candidates that Optuna's TPE picks, each against the leader so far."""
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"a space of {len(space)} composites is searched by Optuna: pip install 'relprop[search]', or take a smaller space",
            name="optuna",
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    candidates: dict[str, Any] = {}
    gains: dict[str, Tensor] = {}
    for _ in range(_TRIALS):
        if race.spent >= budget:
            break
        trial = study.ask()
        picked = [
            trial.suggest_categorical(f"{n} {c.part}", list(range(len(c.rules)))) for n, c in enumerate(space.choices)
        ]
        made = space.composite(picked)
        name = str(made)
        if name not in candidates:
            candidates[name] = made
            leader = max(gains.values(), key=mean, default=None)
            own: list[Tensor] = []
            for start in range(0, len(samples), BLOCK):
                got = race.gains({name: made}, samples[start : start + BLOCK]).get(name)
                if got is None:
                    break
                own.append(got)
                whole = torch.cat(own)
                if leader is not None and len(leader) >= len(whole):
                    gap = leader[: len(whole)] - whole
                    if mean(gap) > 0 and mean(gap) >= BEHIND * standard_error(gap):
                        break
            if own:
                gains[name] = torch.cat(own)
        study.tell(trial, mean(gains[name]) if name in gains else -1e30)
    return candidates, gains


def _verdict(
    race: Race,
    candidates: dict[str, Any],
    gains: dict[str, Tensor],
    tested_on: Sequence[int],
    auto: Composite,
    of: int,
) -> Search:
    """Tests the best on held-out samples, and decides."""
    whole = max((len(gain) for gain in gains.values()), default=0)
    finished = [name for name, gain in gains.items() if len(gain) == whole]
    ahead = sorted(finished, key=lambda name: -mean(gains[name]))[: finalists(len(candidates))]
    tested = race.gains({name: candidates[name] for name in ahead}, tested_on) if ahead else {}
    both = {name: mean(torch.cat([gains[name], gain])) for name, gain in tested.items()}
    choice = max(both, key=lambda name: both[name], default=None)
    clear = False
    if choice is not None and mean(gains[choice]) > 0:
        gain = tested[choice]
        clear = mean(gain) > 0 and mean(gain) >= BETTER * standard_error(gain)
    listed = [
        Candidate(
            name, candidates[name], mean(gain), standard_error(gain), len(gain),
            mean(tested[name]) if name in tested else math.nan,
            standard_error(tested[name]) if name in tested else math.nan,
        )
        for name, gain in gains.items()
    ]  # fmt: skip
    listed.append(Candidate("auto", auto, 0.0, 0.0, whole, 0.0, 0.0))
    listed.sort(key=lambda each: (-each.samples, -both.get(each.name, each.gain)))
    listed += [Candidate(name, candidates[name], math.nan, math.nan, 0, why=why) for name, why in race.failed.items()]
    stays = Searched(auto.entries, "'auto'", "auto")
    best = candidates[choice] if clear and choice is not None else stays
    return Search(best, clear, listed, race.spent, of, race.score, len(tested_on))
