"""`relprop.compile`: the forward pass and the backward pass are recorded once, as one graph, and compiled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.attribute import attribute
from relprop.attribution.checks import (
    admit,
    check_callable,
    check_further,
    check_output,
    check_relevance,
    rules_for,
)
from relprop.attribution.explain import explain
from relprop.attribution.notices import EXCHANGED
from relprop.attribution.seeds import handed_out
from relprop.attribution.settings import Plan, Settings
from relprop.attribution.targets import EntryTarget, as_entries
from relprop.composites import Composite
from relprop.engine.eager import step_by_step, uncompiled
from relprop.engine.members import Members, members
from relprop.engine.recording import record
from relprop.engine.traced import refuse_traced
from relprop.errors import InputError
from relprop.results.contrast import Contrast
from relprop.results.identity import Identity
from relprop.results.relevance import Relevance
from relprop.signatures import check_options, parameters, public
from relprop.torch_private.compiled import original
from relprop.torch_private.modules import state_of
from relprop.trees import leaves, map_tree

_SLOT = object()
_FIXED = {"fullgraph", "dynamic"}
_SETTLED = "It was settled when the function was made: relprop.compile(model, ...)."
_compiling = threading.Lock()
"""Torch's compiler has one state for all threads."""
_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)


@dataclass
class _Graph:
    """A compiled graph, and what turns its results into a `Relevance`.

    Attributes:
        run: the compiled function, from tensors to tensors.
        skeleton: the structure of the results.
        decided: what is the same for all calls: the composite, the rules and the unknown operations.
    """

    run: Callable[..., Sequence[Tensor]]
    skeleton: Any
    decided: dict[str, Any]

    def __call__(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        with torch.inference_mode(False), torch.no_grad():
            return self.run(*tensors)


class Compiled:
    """A function that explains one model by compiled code. `relprop.compile` makes it.

    Attributes:
        graphs: how many graphs were recorded and compiled so far.
    """

    def __init__(self, model: Any, plan: Plan, options: dict[str, Any]) -> None:
        self._model, self._plan, self._options = model, plan, options
        self._seen: dict[Any, tuple[Tensor | None, Tensor, list[str]]] = {}
        self._graphs: dict[Any, _Graph] = {}
        self._objects: dict[int, Any] = {}
        self._state: Any = None
        self._lock = threading.Lock()
        self.graphs = 0

    @step_by_step
    @public("the function that relprop.compile made", {"composite": _SETTLED, "layers": _SETTLED, "select": _SETTLED})
    def __call__(
        self,
        inputs: Any,
        target: Any = None,
        *,
        seed: float | Tensor | None = None,
        forward_args: Sequence[Any] = (),
        forward_kwargs: dict[str, Any] | None = None,
    ) -> Relevance:
        """Explains one score per sample, as `relprop.attribute` does.

        The first call with inputs of a new shape, dtype, device or structure explains them step by step, for the checks,
        and then compiles a graph for them. All later calls run the graph. Targets are inputs of the graph, so all classes
        share it; a callable target has a graph of its own. If tensors, modules or hooks of the model are replaced, the
        graphs are made anew. The graph does not notice other changes, such as one of a number that the model keeps in an
        attribute: make a new function after them.

        Args:
            inputs: as in `relprop.attribute`.
            target: as in `relprop.attribute`.
            seed: as in `relprop.attribute`.
            forward_args: as in `relprop.attribute`. Tensors among them may change from call to call. Each value of anything
                else has a graph of its own.
            forward_kwargs: as `forward_args`.

        Raises:
            RelpropError: as in `relprop.attribute`.
            InputError: a further argument is neither a tensor nor a plain value.
            UnsupportedOperationError: the model's Python code depends on the numbers it computes, so no single graph
                can stand for it.
        """
        check_further(forward_args, forward_kwargs)
        refuse_traced(leaf for _, leaf in leaves(inputs))
        plan = self._plan.given(forward_args, forward_kwargs)
        own = members(self._model)
        inputs, _ = admit(self._model, inputs, plan.composite or "auto", own=own)
        _check_arguments(plan)
        given = map_tree(_plain, (inputs, plan.args, plan.kwargs))
        with self._lock:
            self._refresh(own)
            key = type(inputs), self._key(given)
            if key not in self._seen:
                self._seen[key] = self._first(inputs, target, seed, plan)
            output, score, notices = self._seen[key]
            plan = replace(plan, exchanged=EXCHANGED in notices)
            seed = None if seed is None else handed_out(score, seed)
            asked = target if output is None else as_entries(target, output, plan.labels)
            form = _form(asked)
            tree = (*given, form, seed)
            tensors = _apart(tree)[1]
            graph_key = key, self._key(form), seed is None
            graph = self._graphs.get(graph_key)
            if graph is None:
                with _compiling:
                    graph = self._graphs[graph_key] = self._record(tree, plan)
                    found = graph(tensors)  # compiles it
            else:
                found = None
        found = graph(tensors) if found is None else found
        values, output, score, residual, layers, best = _together(graph.skeleton, found)
        check_output(self._model, output, inputs, *plan.arguments(inputs))
        check_relevance([t for _, t in leaves(values)], inputs)
        return Relevance(
            values=values,
            output=output,
            score=score,
            residual=residual,
            layers=layers,
            target=_understood(best, target),
            inputs=map_tree(lambda t: t.detach().clone(), inputs),
            labels=plan.labels,
            model=Identity.of(self._model, own),
            notices=notices,
            **graph.decided,
        )

    def _refresh(self, own: Members) -> None:
        """Forgets all graphs if tensors, modules or hooks of the model were replaced, or its mode changed."""
        state = state_of(own.every)
        if state != self._state:
            self._state = state
            self._seen.clear()
            self._graphs.clear()
            self._objects.clear()

    def _key(self, tree: Any) -> tuple[Any, ...]:
        return tuple((path, self._leaf(leaf)) for path, leaf in leaves(tree))

    def _leaf(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.device
        if isinstance(leaf, _PLAIN):
            return type(leaf), leaf
        self._objects[id(leaf)] = leaf  # kept alive, so that no other object takes its id
        return id(leaf)

    def _first(self, inputs: Any, target: Any, seed: Any, plan: Plan) -> tuple[Tensor | None, Tensor, list[str]]:
        """Explains step by step, for all the checks; returns output and scores without their numbers, and the notices."""
        settings = plan.settings
        found = attribute(
            self._model, inputs, target, composite=plan.composite or "auto", layers=list(plan.layers) or None,
            layers_at=settings.layers_at, seed=seed, forward_args=plan.args, forward_kwargs=plan.kwargs,
            select=settings.select, labels=settings.labels, multiply_by_inputs=settings.multiply_by_inputs, strict=settings.strict,
        )  # fmt: skip
        output = torch.empty_like(found.output, device="meta") if isinstance(found.output, Tensor) else None
        return output, torch.empty_like(found.score), found.notices

    def _record(self, tree: Any, plan: Plan) -> _Graph:
        """The graph of one call."""
        shape, tensors = _apart(tree)
        kept: list[Any] = []

        def call(*tensors: Tensor) -> list[Tensor]:
            inputs, args, kwargs, form, seed = _together(shape, tensors)
            (found,) = explain(self._model, inputs, [_target(form)], seed, plan.given(args, kwargs))
            output = map_tree(lambda leaf: leaf if isinstance(leaf, (Tensor, *_PLAIN)) else None, found.output)
            skeleton, flat = _apart(
                (found.values, output, found.score, found.residual, found.layers, _form(found.target))
            )
            kept[:] = skeleton, {"composite": found.composite, "rules": found.rules, "unknown": found.unknown}
            return flat

        with torch.inference_mode(False), torch.enable_grad(), uncompiled():
            graph = record(call, tensors)
        self.graphs += 1
        # the backend "eager" runs the graph as it is, so torch's compiler need not trace it once more
        whole = self._options == {"backend": "eager"}
        run = graph if whole else torch.compile(graph, fullgraph=True, dynamic=False, **self._options)
        return _Graph(run, *kept)


@public("relprop.compile", {"": "The function that it returns takes inputs: relprop.compile(model)(inputs, target)."})
def compile(
    model: Any,
    *,
    composite: Composite | str = "auto",
    layers: Any = None,
    layers_at: str = "output",
    select: Any = None,
    labels: Sequence[str] | None = None,
    multiply_by_inputs: bool | None = None,
    strict: bool = True,
    **options: Any,
) -> Compiled:
    """Makes a function that explains a model by compiled code, for many calls on inputs of the same shape.

    The forward pass and the backward pass become one graph without breaks, which `torch.compile` compiles. The model is
    not changed. Its weights are not part of the graph, so you may train them further and use the same function.

    Args:
        model: as in `relprop.attribute`.
        composite: as in `relprop.attribute`.
        layers: as in `relprop.attribute`.
        layers_at: as in `relprop.attribute`.
        select: as in `relprop.attribute`.
        labels: as in `relprop.attribute`.
        multiply_by_inputs: as in `relprop.attribute`.
        strict: as in `relprop.attribute`.
        options: options of `torch.compile`, such as `backend="aot_eager"` or `mode="max-autotune"`.

    Returns:
        A function of inputs and a target that returns a `Relevance`.

    Raises:
        InputError: the model is not callable, it lacks a layer, or `torch.compile` refuses an option.
        CompositeError: there is no such composite, or it names a path that the model lacks.
    """
    settings = Settings(
        composite=composite, layers=layers, layers_at=layers_at, select=select, labels=labels,
        multiply_by_inputs=multiply_by_inputs, strict=strict,
    )  # fmt: skip
    model = original(model)
    check_callable(model)
    _check_options(options)
    return Compiled(model, Plan.of(model, settings, rules_for(model, composite)), options)


def _check_options(options: dict[str, Any]) -> None:
    """Refuses options that `torch.compile` would refuse only at the first call, and those that relprop sets itself."""
    taken = [name for name in parameters(torch.compile) if name not in ("model", *_FIXED)]
    check_options([name for name in options if name not in _FIXED], [*parameters(compile), *taken])
    fixed = _FIXED & set(options)
    if fixed:
        raise InputError(f"{fixed.pop()}= is not free: a graph is whole, and of fixed shapes.")
    try:
        torch.compile(lambda: None, fullgraph=True, dynamic=False, **options)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"torch.compile does not take {options}: {str(error).splitlines()[0]}") from error


def _check_arguments(plan: Plan) -> None:
    """Refuses arguments whose state a graph would keep from the first call, such as a cache that the model writes."""
    for name, given in (("forward_args", plan.args), ("forward_kwargs", plan.kwargs)):
        for path, leaf in leaves(given, name):
            if not isinstance(leaf, (Tensor, *_PLAIN)):
                raise InputError(
                    f"{path} is a {type(leaf).__name__}: a compiled call takes tensors and plain values, nested in tuples, "
                    "lists and dicts. Use relprop.attribute, or close over it in the model."
                )


def _plain(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _apart(tree: Any) -> tuple[Any, list[Tensor]]:
    """A tree with slots for its tensors, and the tensors."""
    found: list[Tensor] = []

    def take(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        found.append(leaf)
        return _SLOT

    return map_tree(take, tree), found


def _together(skeleton: Any, tensors: Sequence[Tensor]) -> Any:
    """The tree with tensors in its slots."""
    rest = iter(tensors)
    return map_tree(lambda leaf: next(rest) if leaf is _SLOT else leaf, skeleton)


def _form(target: Any) -> Any:
    """A target as a tree that a graph takes and returns: a pair for a contrast, a tensor for entries."""
    if isinstance(target, Contrast):
        return _form(target.positive), _form(target.negative)
    return target.at if isinstance(target, EntryTarget) else target


def _target(form: Any) -> Any:
    """The target that has this form."""
    if isinstance(form, tuple):
        return Contrast(_target(form[0]), _target(form[1]))
    return EntryTarget(form) if isinstance(form, Tensor) else form


def _understood(found: Any, target: Any) -> Any:
    """The target as `attribute` reports it: where none was given, the arg-max that the graph found."""
    if isinstance(target, Contrast):
        return Contrast(_understood(found[0], target.positive), _understood(found[1], target.negative))
    if target is None:
        return found.tolist() if isinstance(found, Tensor) else found
    return target
