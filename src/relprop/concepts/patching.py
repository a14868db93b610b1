"""True interventions: hidden units are replaced by their values for other inputs, many nodes in one batch."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.against import check_against
from relprop.attribution.attribute import attribute
from relprop.attribution.checks import admit, arguments, check_further
from relprop.attribution.conditions import Condition, Units
from relprop.attribution.filters import filter_of
from relprop.attribution.layers import SplicedPart, Steps
from relprop.attribution.points import modules_of, named
from relprop.attribution.splices import Splice, Splices, parts_of, splices_of
from relprop.attribution.targets import known_labels, scores, select_output
from relprop.composites import Composite
from relprop.concepts.patched_splices import PatchedSplice
from relprop.engine.eager import step_by_step
from relprop.engine.undo import Undo
from relprop.errors import InputError
from relprop.results.relevance import Relevance
from relprop.signatures import public
from relprop.trees import leaves, map_tree


@dataclass(frozen=True)
class Patches:
    """Estimates and true effects of replacing units by their values for other inputs.

    Attributes:
        nodes: the units, the strongest estimate first.
        estimate: the estimated change of the score for each node, (K, N).
        truth: the true change, (K, N).
        score: the scores of the clean inputs, (N,).
        effect: the change of the score if all inputs are replaced, (N,).
        composite: the name of the composite that estimated.
    """

    nodes: list[Units]
    estimate: Tensor
    truth: Tensor
    score: Tensor
    effect: Tensor
    composite: str

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def correlation(self) -> float:
        """The Pearson correlation of estimate and truth over all nodes and samples."""
        both = torch.stack([self.estimate.double().flatten(), self.truth.double().flatten()])
        return float(torch.corrcoef(both)[0, 1])

    def overlap(self, count: int = 10) -> int:
        """How many of the `count` nodes with the largest true effect are among as many with the largest estimate."""
        best = [
            set(t.double().abs().sum(1).topk(min(count, len(self))).indices.tolist())
            for t in (self.estimate, self.truth)
        ]
        return len(best[0] & best[1])

    def table(self, most: int = 20) -> str:
        """Nodes with their estimated and true effects, in lines. Several samples are averaged."""
        names = [node.said for node in self.nodes[:most]]
        width = max(map(len, names), default=0)
        rows = zip(names, self.estimate.double().mean(1).tolist(), self.truth.double().mean(1).tolist(), strict=False)
        head = f"{'':<{width}}  estimate     truth"
        return "\n".join([head, *(f"{name:<{width}}  {a:+8.4f}  {b:+8.4f}" for name, a, b in rows)])

    def __repr__(self) -> str:
        return f"{len(self)} patches, estimates by {self.composite!r}, correlation {self.correlation:.3f}\n{self.table(10)}"


@step_by_step
@public("relprop.patch")
@torch.no_grad()
def patch(
    model: Any,
    clean: Any,
    corrupted: Any,
    target: Any = None,
    *,
    nodes: Sequence[Units],
    most: int | None = None,
    composite: Composite | str = "relp",
    batch_size: int = 32,
    select: Any = None,
    labels: Sequence[str] | None = None,
    forward_args: Sequence[Any] = (),
    forward_kwargs: dict[str, Any] | None = None,
    splices: Splice | Sequence[Splice] | None = None,
) -> Patches:
    """Replaces hidden units of `clean` by their values for `corrupted`, and compares the effects with their estimates.

    Args:
        model: a module.
        clean: its inputs, as `attribute` takes them.
        corrupted: other inputs of the same shape.
        target: which output, as in `attribute`; None for the arg-max of `clean`.
        nodes: the units of each intervention, such as `[relprop.units("blocks.3")[t] for t in range(9)]`.
        most: how many nodes get an intervention, those with the largest estimates; None for all.
        composite: the rules of the estimate, `attribute(..., against=corrupted)`; "gradient" is attribution patching.
        batch_size: interventions per forward pass.
        select: what to explain of an output that is not a tensor.
        labels: names of the classes, where the model carries none.
        forward_args: further positional arguments of the model.
        forward_kwargs: further keyword arguments.
        splices: autoencoders or transcoders in layers, whose latents and errors are then units. For other latents z' the
            layer gives `h + decode(z') - decode(z)`.

    Returns:
        Patches, the strongest estimate first.

    Raises:
        InputError: a node names no units of the model, or the inputs do not fit each other.
        TargetError: as in `attribute`.

    References:
        Jafari et al. 2025, "RelP: Faithful and efficient circuit discovery in language models via relevance patching".
    """
    check_further(forward_args, forward_kwargs)
    clean, _ = admit(model, clean, composite)
    corrupted, _ = admit(model, corrupted, composite)
    check_against(clean, corrupted)
    for name, number in (("most", most), ("batch_size", batch_size)):
        if (number is not None or name == "batch_size") and (
            not isinstance(number, int) or isinstance(number, bool) or number < 1
        ):
            raise InputError(f"{name} must be a positive int; got {number!r}.")
    spliced = splices_of(model, splices)
    found = _nodes(model, nodes, spliced)
    options = {"forward_args": forward_args, "forward_kwargs": forward_kwargs, "select": select, "labels": labels}
    parts = parts_of(spliced)
    values = _values(model, corrupted, modules_of(model, found, parts), options, spliced)
    results = {
        at: attribute(
            model,
            clean,
            target,
            composite=composite,
            layers=paths,
            layers_at=at,
            against=corrupted,
            splices=splices,
            **options,
        )
        for at in ("output", "input")
        if (paths := list(dict.fromkeys(node.path for node in found if node.at == at)))
    }
    R = next(iter(results.values()))
    estimate = torch.stack([_estimate(results[node.at], node, values, len(R)) for node in found])
    order = estimate.abs().sum(1).argsort(descending=True, stable=True)[:most].tolist()
    best = [found[i] for i in order]
    truth: list[Tensor] = []
    for start in range(0, len(best), batch_size):
        some = best[start : start + batch_size]
        truth += _scores(model, clean, some, values, R, options, spliced) - R.score
    assert R.effect is not None
    return Patches(best, estimate[order], torch.stack(truth), R.score, R.effect, R.composite.name)


Values = dict[tuple[str, str], list[list[Tensor]]]
"""For each layer and side the runs, each with the floating-point tensors that passed."""


def _nodes(model: Any, nodes: Any, splices: Splices) -> list[Units]:
    """The nodes with the paths of their layers."""
    if isinstance(nodes, Condition) or not isinstance(nodes, (list, tuple)) or not nodes:
        raise InputError(f"nodes must be a list of units, such as [relprop.units('layer')[3]]; got {nodes!r}.")
    found = []
    for node in nodes:
        if not isinstance(node, Units):
            raise InputError(f"a node is units of one layer; got {node!r}.")
        if node.path.endswith(".heads"):
            raise InputError(
                f"{node.said}: heads cannot be replaced by themselves. They are slices of what enters the projection behind: "
                "relprop.units('...o_proj', at='input')[:, 64:128]."
            )
        one = named(model, node, parts_of(splices))
        assert isinstance(one, Units)
        if any(isinstance(module, Steps) for module in modules_of(model, [one], parts_of(splices)).values()):
            raise InputError(
                f"{one.said}: a state inside a recurrent layer cannot be replaced; its output sequence can, "
                f"relprop.units({one.path.rpartition('.')[0]!r})."
            )
        found.append(one)
    return found


def _index(node: Units, values: Values) -> tuple[int, int]:
    """The run and the tensor of a node."""
    runs = values[node.path, node.at]
    if not runs or (node.run is None and len(runs) > 1):
        raise InputError(f"{node.said}: the layer ran {len(runs)} times{'. Say which run, run=' if runs else ''}.")
    number = node.run or 0
    if not -len(runs) <= number < len(runs) or not -len(runs[number]) <= node.part_of < len(runs[number]):
        raise InputError(f"{node.said}: the layer ran {len(runs)} times, with {len(runs[0])} floating-point tensors.")
    return number % len(runs), node.part_of % len(runs[number])


def _estimate(R: Relevance, node: Units, values: Values, samples: int) -> Tensor:
    """The estimated change of each sample's score."""
    run, part = _index(node, values)
    of_layer = R.layers[node.path]
    flat = of_layer if isinstance(of_layer, list) else [of_layer]
    before = sum(len(tensors) for tensors in values[node.path, node.at][:run])
    relevance: Tensor = flat[before + part]
    chosen = filter_of(node, relevance.shape, samples)
    if chosen.basis is not None:
        raise InputError(f"{node.said}: the effect of directions is not estimated; take units.")
    return chosen(relevance).flatten(1).sum(1)


