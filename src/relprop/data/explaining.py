"""Explains the samples of a unit. A sample at fault is put aside with its reason; the others get what they get without it."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from relprop.data.items import Item
from relprop.data.sample_job import SampleJob, spec_of
from relprop.data.sample_sources import Source
from relprop.data.sample_streams import SampleStream
from relprop.data.shards import Spec
from relprop.data.store import NO_SAMPLE, QUARANTINED
from relprop.errors import (
    CompositeError,
    InputError,
    ModelStateError,
    RelpropError,
    RuleError,
    UnsupportedOperationError,
)

_OURS = (UnsupportedOperationError, CompositeError, RuleError, ModelStateError)
"""Errors that no sample is at fault for: they stop the run."""
_CELLS = 1.15
"""The most cells of a batch of texts for each token of theirs."""


@dataclass
class Done:
    """A unit that was explained, and is not yet written."""

    arrays: dict[str, np.ndarray]
    quarantined: dict[str, str] = field(default_factory=dict)
    batch: int = 0
    composite: str | None = None
    reading: float = 0.0
    explaining: float = 0.0

    def refuse(self, key: str, reason: str) -> None:
        """Notes a sample that is not explained, and why."""
        self.quarantined[key] = reason

    def fill(self, name: str, places: Sequence[int], rows: Any) -> None:
        """Writes rows of an array into their places."""
        self.arrays[name][places] = rows

    def chose(self, composite: str | None) -> None:
        """Notes the composite that acted."""
        self.composite = composite


def specs_of(job: SampleJob) -> tuple[list[Spec], list[int], float]:
    """The arrays of a run, the shape of its inputs, and the seconds per sample, from the first sample that can be explained.

    Raises:
        RelpropError: none of the first samples can be explained; this is the error of the first of them.
    """
    first: Exception | None = None
    count = max(job.batch, 16)
    for number in range(
        job.source.take(count) if isinstance(job.source, SampleStream) else min(len(job.source), count)
    ):
        item = _read(job.source, number)
        try:
            if isinstance(item, str):
                raise InputError(f"sample {job.source.keys[number]!r}: {item}")
            start = time.perf_counter()
            rows = job.rows(job.explained([item], [number]))
            seconds = time.perf_counter() - start
        except _OURS:
            raise
        except RelpropError as error:
            first = first or error
            continue
        specs = [spec_of(name, part, job.asked.several, job.by_length) for name, part in rows.items()]
        return specs, job.shape(item), seconds
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

        def read(places: Sequence[int]) -> None:
            for n in places:
                if n not in ahead:
                    ahead[n] = pool.submit(_killer if n in condemned else _read, job.source, samples[n])

        order = list(range(len(samples)))
        if job.by_length:
            began = time.perf_counter()
            read(order)
            order.sort(key=lambda n: (_length(ahead[n].result()), n))
            done.reading += time.perf_counter() - began
        start = 0
        while start < len(order):
            began = time.perf_counter()
            places = order[start : start + done.batch]
            if job.by_length:
                places = places[: _padded_little([_length(ahead[n].result()) for n in places])]
            read(order[start : start + done.batch + job.batch])
            items = [ahead.pop(n).result() for n in places]
            done.reading += time.perf_counter() - began
            began = time.perf_counter()
            try:
                items = job.packed(items)
                _batch(job, done, places, [samples[n] for n in places], items, shape)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error) or not job.halving:
                    raise
                if done.batch == 1:
                    key = job.source.keys[samples[places[0]]]
                    done.quarantined[key] = f"out of memory with one sample: {_said(error)}"
                else:
                    done.batch //= 2
                    ahead |= {n: _there(item) for n, item in zip(places, items, strict=True)}
                    continue
            finally:
                done.explaining += time.perf_counter() - began
            start += len(places)
    return done


def _there(item: Item | str) -> Future[Item | str]:
    """A sample that was read, in the place of the reading."""
    found: Future[Item | str] = Future()
    found.set_result(item)
    return found


def _padded_little(lengths: Sequence[int]) -> int:
    """How many of the first texts, from short to long, fit into a batch without much padding; at least one."""
    total = np.cumsum(lengths)
    fits = np.asarray(lengths) * np.arange(1, len(lengths) + 1) <= _CELLS * total
    return max(int(np.flatnonzero(fits)[-1]) + 1 if fits.any() else 1, 1)


def _length(item: Item | str) -> int:
    return 0 if isinstance(item, str) else len(item.inputs)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out. On the CPU, torch says so in the message alone."""
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or (not isinstance(error, RelpropError) and "not enough memory" in str(error))


def _batch(
    job: SampleJob, done: Done, places: Sequence[int], numbers: Sequence[int], items: list[Any], shape: Sequence[int]
) -> None:
    """Explains one batch into the unit's arrays, at these places.

    A sample at fault is replaced by another of the batch, so that the others are computed in a batch of the same size.
    """
    bad = {n: reason for n, item in enumerate(items) if (reason := _at_fault(job, numbers[n], item, shape))}
    results: Sequence[Any] = ()
    while len(bad) < len(items):
        good = next(n for n in range(len(items)) if n not in bad)
        chosen = [good if n in bad else n for n in range(len(items))]
        try:
            results = job.explained([items[n] for n in chosen], [numbers[n] for n in chosen])
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
        done.refuse(job.source.keys[numbers[n]], reason)
    if not results:
        return
    done.chose(job.composite_of(results))
    kept = [n for n in range(len(items)) if n not in bad]
    for name, rows in job.rows(results).items():
        done.fill(name, [places[n] for n in kept], rows[kept])


def _alone(job: SampleJob, item: Item, number: int) -> str | None:
    """Why a sample cannot be explained by itself; None if it can."""
    try:
        job.explained([item], [number])
    except _OURS:
        raise
    except RelpropError as error:
        return _said(error)
    return None


def _at_fault(job: SampleJob, number: int, item: Any, shape: Sequence[int]) -> str | None:
    """What is wrong with a sample before the network sees it."""
    if isinstance(item, str):
        return item
    try:
        job.check(number, item, shape)
    except RelpropError as error:
        return _said(error)
    return None


def _read(source: Source | SampleStream, number: int) -> Item | str:
    """A sample, or why it cannot be read."""
    try:
        return source.read(number)
    except MemoryError:
        raise
    except Exception as error:  # whatever a decoder or a data set raises, the sample is at fault
        return _said(error)


def _killer(source: Source | SampleStream, number: int) -> str:
    return "it killed each process that explained it."


def _said(error: BaseException) -> str:
    text = error.message if isinstance(error, RelpropError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
