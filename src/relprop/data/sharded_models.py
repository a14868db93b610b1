"""Runs of a model that is spread over the processes of a group, as by `fully_shard` or tensor parallelism.

Every process calls `explain_dataset` with the same arguments and computes the same batches; the first one writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from torch import nn

from relprop.data.explaining import explain_unit, specs_of
from relprop.data.preparing import opened
from relprop.data.processing import PendingUnits, check_first, written
from relprop.data.run_descriptions import RUN
from relprop.data.run_places import RunPlace
from relprop.data.sample_job import SampleJob
from relprop.data.store import Store
from relprop.errors import InputError


def is_sharded(model: Any) -> bool:
    """Whether each process of a group holds a part of the model's weights alone."""
    grouped = dist.is_available() and dist.is_initialized()
    return grouped and isinstance(model, nn.Module) and any(hasattr(p, "to_local") for p in model.parameters())


def is_dispatched(model: Any) -> bool:
    """Whether the model lies on several devices of this process, as by `device_map`."""
    if not isinstance(model, nn.Module):
        return False
    return hasattr(model, "hf_device_map") or len({p.device for p in model.parameters()}) > 1


def process_sharded(
    place: RunPlace, job: SampleJob, prints: dict[str, Any], unit: int | None, say: Callable[[str], None],
    pending: Callable[[Store], PendingUnits],
) -> None:  # fmt: skip
    """Does all units, in all processes of the group together.

    Args:
        place: where the run is, which all processes see.
        job: what is done with each sample.
        prints: the fingerprint of the run.
        unit: samples per unit, or None.
        say: is called with each line of progress, in the first process.
        pending: gives the units that are to do; the first process calls it.

    Raises:
        RelpropError: what a single process would raise. What the first process raises, all raise.
    """
    there = _first_does(lambda: place.exists(RUN))
    specs = None if there else specs_of(job)
    work: list[PendingUnits] = []

    def begin() -> tuple[list[int], bool]:
        work.append(pending(opened(place, job, prints, unit, say, specs)))
        return [one.number for one in work[0].todo], work[0].first

    todo, first = _first_does(begin)
    store = Store(place)
    units = store.units()
    for number in todo:
        if _first_does(lambda: work[0].stop()):
            return
        started = time.perf_counter()
        done = explain_unit(job, units[number].samples, store.about["input_shape"], store.specs, store.size)
        if first:
            check_first(done, units[number])
        first = False
        _first_does(lambda: work[0].finished(written(store, job, units[number], done, started)))  # noqa: B023


def check_alone(**given: Any) -> None:
    """Refuses what a sharded model cannot have.

    Raises:
        InputError: one is given.
    """
    for name, value in given.items():
        if value:
            raise InputError(
                f"the model is spread over the processes of a group, which work together: leave out {name}=."
            )


def _first_does(act: Callable[[], Any]) -> Any:
    """What the first process finds, in all of them; or its error."""
    found: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            found[0] = act()
        except Exception as error:  # the others would wait for ever
            found[1] = error
    dist.broadcast_object_list(found, src=0)
    if found[1] is not None:
        raise found[1]
    return found[0]
