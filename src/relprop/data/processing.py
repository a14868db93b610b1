"""Does the units of a run that are not done, one after the other, and says how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from relprop.data.explaining import Done, Job, explain_unit
from relprop.data.store import Store, Unit
from relprop.errors import InputError
from relprop.rendering.visible import quoted

_FEW_BAD = 10
"""A share of a small source would allow none: so many samples may be quarantined whatever the share."""


def part_of(part: Any) -> Callable[[int], bool]:
    """Which units a part has.

    Raises:
        InputError: it is not a part.
    """
    if part is None:
        return lambda number: True
    pieces = part.split("/") if isinstance(part, str) else part
    try:
        i, n = (int(piece) for piece in pieces)
    except (TypeError, ValueError):
        raise InputError(f"part is (i, n) or 'i/n', such as '3/16'; got {part!r}.") from None
    if not 1 <= i <= n:
        raise InputError(f"part {i}/{n}: parts are counted from 1 to {max(n, 1)}.")
    return lambda number: number % n == i - 1


def process(
    store: Store, job: Job, mine: Callable[[int], bool], max_bad: float, retry_bad: bool, say: Callable[[str], None]
) -> None:
    """Does the units that are not done."""
    store.tidy()
    done, units = store.done(), store.units()
    if retry_bad:
        for unit in units:
            if unit.number in done and mine(unit.number) and (store.record(unit.number) or {}).get("quarantined"):
                store.record_path(unit.number).unlink()
                done.discard(unit.number)
    todo = [unit for unit in units if unit.number not in done and mine(unit.number)]
    finished = sum(len(unit.samples) for unit in units if unit.number in done)
    say(f"{finished} of {len(job.source)} samples are done; {sum(len(unit.samples) for unit in todo)} are to do here.")
    allowed = allowed_of(max_bad, len(job.source))
    bad = sum(len(record["quarantined"]) for record in store.records()) if done else 0
    began, did = time.perf_counter(), 0
    for unit in todo:
        start = time.perf_counter()
        result = explain_unit(job, unit.samples, store.about["input_shape"], store.specs, store.size)
        if not done and len(result.quarantined) == len(unit.samples):
            key, why = next(iter(result.quarantined.items()))
            raise InputError(
                f"no sample of the first unit can be explained, so none is put aside. The first is {quoted(key)}: {why}"
            )
        _write(store, job, unit, result, start)
        done.add(unit.number)
        did += len(unit.samples)
        bad += len(result.quarantined)
        slow = "reading" if result.reading > result.explaining else "explaining"
        rate = did / (time.perf_counter() - began)
        left = sum(len(u.samples) for u in todo) - did
        say(
            f"{did} done, {left} to do, {bad} bad, {rate:.1f} samples/s, {left / rate:.0f} s to go, most time in {slow}"
        )
        if bad > allowed:
            key, why = next(iter(result.quarantined.items()), ("", ""))
            raise InputError(
                f"{bad} samples are quarantined, more than max_bad allows ({allowed}). The last: {quoted(key)}: {why} "
                "What is done stays; a larger max_bad lets it continue."
            )


def allowed_of(max_bad: Any, count: int) -> int:
    """How many samples may be quarantined."""
    if isinstance(max_bad, bool) or not isinstance(max_bad, (int, float)) or max_bad < 0:
        raise InputError(f"max_bad is a share such as 0.01, or a number of samples; got {max_bad!r}.")
    if isinstance(max_bad, int):
        return max_bad
    if max_bad > 1:
        raise InputError(f"max_bad as a share is at most 1.0; got {max_bad!r}. For a number of samples give an int.")
    return max(_FEW_BAD, int(max_bad * count))


def _write(store: Store, job: Job, unit: Unit, result: Done, start: float) -> None:
    about = {
        "quarantined": result.quarantined, "batch": result.batch, "composite": result.composite,
        "seconds": round(time.perf_counter() - start, 3),
    }  # fmt: skip
    store.commit(unit, [job.source.keys[n] for n in unit.samples], result.arrays, about)