def _values(model: Any, inputs: Any, modules: dict[Any, Any], options: dict[str, Any], splices: Splices) -> Values:
    """What passes the layers for some inputs."""
    found: Values = {key: [] for key in modules}

    def see(key: Any, value: Any) -> Any:
        found[key].append([t.clone() for _, t in leaves(value) if _floats(t)])
        return value

    with _hooked(model, modules, see, splices):
        _call(model, inputs, options)
    return found


def _scores(
    model: Any,
    clean: Any,
    nodes: list[Units],
    values: Values,
    R: Relevance,
    options: dict[str, Any],
    splices: Splices,
) -> Tensor:
    """The scores with each node replaced, (K, N): the rows of one batch are interventions times samples."""
    samples, counts = len(R), dict.fromkeys(values, 0)
    modules = modules_of(model, nodes, parts_of(splices))

    def replace(key: Any, value: Any) -> Any:
        run = counts[key]
        counts[key] += 1
        for row, node in enumerate(nodes):
            if (node.path, node.at) == key and _index(node, values)[0] == run:
                part = _index(node, values)[1]
                value = _replaced(value, part, node, values[key][run][part], slice(row * samples, (row + 1) * samples))
        return value

    def repeated(t: Any) -> Any:
        batch = isinstance(t, Tensor) and t.ndim and len(t) == samples
        return t.repeat(len(nodes), *[1] * (t.ndim - 1)) if batch else t

    further = {name: map_tree(repeated, options[name]) for name in ("forward_args", "forward_kwargs")}
    with _hooked(model, modules, replace, splices):
        output = select_output(_call(model, map_tree(repeated, clean), {**options, **further}), options["select"])
    target = R.target * len(nodes) if isinstance(R.target, list) else R.target
    labels = options["labels"] if options["labels"] is not None else known_labels(model)
    return scores(output, target, labels)[0].reshape(len(nodes), samples)


