"""What a network is made of, and which rule would act where. One forward pass shows it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from relprop.attribution.checks import admit, arguments, check_further
from relprop.attribution.mistaken import REFUSALS, refuses
from relprop.attribution.targets import select_output
from relprop.composites import Composite, Place, acting
from relprop.engine import Propagation, Run
from relprop.engine.eager import step_by_step, uncompiled
from relprop.engine.inputs import Inputs
from relprop.engine.integer_inputs import track
from relprop.engine.messages import shapes
from relprop.engine.model_gradients import ModelGradients
from relprop.engine.notes import begin
from relprop.engine.replay import outside
from relprop.engine.traced import refuse_traced
from relprop.engine.undo import Undo
from relprop.engine.writes import Writes
from relprop.errors import CompositeError, InputError
from relprop.rules import Rule
from relprop.rules.base import UNDECIDED
from relprop.signatures import public
from relprop.torch_private.compiled import original
from relprop.torch_private.saved import says_one_of_several
from relprop.trees import leaves, map_tree


@dataclass(frozen=True)
class Unknown:
    """An operation that relprop does not know. Explaining the model would stop there.

    Attributes:
        operation: its name.
        where: the module that called it.
        shapes: the shapes of its operands.
        reason: why relevance cannot pass it, if that is known.
    """

    operation: str
    where: str
    shapes: str
    reason: str = ""


@dataclass(frozen=True, repr=False)
class Survey:
    """What relevance would meet, in the order of the forward pass.

    Attributes:
        composite: the rules; for "auto", those that it chose for this network.
        places: each place that asked for a rule, and the rule (None: the operation's default).
        free: the operations that need no rule, such as a reshape: how often each ran, by name and family.
        lookups: the lookups of ids, by name and module. The relevance of their rows is that of the ids.
        unknown: the operations without a known propagation.
        shape: the shape of the output, or of its logits; None if neither is a tensor.
    """

    composite: Composite
    places: list[tuple[Place, Rule | None]]
    free: dict[tuple[str, str], int] = field(default_factory=dict)
    unknown: list[Unknown] = field(default_factory=list)
    lookups: list[tuple[str, str]] = field(default_factory=list)
    shape: tuple[int, ...] | None = None

    def rows(self) -> list[tuple[str, str, str, int, str]]:
        """Operation, family, rule, number of calls, and the modules of the first and the last call.

        The rule is "merged" if the operation is one linear map with the weighted layer before it, whose rule acts on both.
        """
        found: dict[tuple[str, str, str], list[str]] = {}
        for name, where in self.lookups:
            found.setdefault((name, "lookup", "its ids receive the relevance"), []).append(where)
        for place, rule in self.places:
            key = place.name, place.family, acting(place, rule)
            found.setdefault(key, []).append(place.paths[0] if place.paths else "")
        rows = [(*key, len(paths), _span(paths)) for key, paths in found.items()]
        return rows + [(name, family, "its own gradient", count, "") for (name, family), count in self.free.items()]

    def __str__(self) -> str:
        table = [("operation", "family", "rule", "calls", "modules")]
        table += [(name, family, rule, str(count), where) for name, family, rule, count, where in self.rows()]
        widths = [max(len(row[i]) for row in table) for i in range(4)]
        lines = [
            "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=False)) + f"  {row[4]}" for row in table
        ]
        lines += [f"unknown: {u.operation} in {u.where}, given {u.shapes}. {u.reason}".rstrip() for u in self.unknown]
        return "\n".join([f"composite {self.composite.name!r}", *(line.rstrip() for line in lines)])

    __repr__ = __str__


@step_by_step
@public("relprop.survey")
def survey(
    model: Any,
    inputs: Any,
    composite: Composite | str = "auto",
    *,
    forward_args: Sequence[Any] = (),
    forward_kwargs: dict[str, Any] | None = None,
) -> Survey:
    """Runs the model once and says what it is made of. Nothing is explained.

    Args:
        model: a module, or any callable on tensors. It is not changed.
        inputs: one or more samples, as in `attribute`.
        composite: the rules, or the name of a composite.
        forward_args: further positional arguments of the model.
        forward_kwargs: further keyword arguments.

    Returns:
        The places that relevance would pass, and the operations that are unknown.

    Raises:
        InputError: the inputs cannot be explained.
        CompositeError: the composite names what does not exist.
        ModelStateError: the model is in training mode, or is TorchScript.
        UnsupportedOperationError: an operation is known, but not with the arguments it was called with.
    """
    check_further(forward_args, forward_kwargs)
    model = original(model)
    refuse_traced(leaf for _, leaf in leaves(inputs))
    inputs, chosen = admit(model, inputs, composite)
    given = model, inputs, chosen, tuple(forward_args), dict(forward_kwargs or {})
    try:
        return _surveyed(*given, copied=False)
    except RuntimeError as error:
        if not says_one_of_several(error):
            raise
    return _surveyed(*given, copied=True)


def _surveyed(
    model: Any, inputs: Any, chosen: Composite | None, args: tuple, kwargs: dict[str, Any], copied: bool
) -> Survey:
    """What one forward pass shows. `copied` as in `Writes`."""
    run = Run(
        chosen,
        model,
        strict=False,
        observed=True,
        inputs=Inputs(ids=any(not t.is_floating_point() for _, t in leaves(inputs))),
        gradients=ModelGradients(own_from=0),
        writes=Writes(copying=copied),
    )
    with Undo() as undo:
        undo.later(run.close)
        with torch.inference_mode(False), torch.enable_grad(), uncompiled(), outside():
            output = _observed(run, model, inputs, args, kwargs)
        run.sites.settle()
        return _told(run, output)


def _observed(run: Run, model: Any, inputs: Any, args: tuple, kwargs: dict) -> Any:
    """Runs the model inside the mode; returns its output.

    Raises:
        InputError: the model does not take the inputs.
    """
    numbers = itertools.count()

    def start(t: torch.Tensor) -> torch.Tensor:
        if not t.is_floating_point():
            return track(t, run, next(numbers))
        return begin(run, t.detach().clone().requires_grad_())

    positional, named = arguments(map_tree(start, inputs), args, kwargs)
    try:
        with Propagation(run):
            return select_output(model(*positional, **named), None)
    except REFUSALS as error:
        if why := refuses(model, inputs, *arguments(inputs, args, kwargs), error):
            raise InputError(why) from error
        raise


def _told(run: Run, output: Any) -> Survey:
    """The survey, from what the run logged."""
    composite, log = run.sites.composite, run.sites.log or []
    placed = [_placed(run, place) for _, place in log if place is not None]
    places = [(place, _rule(composite, place)) for place in placed]  # before the places let go of their modules
    free = ((_name(entry.function), entry.family) for entry, place in log if place is None and not entry.decomposes)
    unknown = (Unknown(_name(func), where, shapes(args), reason) for func, args, where, reason in run.trace.log or ())
    return Survey(
        composite=composite,
        places=[(place.release(), rule) for place, rule in places],
        free=Counter(free),
        unknown=list(dict.fromkeys(unknown)),
        lookups=[(lookup.name, lookup.path) for lookup in run.inputs.lookups],
        shape=tuple(output.shape) if isinstance(output, torch.Tensor) else None,
    )


def _placed(run: Run, place: Place) -> Place:
    """A place as it is known after the forward pass: then a weighted layer may be the last one."""
    return place if place.index is None else replace(place, last=place.index == run.sites.weighted - 1)


def _rule(composite: Composite, place: Place) -> Rule | None:
    found: Any = composite.rule(place)
    if found is UNDECIDED:
        raise CompositeError(f"{place} was not decided at the end of the forward pass.")
    rule: Rule | None = found
    return rule


def _name(function: Any) -> str:
    return getattr(function, "__name__", str(function))


def _span(paths: list[str]) -> str:
    named = list(dict.fromkeys(path or "(model)" for path in paths))
    return named[0] if len(named) == 1 else f"{named[0]} ... {named[-1]}"
