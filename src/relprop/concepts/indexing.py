"""Builds an index of hidden units: one explanation of each sample, in which no tensor of a sample is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from relprop.attribution.checks import check_flags
from relprop.attribution.layers import Heads, SplicedPart, wanted
from relprop.attribution.opened import Opened, opened
from relprop.attribution.points import Point
from relprop.attribution.settings import Settings
from relprop.attribution.splices import Splice, parts_of, splices_of
from relprop.composites import Composite
from relprop.concepts.index import Index, fingerprint, load_index, said_of
from relprop.concepts.index_files import EACH, MANIFEST, IndexedLayer
from relprop.concepts.sample_batches import bar, batches, range_of
from relprop.concepts.snippets import check_tokenizer
from relprop.concepts.tops import Tops, packed
from relprop.engine.eager import step_by_step
from relprop.errors import InputError
from relprop.results.files.fingerprint import weights_sha256
from relprop.results.identity import Identity
from relprop.signatures import public


@step_by_step
@public("relprop.index")
def index(
    model: Any,
    dataset: Any,
    *,
    layers: Any,
    keep: int = 16,
    composite: Composite | str = "auto",
    rows: tuple[int, int] | None = None,
    folder: str | PathLike[str] | None = None,
    every: int = 20,
    batch_size: int = 32,
    normalise: bool = False,
    vectors: bool = False,
    axes: dict[str, int] | None = None,
    select: Any = None,
    forward_kwargs: dict[str, Any] | None = None,
    progress: bool = False,
    splices: Splice | Sequence[Splice] | None = None,
    tokenizer: Any = None,
) -> Index:
    """An index of what hidden units stand for: for each unit the samples of a data set in which it mattered most.

    Each sample is explained once, for its own class. Of each unit the index keeps the samples with the most relevance
    (RelMax) and with most activation (ActMax), with the position in the layer, and its mean share of relevance in each
    class. Memory does not depend on the number of samples.

    Args:
        model: a module.
        dataset: anything with a length and numbers as keys, whose items are `(input, label)`, or an input alone. Then
            the predicted class is explained, and the index says so.
        layers: paths, globs or modules.
        keep: how many references of each unit are kept, by relevance and by activation.
        composite: the rules.
        rows: the first sample and the one after the last, for a part of the data; parts are joined with `|`.
        folder: where to save the index on the way, every `every` batches. If the folder has an unfinished index of the
            same model, data and settings, the work continues from there.
        every: batches from one save to the next.
        batch_size: samples per pass. Samples of different sizes make smaller batches.
        normalise: whether relevance is divided by the sum of its sizes over the units of the layer, so that samples with
            a high score do not rule the references.
        vectors: whether to keep the relevance and the mean activation of each unit in each sample, in float16, for
            `Index.prototypes`.
        axes: the axis of the units in what a layer gives for one sample, by path, where it is not found. Convolutions
            and pictures have them first, other layers last.
        select: what to explain of an output that is not a tensor.
        forward_kwargs: further keyword arguments of the model.
        progress: whether to show a progress bar on stderr (needs tqdm).
        splices: autoencoders or transcoders in layers, whose latents are then units: `layers=["blocks.3.latents"]`.
        tokenizer: for texts, shows references as tokens: what has `convert_ids_to_tokens`, or a function from a list of ids
            to their tokens. The index does not store it.

    Returns:
        The index.

    Raises:
        InputError: the data have no length, a sample is not finite, a label is not a class, or the folder has an index of
            another model, of other data or of other settings.
        RelpropError: as in `attribute`.

    References:
        Achtibat et al. 2023, "From attribution maps to human-understandable explanations through concept relevance
        propagation", for relevance maximisation.
    """
    for name, number in (("keep", keep), ("batch_size", batch_size), ("every", every)):
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise InputError(f"{name} must be a positive int; got {number!r}.")
    check_flags(normalise=normalise, vectors=vectors, progress=progress)
    check_tokenizer(tokenizer)
    start, stop = range_of(dataset, rows)
    spliced = splices_of(model, splices)
    modules = wanted(model, layers, parts=parts_of(spliced))
    if not modules:
        raise InputError("layers names no layer: give paths, globs or modules.")
    rules = composite if isinstance(composite, str) else composite.name
    about: dict[str, Any] = {
        "model": str(Identity.of(model)),
        "weights_sha256": weights_sha256(model),
        "data": fingerprint(dataset),
        "settings": {"composite": rules, "table": str(composite), "keep": keep, "normalise": normalise, "vectors": vectors, "layers": sorted(modules), **({"splices": said_of(spliced)} if spliced else {})},
        "labels": isinstance(dataset[start], (tuple, list)),
        "rows": [],
    }  # fmt: skip
    begun = _begun(folder, about, start)
    builder = _Builder(model, modules, about, begun, keep, normalise, vectors, axes or {}, spliced)
    settings = Settings(composite=composite, select=select)
    done = begun.about["rows"][-1][1] if begun is not None else start
    some: Any = batches(dataset, done, stop, batch_size)
    if progress:
        some = bar(some, stop - done)
    for number, (first, inputs, labels) in enumerate(some, 1):
        builder.add(first, inputs, labels, settings, forward_kwargs)
        if folder is not None and number % every == 0:
            builder.index([start, first + len(inputs)]).save(folder)
    made = builder.index([start, stop])
    if folder is not None:
        made.save(folder)
    options = {"composite": composite, "select": select, "forward_kwargs": forward_kwargs}
    return replace(made, model=model, dataset=dataset, splices=spliced, tokenizer=tokenizer, options=options)


def _begun(folder: Any, about: dict[str, Any], start: int) -> Index | None:
    """An unfinished index in the folder."""
    if folder is None or not (Path(folder) / MANIFEST).exists():
        return None
    found = load_index(folder)
    for name, said in (
        ("weights_sha256", "a model with other weights"),
        ("data", "other data"),
        ("settings", "other settings"),
    ):
        if found.about[name] != about[name]:
            raise InputError(f"{str(folder)!r} holds an index of {said}. Choose another folder, or remove it first.")
    if found.about["rows"][0][0] != start or len(found.about["rows"]) != 1:
        raise InputError(f"{str(folder)!r} holds an index of other rows, {found.about['rows']}. Choose another folder.")
    return found


class _Builder:
    """Adds batches of explained samples to an index."""

    def __init__(
        self, model: Any, modules: dict[str, Any], about: dict[str, Any], begun: Index | None, keep: int, normalise: bool,
        vectors: bool, axes: dict[str, int], splices: dict[str, Splice],
    ) -> None:  # fmt: skip
        self._model, self._modules, self._about, self._keep = model, modules, about, keep
        self._normalise, self._vectors, self._axes, self._splices = normalise, vectors, axes, splices
        self._layers: dict[str, IndexedLayer] = {} if begun is None else dict(begun.layers)
        self._parts: dict[str, dict[str, list[Tensor]]] = {
            path: {name: [kept] for name in EACH if (kept := getattr(layer, name)) is not None}
            for path, layer in self._layers.items()
        }

    def index(self, rows: list[int]) -> Index:
        """The index so far."""
        layers = {path: replace(layer, **self._each(path)) for path, layer in self._layers.items()}
        return Index(layers, {**self._about, "rows": [rows]})

    def _each(self, path: str) -> dict[str, Any]:
        """What is kept of each sample."""
        return {name: torch.cat(some) for name, some in self._parts.get(path, {}).items()}

    def add(self, first: int, inputs: Tensor, labels: Sequence[int] | None, settings: Settings, kwargs: Any) -> None:
        """Explains a batch, and adds what its units did."""
        watched = {(path, "output"): module for path, module in self._modules.items()}
        with opened(
            self._model,
            inputs,
            None if labels is None else list(labels),
            settings,
            watched,
            forward_kwargs=kwargs,
            splices=self._splices,
        ) as state:
            points = {path: self._point(state, path) for path in self._modules}
            edges = [GradientEdge(*edge) for point in points.values() for edge, _ in point.edges]
            if not edges:
                raise InputError("none of the layers lies on the way from the inputs to the score.")
            state.run.begin_pass(len(inputs), True)
            found = iter(torch.autograd.grad(state.start.score, edges, state.start.gradient, allow_unused=True))
            target = state.start.target
            classes = torch.tensor(target if isinstance(target, list) else [target or 0] * len(inputs))
            numbers = torch.arange(first, first + len(inputs))
            with torch.no_grad():
                for path, point in points.items():
                    relevance = point.relevance([next(found) for _ in point.edges])
                    if relevance is None:
                        raise InputError(f"layer {path!r} does not lie on the way from the inputs to the score.")
                    self._add(path, relevance.detach(), point.value, classes, numbers, state)

    def _point(self, state: Opened, path: str) -> Point:
        runs = state.watch.seen[path, "output"]
        if len(runs) != 1 or not runs[0]:
            raise InputError(f"layer {path!r} ran {len(runs)} times; an index takes layers that run once.")
        return runs[0][0]

    def _add(
        self, path: str, relevance: Tensor, value: Tensor, classes: Tensor, numbers: Tensor, state: Opened
    ) -> None:
        axis = self._axis(path, relevance, state)
        by_unit, acts = (t.movedim(1 + axis, 1).flatten(2) if t.ndim > 2 else t[..., None] for t in (relevance, value))
        sums = by_unit.sum(2).double()
        share = sums / sums.abs().sum(1, keepdim=True).clamp(min=1e-300)
        sizes = tuple(n for n_axis, n in enumerate(relevance.shape[1:]) if n_axis != axis)
        most, place = acts.max(2)
        try:
            at, place = packed(by_unit.argmax(2), sizes), packed(place, sizes)
        except ValueError as error:
            raise InputError(f"layer {path!r}: {error}. Choose a smaller layer.") from None
        layer = self._layers.get(path)
        if layer is None:
            tops, units = Tops.empty(by_unit.shape[1], self._keep), by_unit.shape[1]
            number = torch.zeros(0, dtype=torch.int64)
            none = number, torch.zeros(0, units, dtype=torch.float64), number
            layer = IndexedLayer(tops, tops, *none, tuple(relevance.shape[1:]), axis)
        ranked = share if self._normalise else sums
        self._layers[path] = replace(
            layer,
            relevance=layer.relevance.add(ranked.cpu(), numbers, at.cpu()),
            activation=layer.activation.add(most.cpu(), numbers, place.cpu()),
            **layer.adding(classes, share.cpu(), torch.ones_like(classes)),
        )
        if self._vectors:
            made = (sums.cpu().half(), acts.mean(2).cpu().half(), classes.int(), _predicted(state.output, classes))
            parts = self._parts.setdefault(path, {name: [] for name in EACH})
            for name, kept in zip(EACH, made, strict=True):
                parts[name].append(kept)

    def _axis(self, path: str, relevance: Tensor, state: Opened) -> int:
        """The axis of the units, in what the layer gives for one sample."""
        inner = relevance.ndim - 1
        if path in self._axes:
            axis = self._axes[path]
            if not isinstance(axis, int) or not -inner <= axis < inner:
                raise InputError(
                    f"axes: {path!r} gives {tuple(relevance.shape[1:])} for one sample; got axis {axis!r}."
                )
            return axis % inner
        module = self._modules[path]
        if isinstance(module, Heads) or inner in (1, 3, 4):
            return 0
        if isinstance(module, SplicedPart):
            return inner - 1
        convolutions = (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d)
        return 0 if any(isinstance(m, convolutions) for m in module.modules()) else inner - 1


def _predicted(output: Any, classes: Tensor) -> Tensor:
    """The class that the model predicts for each sample; the explained one where the output is not (N, classes)."""
    if isinstance(output, Tensor) and output.ndim == 2 and output.shape[1] > 1:
        return output.argmax(1).int().cpu()
    return classes.int()