def _replaced(value: Any, part: int, node: Units, other: Tensor, rows: slice) -> Any:
    """A tree of tensors in which some rows of one tensor take the other's numbers at the node."""
    number = -1

    def change(t: Any) -> Any:
        nonlocal number
        number += _floats(t)
        if not _floats(t) or number != part:
            return t
        mine = t[rows]
        chosen = filter_of(node, mine.shape, len(mine))
        t = t.clone()
        t[rows] = mine + chosen(other - mine)
        return t

    return _mapped(change, value)


def _mapped(change: Any, tree: Any) -> Any:
    """`map_tree`, for the outputs of libraries as well, which are dicts with attributes."""
    if isinstance(tree, dict):
        copied = copy.copy(tree)
        for key in tree:
            copied[key] = _mapped(change, tree[key])
        return copied
    if isinstance(tree, (tuple, list)):
        items = [_mapped(change, item) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
    return change(tree)


def _floats(t: Any) -> bool:
    return isinstance(t, Tensor) and t.is_floating_point()


def _call(model: Any, inputs: Any, options: dict[str, Any]) -> Any:
    args, kwargs = arguments(inputs, tuple(options["forward_args"]), dict(options["forward_kwargs"] or {}))
    return model(*args, **kwargs)


def _parted(
    splice: PatchedSplice, names: dict[str, str], change: Any, thread: int, m: Any, args: Any, kwargs: Any, out: Any
) -> Any:
    """The hook of a layer with a splice."""
    if threading.get_ident() != thread:
        return None
    return splice.output((args, kwargs), out, names, lambda name, t: change((name, "output"), t))


@contextmanager
def _hooked(model: Any, modules: dict[Any, Any], change: Any, splices: Splices) -> Iterator[None]:
    """While this lasts, `change(key, value)` gives what passes the layers in this thread."""
    thread = threading.get_ident()
    plain = {key: module for key, module in modules.items() if not isinstance(module, SplicedPart)}
    with Undo() as undo:
        for path, splice in splices.items():
            names = {m.name: name for (name, _), m in modules.items() if isinstance(m, SplicedPart) and m.path == path}
            if names:
                part = partial(_parted, PatchedSplice(path, splice), names, change, thread)
                undo.later(model.get_submodule(path).register_forward_hook(part, with_kwargs=True).remove)
        for (path, at), module in plain.items():

            def enter(m: Any, args: Any, kwargs: Any = None, key: Any = (path, at)) -> Any:
                return change(key, (args, kwargs)) if threading.get_ident() == thread else None

            def leave(m: Any, args: Any, out: Any, key: Any = (path, at)) -> Any:
                return change(key, out) if threading.get_ident() == thread else None

            if at == "input":
                undo.later(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            else:
                undo.later(module.register_forward_hook(leave).remove)
        yield
