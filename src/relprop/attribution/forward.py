"""The forward pass: the inputs become leaves of a graph, the model runs, and its output gives the scores."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.checks import check_labels, check_lengths, check_output, unequal
from relprop.attribution.final import Finals
from relprop.attribution.later import Later
from relprop.attribution.layers import Catch, catching
from relprop.attribution.mistaken import misshapen
from relprop.attribution.notices import drawn
from relprop.attribution.points import Watch
from relprop.attribution.seeds import check_batch
from relprop.attribution.settings import Plan
from relprop.attribution.splices import spliced
from relprop.attribution.targets import scores, select_output
from relprop.attribution.through import Conditions
from relprop.engine import Propagation, Run
from relprop.engine.chance import drawn_from, standing
from relprop.engine.checkpoint import checkpointing
from relprop.engine.integer_inputs import track
from relprop.engine.notes import begin, note_of
from relprop.engine.overwritten import check_exposed
from relprop.engine.tensors import tensors_in
from relprop.errors import InputError, RelpropError, SeveredGraphError
from relprop.results.logit import as_logits, without_logits
from relprop.torch_private.recorded import recording
from relprop.trees import leaves, map_tree


@dataclass(frozen=True)
class ForwardJob:
    """One model to explain on given inputs.

    Attributes:
        model: a module, or any callable.
        inputs: a tree of tensors, as the caller gave them.
        plan: how to explain.
        run: the engine's state of the forward pass and the backward passes.
        caught: what passed the layers whose relevance is wanted, by path.
        watch: what passes the layers that conditions name; None if `caught` has the layers.
        generators: how the random generators stood before the forward pass; None while a graph is recorded.
    """

    model: Any
    inputs: Any
    plan: Plan
    run: Run
    caught: dict[str, list[Catch]]
    watch: Watch | None
    generators: list[Any] | None

    @classmethod
    def of(cls, model: Any, inputs: Any, plan: Plan, run: Run) -> ForwardJob:
        generators = None if recording() else standing(devices_of(inputs))
        if plan.through is None and plan.against is None:
            return cls(model, inputs, plan, run, {name: [] for name in plan.layers}, None, generators)
        watch = (plan.through or Conditions([], {})).watch(plan.layers, plan.settings.layers_at)
        return cls(model, inputs, plan, run, {}, watch, generators)

    def again(self) -> Any:
        """Runs the model once more, outside the mode; returns the part of its output that is explained."""
        args, kwargs = self.plan.arguments(detached(self.inputs))
        return select_output(self.model(*args, **kwargs), self.plan.settings.select)


@dataclass(frozen=True)
class Answer:
    """What the model returned, and the scores of the targets.

    Attributes:
        raw: what the model returned, kept alive for the backward passes.
        output: the part of it that is explained.
        asked: for each target the scores, (N,) or one number, and the target as it was understood.
        nz: whether exact zeros of the inputs carry relevance by a composite that was given; False for "auto".
    """

    raw: Any
    output: Any
    asked: list[tuple[Tensor, Any]]
    nz: bool

    @property
    def scores(self) -> list[Tensor]:
        return [score for score, _ in self.asked]


def start_inputs(run: Run, inputs: Any) -> Any:
    """The inputs as the model gets them: leaves of a graph, and ids whose positions are followed."""
    numbers = itertools.count()

    def start(t: Tensor) -> Tensor:
        number = next(numbers)
        t = t.clone() if t.is_inference() else t.detach()
        if not t.is_floating_point():
            return track(t, run, number)
        leaf = t.requires_grad_()
        run.inputs.starts.append((number, leaf))
        return begin(run, leaf)

    return map_tree(start, inputs)


def forward(job: ForwardJob, live: Any, targets: Sequence[Any], final: Any) -> Answer:
    """Runs the model inside the mode, and reads the scores of the targets off its output.

    Args:
        job: what is explained.
        live: the inputs, as leaves of the graph.
        targets: the targets.
        final: the context that leaves out the final softmax or sigmoid, where the targets are Logits.
    """
    run, plan, settings = job.run, job.plan, job.plan.settings
    nz = plan.composite is not None and run.sites.nz
    if job.watch is None:
        watched = catching(job.caught, plan.layers, settings.layers_at, run)
    else:
        watched = job.watch.watching(run)
    splicing = spliced(plan.splices, job.model, plan.checkpointed, run)
    with checkpointing(plan.checkpointed, run), splicing, watched, Propagation(run):
        with final:
            raw = _called(job, live)
        run.model.end()
        output = select_output(raw, settings.select)
        if settings.labels is not None:
            check_labels(plan.labels, output)
        asked = [scores(output, without_logits(target), plan.labels) for target in targets]
        if isinstance(final, Finals):
            asked = [(score, as_logits(target)) for score, target in asked]
        # an operation meets what a custom function returned here at the latest
        asked = [(s.view_as(s) if s.requires_grad and note_of(s) is None else s, target) for s, target in asked]
    check_exposed(run)
    run.sites.settle()
    run.gradients.end()
    return Answer(raw, output, asked, nz)


def _called(job: ForwardJob, live: Any) -> Any:
    """What the model returns.

    Raises:
        InputError: the model refuses the inputs, and the reason can be told.
    """
    args, kwargs = job.plan.arguments(live)
    if job.run.inputs.ids or job.plan.args or job.plan.kwargs:
        job.run.model.note_data([t for t in tensors_in((args, kwargs)) if not t.requires_grad])
    try:
        with job.run.gradients.within_model():
            return job.model(*args, **kwargs)
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, RelpropError):
            raise
        if why := _suspect(job, error):
            raise InputError(f"{why} The model itself raised: {error}") from error
        raise


def check(job: ForwardJob, answer: Answer, later: Later | None = None) -> list[str]:
    """Refuses an answer that cannot be explained; returns the notices on random numbers."""
    run, inputs, notices = job.run, job.inputs, []
    for score in answer.scores:
        check_lengths(inputs, score)
    args, kwargs = job.plan.arguments(detached(inputs))
    devices = devices_of(inputs)
    if job.generators is not None and (run.chance.generators or drawn_from(job.generators, standing(devices))):
        notices = drawn(job.again, answer.output, run, devices)
    check_output(job.model, answer.raw, inputs, args, kwargs, later)
    if run.inputs.ids and not run.inputs.starts and not run.inputs.lookups:
        raise InputError(_unread(inputs))
    if not all(score.requires_grad for score in answer.scores):
        raise severed(run)
    for score in answer.scores:
        check_batch(score, inputs, answer.output)
    return notices


def severed(run: Run) -> SeveredGraphError:
    """The error of a score that does not depend on the inputs."""
    cuts = list(dict.fromkeys(list(run.trace.severed)[-3:]))
    if cuts:
        why = (
            f"The graph was cut by: {'; '.join(cuts)}. Remove the detach, no_grad or conversion, or explain the part of the "
            "model behind it."
        )
    else:
        why = (
            "No operation cut the graph. If the inputs act only through what the rules hold constant, such as a divisor, an "
            "exponent or a gate, composite='gradient' tells how the score changes with them. If the model reads their numbers "
            "into Python, as by tolist() or float(), let it compute with tensors instead."
        )
    return SeveredGraphError(f"the score does not depend on the inputs: nothing can be attributed. {why}")


def detached(tree: Any) -> Any:
    """The tree with its tensors detached."""
    return map_tree(lambda t: t.detach() if isinstance(t, Tensor) else t, tree)


def devices_of(inputs: Any) -> set[torch.device]:
    """The devices of the inputs."""
    return {t.device for _, t in leaves(inputs) if isinstance(t, Tensor)}


def _suspect(job: ForwardJob, error: Exception) -> str:
    """What is probably wrong with inputs that the model refused; "" if that cannot be told."""
    known, inputs = job.run.inputs, job.inputs
    if known.ids and isinstance(error, IndexError):
        most = {path: int(t.max()) for path, t in leaves(inputs) if not t.is_floating_point()}
        said = ", ".join(f"{path} up to {number}" for path, number in most.items())
        return f"an id may lie beyond the table it is looked up in: {said}. Do the tokenizer and the model belong together?"
    if known.ids and not known.lookups and isinstance(error, RuntimeError):
        return _unread(inputs)
    return misshapen(job.model, inputs) or unequal(inputs)


def _unread(inputs: Any) -> str:
    """What is said of integers that no embedding looked up."""
    dtypes = ", ".join(f"{path} ({t.dtype})" for path, t in leaves(inputs) if not t.is_floating_point())
    return (
        f"integers cannot carry relevance unless an embedding looks them up, and none did: {dtypes}. "
        "Convert them to floating point, or pass them in forward_args or forward_kwargs."
    )
