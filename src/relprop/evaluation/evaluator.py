"""`relprop.evaluate`: methods, metrics and samples in; one result out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.survey import survey
from relprop.errors import InputError
from relprop.evaluation.adapters import as_quantus, attributor, from_quantus
from relprop.evaluation.asks import Ask
from relprop.evaluation.baselines import beside
from relprop.evaluation.batches import batches, chunks, plain
from relprop.evaluation.fingerprints import Fingerprints
from relprop.evaluation.left_unchanged import guarded
from relprop.evaluation.memory import BatchSize
from relprop.evaluation.methods import Method, method, methods_of
from relprop.evaluation.metric import Metric, SampleWork
from relprop.evaluation.metrics import metrics_of
from relprop.evaluation.replacements import Replacement
from relprop.evaluation.replacing import replacements_of
from relprop.evaluation.result import Evaluation, nothing
from relprop.evaluation.score_columns import Column, Cost, joined
from relprop.evaluation.score_journal import ScoreJournal
from relprop.evaluation.stream import Stream, usual_size
from relprop.evaluation.subject import Subject, subject
from relprop.evaluation.truth import truth_of
from relprop.evaluation.units import UnitMap, units_of
from relprop.results.identity import Identity
from relprop.signatures import public
from relprop.trees import batch_of, leaves
from relprop.version import VERSION

# The largest number of relevances that a result keeps.
_KEPT = 2 * 10**7


@dataclass(eq=False)
class EvaluationJob:
    """What is the same for all samples of a call."""

    model: Any
    methods: list[Method]
    metrics: list[Metric]
    units: Any
    replace: Any
    seed: int
    batch_size: int | None
    journal: ScoreJournal | None
    prints: Fingerprints | None
    settings: dict[str, Any]
    replacements: list[Replacement] | None = None
    said: str = ""
    of: Any = "logit"
    ticks: Any = None
    cautions: list[str] = field(default_factory=list)

    def describe(self, units: UnitMap) -> None:
        """Says what the units are, and how relevance is gathered there."""
        self.said = f"{units.name}; relevance: {units.gathered}"

    def replacing(self, part: Subject, whole: Any) -> list[Replacement]:
        """The replacements, made of the first samples."""
        if self.replacements is None:
            needed = any(metric.replaces for metric in self.metrics)
            self.replacements = replacements_of(self.replace, part, whole) if needed else []
        return self.replacements

    def caution(self, said: Sequence[str]) -> None:
        """Keeps warnings, each once."""
        self.cautions += [caution for caution in said if caution not in self.cautions]


@public("relprop.evaluate")
def evaluate(
    model: Any,
    inputs: Any,
    targets: Any = None,
    methods: Any = ("auto",),
    *,
    metrics: Any = ("flipping",),
    units: Any = None,
    replace: Any = None,
    truth: Any = None,
    of: str | Callable[[Tensor], Tensor] = "logit",
    free: Sequence[str] | None = None,
    select: Any = None,
    labels: Sequence[str] | None = None,
    forward_kwargs: dict[str, Any] | None = None,
    batch_size: int | None = None,
    folder: str | PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Evaluation:
    """Measures how far explanations can be trusted.

    Methods that know nothing about the model run beside the others: "random", "input" and, for pictures, "centre" and
    "edges". The model, its hooks and the random state are as before afterwards.

    Args:
        model: a module in eval mode, or any callable on tensors.
        inputs: as `relprop.attribute` takes them; or an iterable of batches, each a pair of inputs and targets.
        targets: as `relprop.attribute` takes them.
        methods: a list of methods, or a dict of them by name. A method is the name of a composite, a `Composite`, a
            function of inputs and targets, an object of captum's or an explainer of shap's, a finished map, or one of
            these with arguments by `relprop.evaluate.method`.
        metrics: names of metrics, or metrics of `relprop.evaluation`.
        units: what is removed as one: "entries", "pixels", "patches", ("patches", side), "steps", "features", "tokens",
            "words", a tensor of unit numbers (superpixels; below 0: never removed), or groups of features. None takes
            patches of pictures, time steps of series, features of tables and tokens of texts.
        replace: replacements of `relprop.evaluation`, what takes the place of removed units. None takes two that suit.
        truth: where the target lies, a boolean tensor in the shape of the main input, or without its channels.
        of: what is read off the output: "logit", "probability", "log_probability", "log_odds", or a function of the output.
        free: the methods that know nothing about the model; None takes all that suit.
        select: as in `relprop.attribute`.
        labels: names of the classes.
        forward_kwargs: further keyword arguments of the model, the same for all samples.
        batch_size: rows in a batch; None chooses. It is halved when memory runs out.
        folder: where finished work is kept: a second call with the same arguments does the rest only. One call at a time
            writes to a folder.
        seed: the seed of all generators.
        progress: whether to show a progress bar on stderr (needs tqdm).

    Returns:
        An `Evaluation`.

    Raises:
        InputError: an argument does not fit.
        TargetError: the target does not name one score per sample.
        NonFiniteError: a score or a map is NaN or infinite.
        ModelStateError: a method wrote to the model.
    """
    if batch_size is not None and (not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1):
        raise InputError(f"batch_size must be a positive int; got {batch_size!r}.")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise InputError(f"seed must be an int; got {seed!r}.")
    settings = {"of": of, "select": select, "labels": labels, "kwargs": dict(forward_kwargs or {})}
    journal = ScoreJournal(folder) if folder is not None else None
    found = metrics_of(metrics)
    with closing(journal) if journal is not None else nullcontext(), guarded(model), Bar(progress) as ticks:
        prints = Fingerprints(model) if journal is not None else None
        job = EvaluationJob(
            model, [], found, units, replace, seed, batch_size, journal, prints, settings, of=of, ticks=ticks
        )
        parts: list[tuple[SampleWork, list[Column]]] = []
        offset = 0
        for some, aims in batches(inputs, targets):
            whole = subject(model, some, aims, **settings)
            for part, start, count in chunks(whole):
                if not job.methods:
                    job.methods = methods_of(methods, beside(part.main) if free is None else tuple(free))
                    _check_maps(job.methods, inputs)
                truths = truth_of(truth, part, offset + start, offset + start + count)
                chosen = _units(job.units, part, whole, some, start, offset)
                parts.append(_chunk(job, part, chosen, truths, offset + start, some))
            offset += len(whole)
        if not parts:
            raise InputError("inputs holds no batch.")
    return _result(job, parts)


def _chunk(
    job: EvaluationJob, part: Subject, units: UnitMap, truth: Tensor | None, start: int, whole: Any
) -> tuple[SampleWork, list[Column]]:
    """Maps and metrics of some samples."""
    main = part.main
    size = BatchSize(job.batch_size or usual_size(main))
    job.describe(units)
    part.measure(size)
    replacements = job.replacing(part, whole)
    keys = _keys(job, part, units)
    maps = [_map(job, part, each, keys, start, size) for each in job.methods]
    relevance = torch.stack([units.gather(one) for one in maps])
    work = SampleWork(part, units, job.methods, maps, relevance, replacements, truth, job.seed, size)
    for each in replacements:
        each.check(part)
    for metric in job.metrics:
        metric.check(work)
    stream = Stream(part, units, size, job.seed, keys, job.journal, job.ticks)
    columns = run(work, job.metrics, stream)
    job.caution(work.cautions)
    return work, columns


def _units(given: Any, part: Subject, whole: Subject, inputs: Any, start: int, offset: int) -> UnitMap:
    """The units of a part, which starts at `start` in its batch, and at `offset + start` among all samples."""
    count = len(part)
    if hasattr(inputs, "encodings"):
        found = units_of(given, whole.main, inputs, whole.path)
        if len(found.at) == 1:
            return found
        chosen = slice(start, start + count)
        return UnitMap(found.name, found.at[chosen], found.count, found.counts[chosen], found.gathered)
    if isinstance(given, Tensor) and given.ndim >= 2 and len(given) != 1:
        pictures = part.main.ndim == 4 and given.ndim == 3
        if pictures or given.ndim == part.main.ndim:
            given = given[offset + start : offset + start + count]
    return units_of(given, part.main, part.inputs, part.path)


def run(work: SampleWork, metrics: Sequence[Metric], stream: Stream) -> list[Column]:
    """Runs metrics side by side: what they ask for in one round goes through the model in one stream."""
    found: dict[int, list[Column]] = {}
    running = {n: metric.run(work) for n, metric in enumerate(metrics)}
    answers: dict[int, Any] = dict.fromkeys(running)
    while running:
        asks: dict[int, Sequence[Ask]] = {}
        for n, each in list(running.items()):
            try:
                asks[n] = each.send(answers[n])
            except StopIteration as done:
                found[n] = done.value
                del running[n]
        scores = iter(stream.scores([ask for some in asks.values() for ask in some]))
        answers = {n: [next(scores) for _ in some] for n, some in asks.items()}
    return [column for n in sorted(found) for column in found[n]]


def _map(job: EvaluationJob, part: Subject, each: Method, keys: Sequence[bytes], start: int, size: BatchSize) -> Tensor:
    """The relevance of all samples by one method, from the journal where it is there."""
    samples = list(range(len(part)))
    if each.kind == "map":
        part_map = Method(each.name, each.given[start : start + len(part)], "map")
        return part_map.explain(part, samples, job.seed, size)
    if job.journal is None or job.prints is None or each.free:
        return each.explain(part, samples, job.seed, size)
    # A name may stand for other rules tomorrow.
    auto = survey(part.model, part.alone(0), forward_kwargs=part.kwargs).composite if each.given == "auto" else None
    said = each.fingerprint(job.prints, auto)
    names = [f"{keys[n].hex()}:{job.seed}:{said}" for n in samples]
    names = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    rows: dict[int, Tensor] = {}
    for n in samples:
        if (kept := job.journal.map(names[n])) is not None:
            rows[n] = kept[0].to(part.main.device)
            each.recall(kept[1]["forwards"], kept[1]["backwards"])
    for first in range(0, len(samples), size.rows):
        missing = [n for n in samples[first : first + size.rows] if n not in rows]
        if missing:
            before = each.forwards, each.backwards
            made = each.explain(part, missing, job.seed, size)
            about = {
                "forwards": (each.forwards - before[0]) / len(missing),
                "backwards": (each.backwards - before[1]) / len(missing),
            }
            for n, row in zip(missing, made, strict=True):
                rows[n] = row
                job.journal.keep_map(names[n], row, about)
    return torch.stack([rows[n] for n in samples])


def _keys(job: EvaluationJob, part: Subject, units: UnitMap) -> list[bytes]:
    """A digest of each sample with all that its scores depend on, but for what is removed."""
    if job.prints is None:
        return []
    found, of = [], job.prints.of
    same = f"{VERSION}\0{job.prints.model}\0{of(job.of)}\0{of(part.select)}\0{of(part.kwargs)}\0"
    for n in range(len(part)):
        at = units.at[n if len(units.at) > 1 else 0]
        digest = hashlib.sha256(f"{same}{of(part.targets([n]))}\0".encode() + part.fingerprint(n))
        digest.update(at.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        found.append(digest.digest())
    return found


def _result(job: EvaluationJob, parts: list[tuple[SampleWork, list[Column]]]) -> Evaluation:
    works = [work for work, _ in parts]
    columns = joined([columns for _, columns in parts])
    relevance = None
    if len({work.relevance.shape[2] for work in works}) == 1 and sum(w.relevance.numel() for w in works) <= _KEPT:
        relevance = torch.cat([work.relevance.cpu().float() for work in works], 1)
    at = works[0].units.at
    shared = relevance is not None and at.ndim == 4 and len(at) == at.shape[1] == 1
    costs = {
        each.name: Cost(each.forwards / max(1, each.explained), each.backwards / max(1, each.explained))
        for each in job.methods
    }
    return Evaluation(
        composite=nothing(), model=Identity.of(job.model),
        methods=[each.name for each in job.methods], free=[each.name for each in job.methods if each.free],
        columns=columns, cost=costs, score=torch.cat([work.subject.score for work in works]), units=job.said,
        relevance=relevance, of=job.of if isinstance(job.of, str) else _name(job.of), cautions=job.cautions,
        layout=at[0, 0].cpu() if shared else None,
    )  # fmt: skip


def _check_maps(methods: Sequence[Method], inputs: Any) -> None:
    """Refuses finished maps of another number of samples, where that number is known."""
    if not isinstance(inputs, (Tensor, tuple, list, Mapping)):
        return
    tree = plain(inputs)
    if not all(isinstance(leaf, Tensor) for _, leaf in leaves(tree)):
        return
    for each in methods:
        if each.kind == "map" and len(each.given) != batch_of(tree):
            raise InputError(f"{each.name!r} holds maps of {len(each.given)} samples; the inputs are {batch_of(tree)}.")


def _name(value: Any) -> str:
    return getattr(value, "__qualname__", None) or repr(value)


class Bar:
    """A progress bar over rows, if one is asked for."""

    def __init__(self, wanted: bool) -> None:
        self.bar: Any = None
        if wanted:
            try:
                from tqdm import tqdm
            except ImportError:
                raise InputError("progress=True needs tqdm: pip install relprop[progress].") from None
            self.bar = tqdm(desc="relprop", unit="row")

    def __enter__(self) -> Callable[[int], None]:
        return self.bar.update if self.bar is not None else lambda rows: None

    def __exit__(self, *error: Any) -> None:
        if self.bar is not None:
            self.bar.close()


class Evaluate:
    """`relprop.evaluate` is called, and has functions that help with its arguments."""

    method = staticmethod(method)
    as_quantus = staticmethod(as_quantus)
    from_quantus = staticmethod(from_quantus)
    attributor = staticmethod(attributor)
    __doc__ = evaluate.__doc__
    __wrapped__ = staticmethod(evaluate)

    def __call__(self, *args: Any, **kwargs: Any) -> Evaluation:
        """Measures how far explanations can be trusted; see `relprop.evaluation.evaluator.evaluate`."""
        return evaluate(*args, **kwargs)
