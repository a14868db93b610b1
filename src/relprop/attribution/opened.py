"""A forward pass that stays open for backward passes of one's own: for graphs and other uses of `G` at hidden tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from relprop.attribution.checks import admit, check_further
from relprop.attribution.conditioned import check_linear
from relprop.attribution.explain import new_run
from relprop.attribution.final import find, left_out
from relprop.attribution.forward import Answer, ForwardJob, check, devices_of, forward, start_inputs
from relprop.attribution.points import Watch
from relprop.attribution.reading import Reader
from relprop.attribution.seeds import Start
from relprop.attribution.settings import Plan, Settings
from relprop.attribution.splices import Splice
from relprop.attribution.through import Conditions
from relprop.engine import Run
from relprop.engine.eager import uncompiled
from relprop.engine.replay import outside
from relprop.engine.traced import refuse_traced
from relprop.engine.undo import Undo
from relprop.torch_private.compiled import original
from relprop.torch_private.saved import says_one_of_several
from relprop.trees import leaves


@dataclass(frozen=True)
class Opened:
    """What a forward pass left.

    Attributes:
        model: the model, as it was given.
        inputs: the inputs as plain containers.
        run: the run.
        watch: what passed the layers.
        reader: reads relevance of the inputs off gradients.
        start: the scores.
        notices: what readers of a result should know.
        labels: names of the classes, if they are known.
        output: the part of the output that is explained.
    """

    model: Any
    inputs: Any
    run: Run
    watch: Watch
    reader: Reader
    start: Start
    notices: list[str]
    labels: Sequence[str] | None
    output: Any = None


@contextmanager
def opened(
    model: Any,
    inputs: Any,
    target: Any,
    settings: Settings,
    modules: Mapping[Any, Any],
    *,
    seed: Any = None,
    forward_args: Sequence[Any] = (),
    forward_kwargs: dict[str, Any] | None = None,
    splices: dict[str, Splice] | None = None,
) -> Iterator[Opened]:
    """Runs the model under the rules, and keeps the graph until the block ends.

    Args:
        model: as in `attribute`, like the other arguments that it has, too.
        inputs: as in `attribute`.
        target: one target.
        settings: how to explain.
        modules: the modules to watch, by path and side (see `points.modules_of`).
        seed: the relevance to start from.
        forward_args: further positional arguments.
        forward_kwargs: further keyword arguments.
        splices: splices by the paths of their layers.

    Raises:
        RelpropError: as in `attribute`.
    """
    check_further(forward_args, forward_kwargs)
    model = original(model)
    refuse_traced(leaf for _, leaf in leaves(inputs))
    inputs, chosen = admit(model, inputs, settings.composite)
    plan = Plan.of(model, settings, chosen, splices=splices).given(forward_args, forward_kwargs)
    plan = plan.watching(Conditions([], dict(modules)))
    with torch.inference_mode(False), torch.enable_grad(), uncompiled(), Undo() as undo, outside():
        found = None
        try:
            found = _ran(model, inputs, target, plan, undo, copied=False)
        except RuntimeError as error:
            if not says_one_of_several(error):
                raise
        job, answer = found or _ran(model, inputs, target, plan, undo, copied=True)
        assert job.watch is not None  # the plan watches
        notices = check(job, answer)
        check_linear(job.run)
        start = Start.of(answer.scores[0], answer.asked[0][1], seed)
        yield Opened(model, inputs, job.run, job.watch, Reader(job, answer), start, notices, plan.labels, answer.output)


def _ran(model: Any, inputs: Any, target: Any, plan: Plan, undo: Undo, copied: bool) -> tuple[ForwardJob, Answer]:
    """What is explained, and what the model answered. `copied` as in `Writes`."""
    job = ForwardJob.of(model, inputs, plan, new_run(model, inputs, plan, copied))
    undo.later(job.run.close)
    assert job.watch is not None  # the plan watches
    undo.later(job.watch.close)
    last = cache(lambda: find(job.again, devices_of(job.inputs)))
    return job, forward(job, start_inputs(job.run, inputs), [target], left_out([target], last, False))
