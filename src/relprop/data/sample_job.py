"""What is done with each sample of a run: it is explained, and its explanation becomes rows of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from relprop.attribution import attribute, attribute_each
from relprop.composites import Composite
from relprop.data.asked_targets import AskedTargets, largest
from relprop.data.items import Item
from relprop.data.keep import Keep, encode
from relprop.data.sample_sources import Source
from relprop.data.sample_streams import SampleStream
from relprop.data.shards import Spec
from relprop.data.store import EXPLAINED
from relprop.errors import InputError
from relprop.results.contrast import target_at
from relprop.results.ledger import CAUSES, OTHER
from relprop.results.relevance import Relevance

LARGEST = 5
"""How many of the largest outputs are stored."""
LEDGER = (*dict.fromkeys(CAUSES.values()), OTHER)
"""The causes of the array `ledger`, in the order of its last axis."""
PER_TARGET = ("maps", "decoder", "score", "residual", "target", "ledger")
"""The arrays that have an axis of targets where several are explained, besides those of layers."""


@dataclass(frozen=True, eq=False)
class SampleJob:
    """What is done with each sample.

    Attributes:
        model: the network.
        source: the samples.
        asked: what is explained of each.
        composite: the rules.
        keep: what is kept.
        form: the number format.
        batch: samples per forward pass.
        loaders: threads that read samples ahead.
        ledger: whether the causes of residuals are kept.
        halving: whether a batch is halved where memory runs out; a sharded model's processes would part ways.
    """

    model: Any
    source: Source | SampleStream
    asked: AskedTargets
    composite: Composite | str
    keep: Keep
    form: str
    batch: int
    loaders: int
    ledger: bool = False
    halving: bool = True

    by_length = False
    """Whether the samples of a unit are explained in the order of their lengths."""

    def shape(self, item: Item) -> list[int]:
        """The shape of the inputs of a run whose first sample this is."""
        return list(item.inputs.shape)

    def check(self, number: int, item: Item, shape: Sequence[int]) -> None:
        """Refuses a sample before the network sees it.

        Raises:
            InputError: it has another shape than the others, entries that are no numbers, or no target.
        """
        if list(item.inputs.shape) != list(shape):
            raise InputError(f"its shape is {tuple(item.inputs.shape)}, and that of the run's inputs {tuple(shape)}.")
        if not _finite(item.inputs):
            raise InputError("it has entries that are NaN or infinite.")
        self.asked.check(number, item, self.source.columns)

    def packed(self, items: Sequence[Any]) -> list[Any]:
        """The samples of a batch with their inputs in one tensor, so that no other copy of them is kept while they are explained."""
        inputs = [item.inputs for item in items if isinstance(item, Item) and isinstance(item.inputs, Tensor)]
        if len(inputs) < len(items) or len({(t.shape, t.dtype) for t in inputs}) > 1:
            return list(items)
        return [replace(item, inputs=row) for item, row in zip(items, torch.stack(inputs), strict=True)]

    def explained(self, items: Sequence[Item], numbers: Sequence[int]) -> list[Relevance]:
        """The explanations of some samples, as one batch: one for each target."""
        inputs = _together([item.inputs for item in items]).to(_device(self.model))
        settings: dict[str, Any] = {
            "composite": self.composite, "layers": list(self.keep.layers) or None, "ledger": self.ledger,
        }  # fmt: skip
        if self.asked.top is not None:
            first = attribute(self.model, inputs, **settings)
            return largest(first, self.asked.top, lambda rest: attribute_each(self.model, inputs, rest, **settings))
        targets = self.asked.for_batch(items, numbers, self.source.columns)
        if len(targets) == 1:
            return [attribute(self.model, inputs, targets[0], **settings)]
        return attribute_each(self.model, inputs, targets, **settings)

    def composite_of(self, results: Sequence[Any]) -> str:
        """The name of the composite that acted."""
        return str(results[0].composite.name)

    def rows(self, results: Sequence[Relevance]) -> dict[str, np.ndarray]:
        """The rows of every array for a batch."""
        found = joined([self._rows(result) for result in results], self.asked.several, self.form)
        output = results[0].output
        if isinstance(output, Tensor) and output.ndim == 2:
            found |= top_outputs(output)
        found["status"] = np.full(len(results[0]), EXPLAINED, np.uint8)
        return found

    def _rows(self, result: Relevance) -> dict[str, np.ndarray]:
        """The rows of one target, not yet encoded."""
        if not isinstance(result.values, Tensor):
            raise InputError("runs over data sets are for networks of one tensor.")
        found = {name: as_array(part) for name, part in self.keep.parts(result.values, result.layers).items()}
        classes = [target_at(result.target, n, len(result)) for n in range(len(result))]
        return found | numbers_of(result, classes, self.ledger)


def numbers_of(result: Relevance, targets: Sequence[Any], ledger: bool) -> dict[str, np.ndarray]:
    """The numbers that every run has of an explanation, and the causes of its residual."""
    found = {
        "score": result.score.detach().cpu().double().numpy(),
        "residual": result.residual.detach().cpu().double().numpy(),
        "target": np.array([c if isinstance(c, int) else -1 for c in targets], np.int64),
    }
    if ledger:
        found["ledger"] = np.zeros((len(targets), len(LEDGER)))
        for cause, absorbed in result.ledger.items():
            found["ledger"][:, LEDGER.index(cause)] = absorbed.detach().cpu().double().numpy()
    return found


def top_outputs(output: Tensor) -> dict[str, np.ndarray]:
    """The largest outputs of each sample, and which they are."""
    values, at = output.detach().cpu().float().sort(dim=1, descending=True, stable=True)
    return {"top.index": at[:, :LARGEST].numpy().astype(np.int64), "top.value": values[:, :LARGEST].numpy()}


def joined(parts: Sequence[dict[str, np.ndarray]], several: bool, form: str) -> dict[str, np.ndarray]:
    """The rows of all targets as they are stored. With several, their axis follows that of the samples."""
    found: dict[str, np.ndarray] = {}
    for name in parts[0]:
        values = np.stack([part[name] for part in parts], 1) if several else parts[0][name]
        if values.dtype != np.float32:  # numbers of a sample are float64, indices are ints
            found[name] = values
            continue
        flat = values.reshape(-1, *values.shape[2:]) if several else values
        stored, scale = encode(flat, form)
        found[name] = stored.reshape(values.shape)
        if scale is not None:
            found[f"{name}.scale"] = scale.reshape(values.shape[:2]) if several else scale
    return found


def as_array(part: Tensor) -> np.ndarray:
    """A tensor as float32, or as int64 if it holds indices."""
    values = part.detach().cpu()
    return values.float().numpy() if values.is_floating_point() else values.numpy().astype(np.int64)


def spec_of(name: str, rows: np.ndarray, several: bool, text: bool = False) -> Spec:
    """The array of some rows. Axes of one name have one length in the whole store, as xarray wants it."""
    shape = rows.shape[1:]
    names: tuple[str, ...] = ()
    if several and (name.startswith("layers.") or name.removesuffix(".scale") in PER_TARGET):
        names, shape = ("targets",), shape[1:]
    if name.startswith("top."):
        names += ("rank",)
    elif name == "ledger":
        names += ("cause",)
    elif text and (name == "maps" or name.startswith("tokens.")):
        names += ("token",)[: len(shape)]
    elif name == "maps" and len(shape) in (2, 3):
        names += ("channel", "height", "width")[-len(shape) :]
    else:
        names += tuple(f"{name.removesuffix('.index').removesuffix('.value')}: axis {n}" for n in range(len(shape)))
    return Spec(name, tuple(rows.shape[1:]), str(rows.dtype), names)


def _together(rows: list[Tensor]) -> Tensor:
    """Inputs as one tensor: the one whose rows they are, if they are all of them in order."""
    whole = rows[0]._base
    if whole is not None and len(whole) == len(rows):
        same = (
            row._base is whole and row.data_ptr() == place.data_ptr() for row, place in zip(rows, whole, strict=True)
        )
        if whole.shape[1:] == rows[0].shape and all(same):
            return whole
    return torch.stack(rows)


def _finite(values: Tensor) -> bool:
    """Whether no entry is NaN or infinite. One that is would make the sum so, which takes a twentieth of the time."""
    if not values.is_floating_point():
        return True
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())


def _device(model: Any) -> torch.device:
    first = next(iter(model.parameters()), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if first is None else first.device
