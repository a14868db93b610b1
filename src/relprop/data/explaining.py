"""Explains the samples of a unit. A sample at fault is put aside with its reason; the others get what they get without it."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from relprop.attribution import attribute
from relprop.composites import Composite
from relprop.data.items import Item
from relprop.data.keep import Keep, encode
from relprop.data.sample_sources import Source
from relprop.data.store import EXPLAINED, NO_SAMPLE, QUARANTINED, Spec
from relprop.errors import (
    CompositeError,
    InputError,
    ModelStateError,
    NonFiniteError,
    RelpropError,
    RuleError,
    TargetError,
    UnsupportedOperationError,
)
from relprop.results.contrast import target_at
from relprop.results.relevance import Relevance

_OURS = (UnsupportedOperationError, CompositeError, RuleError, ModelStateError)
"""Errors that no sample is at fault for: they stop the run."""
LARGEST = 5
"""How many of the largest outputs are stored."""


@dataclass(frozen=True, eq=False)
class SampleJob:
    """What is done with each sample.

    Attributes:
        model: the network.
        source: the samples.
        target: one target for all samples, "label" for the labels of the source, or a list with one per sample.
        composite: the rules.
        keep: what is kept.
        form: the number format.
        batch: samples per forward pass.
        loaders: threads that read samples ahead.
    """

    model: Any
    source: Source
    target: Any
    composite: Composite | str
    keep: Keep
    form: str
    batch: int
    loaders: int

    @property
    def by_column(self) -> bool:
        """Whether the targets are in a column of the source."""
        return isinstance(self.target, str) and (self.target == "label" or self.target in self.source.columns)

    def target_of(self, number: int, item: Item) -> Any:
        """The target of one sample; None for the predicted class."""
        if self.by_column:
            found = item.label if self.target == "label" else item.columns.get(self.target)
            if found is None:
                raise InputError(f"the sample has no {self.target}, and target={self.target!r} asks for it.")
            return found
        return self.target[number] if isinstance(self.target, list) else self.target

    def attribute(self, items: Sequence[Item], numbers: Sequence[int]) -> Relevance:
        """The explanation of some samples, as one batch."""
        targets = [self.target_of(number, item) for number, item in zip(numbers, items, strict=True)]
        several = isinstance(self.target, list) or self.by_column
        inputs = torch.stack([item.inputs for item in items]).to(_device(self.model))
        return attribute(
            self.model, inputs, targets if several else self.target, composite=self.composite,
            layers=list(self.keep.layers) or None,
        )  # fmt: skip

    def rows(self, result: Relevance) -> dict[str, np.ndarray]:
        """The rows of every array for a batch."""
        if not isinstance(result.values, Tensor):
            raise InputError("runs over data sets are for networks of one tensor.")
        found: dict[str, np.ndarray] = {}
        for name, part in self.keep.parts(result.values, result.layers).items():
            values = part.detach().cpu()
            if not values.is_floating_point():
                found[name] = values.numpy().astype(np.int64)
                continue
            stored, scale = encode(values.float().numpy(), self.form)
            found[name] = stored
            if scale is not None:
                found[f"{name}.scale"] = scale
        count = len(result)
        found["score"] = result.score.detach().cpu().double().numpy()
        found["residual"] = result.residual.detach().cpu().double().numpy()
        classes = [target_at(result.target, n, count) for n in range(count)]
        found["target"] = np.array([c if isinstance(c, int) else -1 for c in classes], np.int64)
        output = result.output
        if isinstance(output, Tensor) and output.ndim == 2:
            values, at = output.detach().cpu().float().sort(dim=1, descending=True, stable=True)
            found["top.index"] = at[:, :LARGEST].numpy().astype(np.int64)
            found["top.value"] = values[:, :LARGEST].numpy()
        found["status"] = np.full(count, EXPLAINED, np.uint8)
        return found


@dataclass
class Done:
    """A unit that was explained, and is not yet written."""

    arrays: dict[str, np.ndarray]
    quarantined: dict[str, str] = field(default_factory=dict)
    batch: int = 0
    composite: str | None = None
    reading: float = 0.0
    explaining: float = 0.0


def specs_of(job: SampleJob) -> tuple[list[Spec], list[int], float]:
    """The arrays of a run, the shape of its inputs, and the seconds per sample, from the first sample that can be explained.

    Raises:
        RelpropError: none of the first samples can be explained; this is the error of the first of them.
    """
    first: Exception | None = None
    for number in range(min(len(job.source), max(job.batch, 16))):
        item = _read(job.source, number)
        try:
            if isinstance(item, str):
                raise InputError(f"sample {job.source.keys[number]!r}: {item}")
            start = time.perf_counter()
            rows = job.rows(job.attribute([item], [number]))
            seconds = time.perf_counter() - start
        except _OURS:
            raise
        except RelpropError as error:
            first = first or error
            continue
        return [_spec(name, part) for name, part in rows.items()], list(item.inputs.shape), seconds
    assert first is not None
    raise first


def explain_unit(
    job: SampleJob,
    samples: range,
    shape: Sequence[int],
    specs: Sequence[Spec],
    size: int,
    condemned: Collection[int] = (),
) -> Done:
    """Explains the samples of one unit, `job.batch` at a time. Those that are condemned are put aside unread.

    Out of memory halves the batch for the rest of the unit; a sample that does not fit alone is put aside.

    Raises:
        RelpropError: what is wrong is not a sample's fault.
    """
    arrays = {spec.name: np.zeros((size, *spec.shape), spec.dtype) for spec in specs}
    for spec in specs:
        if spec.name in ("score", "residual"):
            arrays[spec.name][:] = np.nan
    arrays["status"][:] = NO_SAMPLE
    arrays["status"][: len(samples)] = QUARANTINED
    arrays["target"][:] = -1
    done = Done(arrays, batch=job.batch)
    with ThreadPoolExecutor(job.loaders) as pool:
        ahead: dict[int, Any] = {}
        start = 0
        while start < len(samples):
            began = time.perf_counter()
            stop = min(start + done.batch, len(samples))
            for n in range(start, min(stop + (1 + job.loaders) * job.batch, len(samples))):
                if n not in ahead:
                    ahead[n] = pool.submit(_killer if n in condemned else _read, job.source, samples[n])
            items = [ahead[n].result() for n in range(start, stop)]
            done.reading += time.perf_counter() - began
            began = time.perf_counter()
            try:
                _batch(job, done, start, samples, items, shape)
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                if done.batch == 1:
                    done.quarantined[job.source.keys[samples[start]]] = f"out of memory with one sample: {_said(error)}"
                else:
                    done.batch //= 2
                    continue
            finally:
                done.explaining += time.perf_counter() - began
            for n in range(start, stop):
                del ahead[n]
            start = stop
    return done


def _out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out. On the CPU, torch says so in the message alone."""
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or (not isinstance(error, RelpropError) and "not enough memory" in str(error))


