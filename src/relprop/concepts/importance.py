"""How much each channel, neuron, head or weight of a network mattered over a data set, and masks for pruning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from relprop.attribution import attribute
from relprop.attribution.layers import HEADS, wanted
from relprop.composites import Composite
from relprop.concepts.masks import Importance, ParameterCut
from relprop.concepts.sample_batches import bar, batches, range_of
from relprop.engine.eager import step_by_step
from relprop.engine.undo import Undo
from relprop.errors import InputError
from relprop.signatures import public

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TURNED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
KINDS = {"channels": (*_CONVOLUTIONS, *_TURNED), "neurons": (nn.Linear,)}
"""The modules whose outputs are units, by what is asked for."""
_OUT = ("o_proj", "out_proj", "c_proj", "out_lin", "wo", "dense", "proj")
"""How the projection behind the heads of an attention is called."""


@step_by_step
@public("relprop.importance")
def importance(
    model: nn.Module,
    dataset: Any,
    *,
    of: str = "channels",
    layers: Any = None,
    reduce: str = "size",
    composite: Composite | str = "auto",
    rows: tuple[int, int] | None = None,
    batch_size: int = 32,
    select: Any = None,
    forward_kwargs: dict[str, Any] | None = None,
    progress: bool = False,
) -> Importance:
    """How much each channel, neuron, head or weight mattered over a data set: a ranking, and masks for pruning.

    The importance of a unit is its relevance for the sample's own class, summed over positions and samples (Yeom et al.
    2021). Relevance is conserved from layer to layer, so units of different layers compare as they are.

    Args:
        model: a module. It is not changed.
        dataset: anything with a length and numbers as keys, whose items are `(input, label)`, or an input alone. Then
            the predicted class is explained.
        of: "channels" of convolutions, "neurons" of linear layers (their outputs), "heads" of attentions, or "weights".
        layers: paths, globs or modules to count; None for all of that kind, without the last weighted layer, whose
            outputs are the classes.
        reduce: "size" adds up the absolute value for each sample, so that what speaks against a class counts as well;
            "sum" adds up relevance with its sign. Weights have only the sum of a batch, so for them "size" is that of
            the whole sum.
        composite: the rules.
        rows: the first sample and the one after the last.
        batch_size: samples per pass.
        select: what to explain of an output that is no tensor.
        forward_kwargs: further keyword arguments of the model.
        progress: whether to show a progress bar on stderr (needs tqdm).

    Returns:
        An `Importance`, with `ranking` and `mask`.

    Raises:
        InputError: the model has no such parts, or the data are none.
        RelpropError: as in `attribute`.

    References:
        Yeom et al. 2021, "Pruning by explaining", Pattern Recognition 115; Hatefi et al. 2024 for heads.
    """
    if of not in ("channels", "neurons", "heads", "weights"):
        raise InputError(f"of must be 'channels', 'neurons', 'heads' or 'weights'; got {of!r}.")
    if reduce not in ("sum", "size"):
        raise InputError(f"reduce must be 'sum' or 'size'; got {reduce!r}.")
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise InputError(f"batch_size must be a positive int; got {batch_size!r}.")
    if not isinstance(model, nn.Module):
        raise InputError(f"importance needs a torch.nn.Module; got {type(model).__name__}.")
    start, stop = range_of(dataset, rows)
    paths = _paths(model, of, layers)
    some = batches(dataset, start, stop, batch_size)
    counter = _Counter(model, of, paths, reduce, layers is None)
    for _, inputs, labels in bar(some, stop - start) if progress else some:
        result = attribute(
            model, inputs, labels, composite=composite, layers=None if of == "weights" else paths, weights=of == "weights",
            select=select, forward_kwargs=forward_kwargs,
        )  # fmt: skip
        if not counter.samples:
            counter.begin(result, inputs, forward_kwargs or {})
        counter.add(result, len(inputs))
    return counter.made()


def _paths(model: nn.Module, of: str, layers: Any) -> list[Any]:
    """The layers whose units are counted."""
    if of == "weights":
        if layers is None:
            return []
        return list(wanted(model, layers))
    if of == "heads":
        return [f"*.{HEADS}"] if layers is None else [layers] if isinstance(layers, (str, nn.Module)) else list(layers)
    kinds = KINDS[of]
    if layers is None:
        found = [path for path, m in model.named_modules() if isinstance(m, kinds)]
    else:
        chosen = wanted(model, layers)
        wrong = [path for path, m in chosen.items() if not isinstance(m, kinds)]
        if wrong:
            raise InputError(f"{wrong[0]!r} has no {of}: it is a {type(chosen[wrong[0]]).__name__}.")
        found = list(chosen)
    if not found:
        raise InputError(f"the model has no {of}: it has no {' or '.join(kind.__name__ for kind in kinds)}.")
    return found


class _Counter:
    """Adds up the importance of batch after batch."""

    def __init__(self, model: nn.Module, of: str, paths: list[Any], reduce: str, every: bool) -> None:
        self._model, self._of, self._paths, self._reduce, self._every = model, of, paths, reduce, every
        self._sums: dict[str, Tensor] = {}
        self._cuts: dict[str, list[ParameterCut]] = {}
        self._composite = ""
        self.samples = 0

    def begin(self, result: Any, inputs: Tensor, kwargs: dict[str, Any]) -> None:
        """Finds out, from the first batch, which layers count and what belongs to their units."""
        self._composite = result.composite.name
        if self._of == "weights":
            return
        if self._every and self._of != "heads":
            _, ends = max(
                ((place.index, place.paths) for place, _ in result.rules if place.index is not None), default=(0, ())
            )
            self._paths = [p for p in self._paths if p not in ends and not _idle(result.layers.get(p))]
            if not self._paths:
                raise InputError(
                    f"the only layer with {self._of} is the last one, whose units are the classes; name it in layers=."
                )
        if self._of == "heads":
            self._paths = list(result.layers)
        behind = _followers(self._model, self._paths, inputs, kwargs) if self._of == "channels" else {}
        for path in self._paths:
            if self._of == "heads":
                one = result.layers[path]
                shape = (one[0] if isinstance(one, list) else one).shape
                self._cuts[path] = _projection(self._model, path, shape[1], shape[3])
            else:
                self._cuts[path] = _own(self._model, path) + [
                    c for norm in behind.get(path, []) for c in _own(self._model, norm)
                ]

    def add(self, result: Any, count: int) -> None:
        """Adds a batch."""
        self.samples += count
        if self._of == "weights":
            for name, relevance in result.weights.items():
                if not self._paths or name.rpartition(".")[0] in self._paths:
                    self._sums[name] = self._sums.get(name, 0.0) + relevance.double().cpu()
            return
        for path in self._paths:
            runs = result.layers.get(path, [])
            runs = runs if isinstance(runs, list) else [runs]
            if not runs:
                raise InputError(f"layer {path!r} did not run in the forward of the model.")
            total: Any = sum(self._of_units(path, r.detach().double().cpu()) for r in runs)
            total = total.abs() if self._reduce == "size" else total
            self._sums[path] = self._sums.get(path, 0.0) + total.sum(0)

    def _of_units(self, path: str, relevance: Tensor) -> Tensor:
        """(N, U) from the relevance of a layer."""
        if self._of == "heads":
            return relevance.sum((2, 3))
        axis = relevance.ndim - 1 if self._of == "neurons" else self._channel_axis(path, relevance)
        return relevance.movedim(axis, 1).flatten(2).sum(2) if relevance.ndim > 2 else relevance

    def _channel_axis(self, path: str, relevance: Tensor) -> int:
        module = self._model.get_submodule(path)
        dims = len(module.kernel_size)  # type: ignore[arg-type]
        return relevance.ndim - dims - 1

    def made(self) -> Importance:
        """What was found."""
        if self._of == "weights" and self._reduce == "size":
            self._sums = {name: total.abs() for name, total in self._sums.items()}
        if not self._sums:
            raise InputError(f"no {self._of} of the named layers carried relevance.")
        return Importance(self._of, self._sums, self.samples, self._composite, self._reduce, self._cuts)


def _idle(relevance: Any) -> bool:
    """Whether a layer did not run."""
    return relevance is None or (isinstance(relevance, list) and not relevance)


def _own(model: nn.Module, path: str) -> list[ParameterCut]:
    """The parameters of a module that make its units."""
    module, found = model.get_submodule(path), []
    for name, parameter in module.named_parameters(recurse=False):
        shape = tuple(parameter.shape)
        axis, size = 0, 1
        if isinstance(module, _TURNED) and parameter.ndim > 1:
            if module.groups != 1:
                continue  # one entry along the axis serves a channel of each group
            axis = 1
        found.append(ParameterCut(f"{path}.{name}".lstrip("."), shape, axis, size))
    return found


@torch.no_grad()
def _followers(model: nn.Module, paths: Sequence[str], inputs: Tensor, kwargs: dict[str, Any]) -> dict[str, list[str]]:
    """The BatchNorms that read what a convolution gives: a channel is not gone while they shift it."""
    made: dict[int, tuple[str, Tensor]] = {}
    found: dict[str, list[str]] = {}
    with Undo() as undo:
        for path, module in model.named_modules():
            if path in paths:
                undo.later(
                    module.register_forward_hook(
                        lambda m, a, out, path=path: made.update({id(out): (path, out)})
                    ).remove
                )
            elif isinstance(module, _NORMS) and module.affine:

                def met(m: Any, args: Any, path: str = path) -> None:
                    maker = made.get(id(args[0])) if args else None
                    if maker is not None:
                        found.setdefault(maker[0], []).append(path)

                undo.later(module.register_forward_pre_hook(met).remove)
        model(inputs, **kwargs)
    return found


def _projection(model: nn.Module, path: str, heads: int, features: int) -> list[ParameterCut]:
    """The columns of the projection behind the heads of an attention; none if it is not known."""
    inner = path.removesuffix(HEADS).rstrip(".")
    for where in dict.fromkeys((inner, inner.rpartition(".")[0])):
        fitting = list(_projections(model.get_submodule(where) if where else model, heads * features))
        for name, shape, axis in fitting:
            return [ParameterCut(f"{where}.{name}.weight".lstrip("."), shape, axis, features)]
    return []


def _projections(module: nn.Module, size: int) -> Iterator[tuple[str, tuple[int, ...], int]]:
    for wanted_name in _OUT:
        for name, part in module.named_modules():
            weight = getattr(part, "weight", None)
            if name.rpartition(".")[2] != wanted_name or not isinstance(weight, Tensor) or weight.ndim != 2:
                continue
            axis = 1 if isinstance(part, nn.Linear) else 0  # GPT-2's layers hold their weight transposed
            if weight.shape[axis] == size and math.prod(weight.shape) > size:
                yield name, tuple(weight.shape), axis
