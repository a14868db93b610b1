"""One explanation in five steps: start the inputs, run forward, check, run backward, read each target."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from relprop.attribution.against import Differences, Other, effect, gradients_of, other_of
from relprop.attribution.books import Bookkeeper, Books, Gradients, asks, per_sample
from relprop.attribution.checks import check_finite, check_relevance, check_sizes, largest
from relprop.attribution.conditioned import Conditioned
from relprop.attribution.final import find, left_out, saturated
from relprop.attribution.forward import Answer, ForwardJob, check, detached, devices_of, forward, start_inputs
from relprop.attribution.ignored import Ignored
from relprop.attribution.later import Later
from relprop.attribution.notices import EXCHANGED, exploded, ran_again, unreached
from relprop.attribution.reading import Reader
from relprop.attribution.seeds import Start
from relprop.attribution.settings import Plan
from relprop.engine import Run
from relprop.engine.checkpoint import recomputing
from relprop.engine.inputs import Inputs
from relprop.engine.model_gradients import ModelGradients
from relprop.engine.recorder import Overwritten, Recorder
from relprop.engine.replay import outside
from relprop.engine.undo import Undo
from relprop.engine.writes import Writes
from relprop.errors import InputError, RuleError
from relprop.operations.layer_site import ADRIFT
from relprop.operations.parameters import Parameters
from relprop.results.ledger import Ledger
from relprop.results.logit import logits_in
from relprop.results.relevance import Relevance
from relprop.torch_private.recorded import recording
from relprop.torch_private.saved import copied_before_writes, says_one_of_several, says_overwritten
from relprop.trees import leaves, map_tree

_MISSHAPEN = "_CustomBackward returned an invalid gradient"
"""What autograd says if the backward pass of a rule does not fit its operand."""


class SamplesLost(Exception):
    """A rule read numbers of each sample as a whole where samples may not lie along the first axis.

    Args:
        results: what was found under the assumption that they do.
    """

    def __init__(self, results: list[Relevance]) -> None:
        super().__init__("samples may not lie along the first axis.")
        self.results = results


def explain(model: Any, inputs: Any, targets: Sequence[Any], seed: Any, plan: Plan) -> list[Relevance]:
    """One `Relevance` per target. It has no copy of the inputs, no labels and no model yet."""
    behind = [any(logits_in(target)) for target in targets]
    if any(behind) and not all(behind) and plan.through is not None:
        raise InputError("with through=, the targets of one call are all Logits or none is.")
    if any(behind) and not all(behind):  # the model runs once with its final softmax, and once without it
        parts, lost = {}, False
        for kind in (False, True):
            try:
                some = [t for t, b in zip(targets, behind, strict=True) if b == kind]
                parts[kind] = iter(explain(model, inputs, some, seed, plan))
            except SamplesLost as found:
                parts[kind], lost = iter(found.results), True
        results = [next(parts[kind]) for kind in behind]
        if lost:
            raise SamplesLost(results)
        return results
    try:
        return _explain(model, inputs, targets, seed, plan)
    except Overwritten:
        pass
    except RuntimeError as error:
        if _MISSHAPEN in str(error):
            raise RuleError(
                f"a rule returned G of another shape than its input: {str(error).split(' - ')[-1]}. Its method returns G at the input, in the "
                "input's shape."
            ) from error
        if not (says_overwritten(error) or says_one_of_several(error)):
            raise
    # The model overwrites what its own gradient or a ledger needs, or one of several views. Explain it again, with copies of
    # what is overwritten, and with views of their own.
    with copied_before_writes():
        return _explain(model, inputs, targets, seed, plan, copied=True)


def _explain(
    model: Any, inputs: Any, targets: Sequence[Any], seed: Any, plan: Plan, copied: bool = False
) -> list[Relevance]:
    job = ForwardJob.of(model, inputs, plan, new_run(model, inputs, plan, copied))

    def close() -> None:
        for catch in itertools.chain(*job.caught.values()):
            catch.close()
        if job.watch is not None:
            job.watch.close()
        job.run.sites.release()
        job.run.close()

    with Undo() as undo:
        undo.later(close)
        with outside():
            later = Later()
            try:
                return _steps(job, targets, seed, later, copied)
            except Exception:
                later.settle()  # inputs or outputs that are not finite may be why
                raise


def _steps(job: ForwardJob, targets: Sequence[Any], seed: Any, later: Later, copied: bool) -> list[Relevance]:
    """The five steps, in a function of their own: what they hold is gone when the run is closed."""
    ends: list[Any] = []

    def last() -> Any:
        """The softmax or sigmoid in which the model ends, looked for once if at all."""
        if not ends:
            ends.append(find(job.again, devices_of(job.inputs)))
        return ends[0]

    other = None
    if job.plan.against is not None:
        again = ForwardJob.of(
            job.model, job.plan.against, job.plan, new_run(job.model, job.plan.against, job.plan, copied)
        )
        other = other_of(again, job.plan.against, left_out(targets, last, bool(job.plan.checkpointed)))
    final = left_out(targets, last, bool(job.plan.checkpointed))
    check_finite(job.inputs, later=later)
    live = start_inputs(job.run, job.inputs)
    answer = forward(job, live, targets, final)
    notices = check(job, answer, later)
    if other is not None or job.watch is not None:
        later.settle()
    starts = [Start.of(score, target, seed) for score, target in answer.asked]
    if other is not None:
        return compared(job, answer, Differences(job, answer, other), starts, other, notices)
    reader = Reader(job, answer)
    if job.watch is not None:
        return conditioned(job, answer, reader, starts, notices)
    cuts = _cuts(job, answer)
    passes = backward(job.run, starts, reader.wanted, job.plan)
    ignored = Ignored(job)
    results = [
        read(job, answer, reader, start, gradients, cuts, notices, later, ignored)
        for start, gradients in zip(starts, passes, strict=False)
    ]
    later.settle()
    repeated = ran_again(job.run)
    for result in results:
        result.notices.extend([*saturated(result, answer.output, last), *repeated])
    of_each = all(len(start.handed) == job.run.inputs.samples for start in starts)
    if ADRIFT in job.run.sites.met and of_each and not any(EXCHANGED in result.notices for result in results):
        raise SamplesLost(results)
    return results


def new_run(model: Any, inputs: Any, plan: Plan, copied: bool) -> Run:
    """The run of one explanation."""
    settings, tensors = plan.settings, [t for _, t in leaves(inputs) if isinstance(t, Tensor)]
    samples = next((len(t) for t in tensors if t.ndim), 1)
    return Run(
        plan.composite,
        model,
        members=plan.members,
        strict=settings.strict,
        recorder=Recorder(copied) if settings.ledger else None,
        inputs=Inputs(
            ids=any(not t.is_floating_point() for t in tensors),
            positions=settings.positions,
            samples=samples,
            mixing=any(not t.ndim or len(t) != samples for t in tensors),
        ),
        gradients=ModelGradients(own_from=0, asking=False),
        writes=Writes(copying=copied),
        weights=Parameters() if plan.weights else None,
    )


def _cuts(job: ForwardJob, answer: Answer) -> Any:
    """The cuts after which nothing leads to the scores; none while a graph is recorded."""
    run, found = job.run, []
    if not recording():
        found = run.trace.cuts.entries(answer.scores, [leaf for _, leaf in run.inputs.starts], run.sites.journal.active)
    if run.trace.recorder is not None:
        run.trace.recorder.forget()  # the search for cuts ran gradients through the graph
    return found


def backward(run: Run, starts: list[Start], wanted: list[Any], plan: Plan) -> Iterator[Gradients]:
    """Yields the gradients of `wanted` from each start in turn. One backward pass serves `at_once` starts."""
    at_once = plan.at_once
    for first in range(0, len(starts), at_once):
        some = starts[first : first + at_once]
        scores, seeds, count = [start.score for start in some], [start.gradient for start in some], len(some)
        final = first + at_once >= len(starts) and not any(asks(run, len(s), plan.exchanged) for s in scores)
        run.begin_pass(len(scores[0]), final)
        if count > 1:  # row j of the batch starts from score j alone
            seeds = [torch.stack([g * float(i == j) for j in range(count)]) for i, g in enumerate(seeds)]
        if run.weights is not None:
            run.weights.begin()
        with recomputing(run):
            found = torch.autograd.grad(
                scores, wanted, seeds, retain_graph=not final, allow_unused=True, is_grads_batched=count > 1
            )
        if run.weights is not None:
            run.weights.end()
        if first == 0:
            run.sites.unmatched()  # a place may get its rule in the backward pass
        yield from (
            # behind a product with a sparse mask a gradient is sparse
            [g if g is None or not (g.is_sparse or count > 1) else g[j] if count > 1 else g.to_dense() for g in found]
            for j in range(count)
        )


def read(
    job: ForwardJob, answer: Answer, reader: Reader, start: Start, gradients: Gradients, cuts: Any, notices: list[str],
    later: Later, ignored: Ignored,
) -> Relevance:  # fmt: skip
    """The result of one target, from the gradients of its backward pass."""
    run, inputs = job.run, job.inputs
    reader.check(gradients)
    weights: dict[str, Tensor] | None = None
    values = [v.detach() for v in reader.inputs(gradients, start.score)]
    positions, layers = reader.positions(gradients), reader.layers(gradients)
    keeper = Bookkeeper(run, start, reader.ends, lambda g: reader.inputs(g, start.score), job.plan.exchanged)
    books = keeper.books(values)
    cut_off = unreached(inputs, reader.numbers, cuts, gradients, values)
    if run.weights is not None:
        weights = named_weights(job.model, run.weights.found)
    said = [*cut_off, *notices]

    def check_found(sizes: list[float]) -> None:
        check_sizes(sizes, values, inputs)
        if not all(sizes) and not notices:
            said.extend(ignored.notices(start, reader.numbers, gradients, sizes, said))
        said.extend(exploded(values, sizes, start.handed) if reader.multiplies else [])
        said.extend([EXCHANGED] if books.exchanged else [])

    later.ask(largest(values), check_found)
    if recording() and books.exchanged:
        said.append(EXCHANGED)
    made = _result(job, answer, start, values, positions, layers, books, said)
    return made if weights is None else replace(made, weights=weights)


def conditioned(
    job: ForwardJob, answer: Answer, reader: Reader, starts: list[Start], notices: list[str]
) -> list[Relevance]:
    """The results under conditions."""
    plan, run, found = job.plan, job.run, []
    assert job.watch is not None and plan.through is not None  # the caller asked
    passes = Conditioned(run, job.watch, reader, plan.through, list(plan.layers), plan.settings.layers_at)
    for number, (target, _) in enumerate(plan.through.each):
        start = starts[target]
        ends, layers, books, handed = passes.found(number, start)
        values = [v.detach() for v in reader.inputs(ends, start.score)]
        check_relevance(values, job.inputs)
        reader.check(ends)
        start = replace(start, handed=handed.to(start.handed))
        found.append(_result(job, answer, start, values, reader.positions(ends), layers, books, notices))
    run.sites.unmatched()
    return found


def compared(
    job: ForwardJob, answer: Answer, reader: Differences, starts: list[Start], other: Other, notices: list[str]
) -> list[Relevance]:
    """The results against other inputs."""
    found = []
    for start in starts:
        gradients = gradients_of(job, start, reader.wanted)
        reader.check(gradients)
        values = [v.detach() for v in reader.inputs(gradients, start.score)]
        check_relevance(values, job.inputs)
        change = effect(other, start, job.plan.labels)
        start = replace(start, handed=change)
        books = Books(per_sample(values, len(change)), Ledger([]))
        made = _result(job, answer, start, values, {}, reader.layers(gradients), books, notices)
        found.append(replace(made, effect=change))
    job.run.sites.unmatched()
    return found


def named_weights(model: Any, found: dict[int, Tensor]) -> dict[str, Tensor]:
    """The relevance of parameters by name; tied ones under each of their names."""
    every = model.named_parameters(remove_duplicate=False) if isinstance(model, nn.Module) else ()
    return {name: found[id(p)].to(p.dtype.to_real()) for name, p in every if id(p) in found}


def _result(
    job: ForwardJob,
    answer: Answer,
    start: Start,
    values: list[Tensor],
    positions: Any,
    layers: Any,
    books: Books,
    notices: list[str],
) -> Relevance:
    run = job.run
    taken = iter(values)
    return Relevance(
        values=map_tree(lambda _: next(taken), job.inputs),
        output=detached(answer.output),
        score=start.score.detach().clone(),  # it may be a part of the output
        target=start.target,
        composite=run.sites.composite,
        residual=(start.handed.double() - books.received.to(start.handed.device)).to(start.handed.dtype),
        layers=layers,
        rules=run.sites.rules,
        unknown=dict(run.trace.unknown),
        positions=positions,
        ledger=books.ledger,
        notices=notices,
    )
