"""Finds how many samples a forward pass should have."""

from __future__ import annotations

import json
import time
from typing import Any

from relprop.data.explaining import out_of_memory
from relprop.data.items import Item
from relprop.data.run_addresses import place_of
from relprop.data.sample_job import SampleJob
from relprop.data.sample_sources import Source
from relprop.errors import InputError, RelpropError

AUTO = "auto"
_MOST = 64
_BETTER = 0.95
"""A batch of twice the size is taken where a sample then takes less than this part of its time."""


def batch_size_of(folder: Any) -> int | None:
    """The batch size of the run in a folder; None if there is no run."""
    try:
        found = json.loads(place_of(folder).read("run.json"))["fingerprint"]["batch_size"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) else None


def suitable_batch(job: SampleJob) -> int:
    """The batch size from which on larger ones are not quicker, or do not fit into memory. At most 64.

    Raises:
        InputError: the source has no length, so that samples come but once.
    """
    if not isinstance(job.source, Source):
        raise InputError(
            "batch_size='auto' tries samples several times, and a source without a length gives each once."
        )
    good: list[tuple[Item, int]] = []
    for number in range(min(len(job.source), 2 * _MOST)):
        if len(good) < _MOST and (item := _read(job, number)) is not None:
            good.append((item, number))
    best, chosen, size = float("inf"), 1, 1
    while size <= len(good):
        seconds = _seconds(job, good[:size])
        if seconds is None or seconds / size > _BETTER * best:
            break
        best, chosen, size = seconds / size, size, 2 * size
    return chosen


def _read(job: SampleJob, number: int) -> Item | None:
    """A sample, or None if it cannot be read."""
    try:
        return job.source.read(number)
    except Exception:  # it is put aside later, with its reason
        return None


def _seconds(job: SampleJob, some: list[tuple[Item, int]]) -> float | None:
    """What a batch takes, the quicker of two times; None if it cannot be explained or does not fit into memory."""
    found: list[float] = []
    for _ in range(2):
        start = time.perf_counter()
        try:
            job.rows(job.explained([item for item, _ in some], [number for _, number in some]))
        except (MemoryError, RuntimeError, RelpropError) as error:
            if isinstance(error, RelpropError) or out_of_memory(error):
                return None
            raise
        found.append(time.perf_counter() - start)
    return min(found)