def _batch(job: SampleJob, done: Done, start: int, samples: range, items: list[Any], shape: Sequence[int]) -> None:
    """Explains one batch into the unit's arrays.

    A sample at fault is replaced by another of the batch, so that the others are computed in a batch of the same size.
    """
    numbers = [samples[start + n] for n in range(len(items))]
    bad = {n: reason for n, item in enumerate(items) if (reason := _at_fault(job, numbers[n], item, shape))}
    result: Relevance | None = None
    while len(bad) < len(items):
        good = next(n for n in range(len(items)) if n not in bad)
        chosen = [good if n in bad else n for n in range(len(items))]
        try:
            result = job.attribute([items[n] for n in chosen], [numbers[n] for n in chosen])
            break
        except _OURS:
            raise
        except RelpropError as error:
            found = {
                n: reason for n in range(len(items)) if n not in bad and (reason := _alone(job, items[n], numbers[n]))
            }
            if not found:
                raise error
            bad |= found
    for n, reason in bad.items():
        done.quarantined[job.source.keys[numbers[n]]] = reason
    if result is None:
        return
    done.composite = result.composite.name
    kept = [n for n in range(len(items)) if n not in bad]
    for name, rows in job.rows(result).items():
        done.arrays[name][[start + n for n in kept]] = rows[kept]


def _alone(job: SampleJob, item: Item, number: int) -> str | None:
    """Why a sample cannot be explained by itself; None if it can."""
    try:
        job.attribute([item], [number])
    except _OURS:
        raise
    except RelpropError as error:
        return _said(error)
    return None


def _at_fault(job: SampleJob, number: int, item: Any, shape: Sequence[int]) -> str | None:
    """What is wrong with a sample before the network sees it."""
    if isinstance(item, str):
        return item
    if list(item.inputs.shape) != list(shape):
        return f"its shape is {tuple(item.inputs.shape)}, and that of the run's inputs {tuple(shape)}."
    if item.inputs.is_floating_point() and not bool(torch.isfinite(item.inputs).all()):
        return "it has entries that are NaN or infinite."
    try:
        job.target_of(number, item)
    except (InputError, TargetError, NonFiniteError) as error:
        return _said(error)
    return None


def _read(source: Source, number: int) -> Item | str:
    """A sample, or why it cannot be read."""
    try:
        return source.read(number)
    except MemoryError:
        raise
    except Exception as error:  # whatever a decoder or a data set raises, the sample is at fault
        return _said(error)


def _killer(source: Source, number: int) -> str:
    return "it killed each process that explained it."


def _said(error: BaseException) -> str:
    text = error.message if isinstance(error, RelpropError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def _spec(name: str, rows: np.ndarray) -> Spec:
    """The array of some rows. Axes of one name have one length in the whole store, as xarray wants it."""
    shape = rows.shape[1:]
    if name.startswith("top."):
        names: tuple[str, ...] = ("rank",)
    elif name == "maps" and len(shape) in (2, 3):
        names = ("channel", "height", "width")[-len(shape) :]
    else:
        names = tuple(f"{name.removesuffix('.index').removesuffix('.value')}: axis {n}" for n in range(len(shape)))
    return Spec(name, tuple(shape), str(rows.dtype), names)


def _device(model: Any) -> torch.device:
    first = next(iter(model.parameters()), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if first is None else first.device
