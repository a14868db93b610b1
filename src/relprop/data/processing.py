"""Does the units of a run that are not done, one after the other, and says how far it is."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from relprop.data.explaining import Done, explain_unit
from relprop.data.leases import Leases
from relprop.data.sample_job import SampleJob
from relprop.data.store import Store, Unit
from relprop.errors import InputError
from relprop.rendering.visible import quoted

_FEW_BAD = 10
"""A share of a small source would allow none: so many samples may be quarantined whatever the share."""
WAIT = 0.2
"""Seconds until units that other runs have at hand are looked at again."""
_LAST = 60.0
"""Seconds of which the speed is told."""


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


def allowed_of(max_bad: Any, count: int) -> int:
    """How many samples may be quarantined."""
    if isinstance(max_bad, bool) or not isinstance(max_bad, (int, float)) or max_bad < 0:
        raise InputError(f"max_bad is a share such as 0.01, or a number of samples; got {max_bad!r}.")
    if isinstance(max_bad, int):
        return max_bad
    if max_bad > 1:
        raise InputError(f"max_bad as a share is at most 1.0; got {max_bad!r}. For a number of samples give an int.")
    return max(_FEW_BAD, int(max_bad * count))


class ProgressLine(str):
    """A line of progress; `data` has its numbers."""

    data: dict[str, Any]

    def __new__(cls, text: str, data: dict[str, Any]) -> ProgressLine:
        """The line, with its numbers."""
        made = super().__new__(cls, text)
        made.data = data
        return made


@dataclass(frozen=True)
class Did:
    """What became of a unit.

    Attributes:
        unit: its number.
        quarantined: the samples that were put aside, and why.
        bytes: what it takes on disk.
        seconds: what reading, explaining and writing took.
    """

    unit: int
    quarantined: dict[str, str]
    bytes: int
    seconds: dict[str, float]


class PendingUnits:
    """The units that are to do, and how many were put aside.

    Args:
        store: the run.
        count: the samples of the source; None if it does not tell.
        mine: which units are to do here.
        max_bad: samples that may be quarantined, as a share or a number.
        retry_bad: whether to do again what has quarantined samples.
        say: is called with each line of progress.
        stop: says whether the run is to end after the units at hand; None never does.
    """

    def __init__(
        self, store: Store, count: int | None, mine: Callable[[int], bool], max_bad: Any, retry_bad: bool,
        say: Callable[[str], None], stop: Callable[[], bool] | None = None,
    ) -> None:  # fmt: skip
        store.place.tidy()
        self.store, self.say, self.max_bad, self.count = store, say, max_bad, count
        self.stop = stop or (lambda: False)
        done, units = store.done(), store.units()
        if retry_bad:
            for unit in units:
                if unit.number in done and mine(unit.number) and (store.record(unit.number) or {}).get("quarantined"):
                    store.forget(unit.number)
                    done.discard(unit.number)
        self.units = {unit.number: unit for unit in units}
        self.todo = [unit for unit in units if unit.number not in done and mine(unit.number)]
        self.first = not done
        self.bad = sum(len(record["quarantined"]) for record in store.records()) if done else 0
        self.left, self.did, self.bytes = sum(len(unit.samples) for unit in self.todo), 0, 0
        self.began = time.perf_counter()
        self.last: deque[tuple[float, int]] = deque([(self.began, 0)])
        self.seconds: dict[str, float] = {}
        finished = sum(len(unit.samples) for unit in units if unit.number in done)
        if count is None:
            say(f"{finished} samples are done; the source does not tell how many there are.")
        else:
            say(f"{finished} of {count} samples are done; {self.left} are to do here.")

    def add(self, unit: Unit) -> None:
        """Adds a unit of samples that have come."""
        self.units[unit.number] = unit
        self.todo.append(unit)
        self.left += len(unit.samples)

    def elsewhere(self, unit: Unit, record: dict[str, Any]) -> None:
        """Counts a unit that another run on this folder has done meanwhile."""
        self.first = False
        self.left -= len(unit.samples)
        self.bad += len(record["quarantined"])

    def finished(self, did: Did) -> None:
        """Counts a unit, and says how far the run is.

        Raises:
            InputError: too many samples were quarantined.
        """
        self.first = False
        count = len(self.units[did.unit].samples)
        self.did, self.left, self.bytes = self.did + count, self.left - count, self.bytes + did.bytes
        self.bad += len(did.quarantined)
        for name, value in did.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value
        now = time.perf_counter()
        self.last.append((now, self.did))
        while len(self.last) > 2 and now - self.last[1][0] > _LAST:
            self.last.popleft()
        rate = (self.did - self.last[0][1]) / max(now - self.last[0][0], 1e-9)
        slow = max(self.seconds, key=lambda name: self.seconds[name])
        known = self.count is not None
        data = {
            "done": self.did, "left": self.left if known else None, "bad": self.bad, "samples_per_second": rate,
            "seconds_left": self.left / rate if known else None, "bytes": self.bytes, "most_time_in": slow,
        }  # fmt: skip
        left = f"{self.left} to do, " if known else ""
        to_go = f"{self.left / rate:.0f} s to go, " if known else ""
        text = f"{self.did} done, {left}{self.bad} bad, {rate:.1f} samples/s, {to_go}{self.bytes:,} bytes, most time in {slow}"
        self.say(ProgressLine(text, data))
        of = self.count if self.count is not None else sum(len(unit.samples) for unit in self.units.values())
        if self.bad > (allowed := allowed_of(self.max_bad, of)):
            key, why = next(iter(did.quarantined.items()), ("", ""))
            raise InputError(
                f"{self.bad} samples are quarantined, more than max_bad allows ({allowed}). The last: {quoted(key)}: "
                f"{why} What is done stays; a larger max_bad goes on."
            )


def do_unit(store: Store, job: SampleJob, unit: Unit, first: bool, condemned: Collection[int] = ()) -> Did:
    """Explains a unit and writes it.

    Args:
        store: the run.
        job: what is done with its samples.
        unit: which one.
        first: whether no unit is done yet. Then one that is bad as a whole is an error.
        condemned: samples that are put aside because they killed processes, as numbers in the unit.

    Raises:
        RelpropError: what is wrong is no sample's fault.
    """
    start = time.perf_counter()
    result = explain_unit(job, unit.samples, store.about["input_shape"], store.specs, store.size, condemned)
    if first:
        check_first(result, unit)
    return written(store, job, unit, result, start)


def check_first(result: Done, unit: Unit) -> None:
    """Refuses a first unit that is bad as a whole: it is hardly its samples' fault.

    Raises:
        InputError: it is.
    """
    if len(result.quarantined) == len(unit.samples):
        key, why = next(iter(result.quarantined.items()))
        raise InputError(
            f"no sample of the first unit can be explained, so none is put aside. The first is {quoted(key)}: {why}"
        )


def written(store: Store, job: SampleJob, unit: Unit, result: Done, start: float) -> Did:
    """Writes a unit that was explained since a time."""
    writing = time.perf_counter()
    about = {
        "quarantined": result.quarantined, "batch": result.batch, "composite": result.composite,
        "seconds": round(writing - start, 3),
    }  # fmt: skip
    size = store.commit(unit, [job.source.keys[n] for n in unit.samples], result.arrays, about)
    seconds = {"reading": result.reading, "explaining": result.explaining, "writing": time.perf_counter() - writing}
    return Did(unit.number, result.quarantined, size, seconds)


class UnitQueue:
    """The units that are to do, handed out one at a time; those that another run has at hand come last.

    Args:
        work: the units.
        leases: what keeps other runs from the units that are handed out.
    """

    def __init__(self, work: PendingUnits, leases: Leases) -> None:
        self.work, self.leases, self.todo = work, leases, deque(work.todo)

    def __len__(self) -> int:
        return len(self.todo)

    def take(self) -> Unit | None:
        """The next unit; None if other runs have all that are left at hand."""
        for _ in range(len(self.todo)):
            unit = self.todo.popleft()
            mine = self.leases.take(lease_of(unit))
            record = self.work.store.record(unit.number)
            if record is not None:
                self.work.elsewhere(unit, record)
                self.done(unit, mine)
            elif mine:
                return unit
            else:
                self.todo.append(unit)
        return None

    def done(self, unit: Unit, mine: bool = True) -> None:
        """Says that a unit is done."""
        if mine:
            self.leases.release(lease_of(unit))

    def again(self, unit: Unit) -> None:
        """Puts a unit back, to be done next."""
        self.done(unit)
        self.todo.appendleft(unit)


def lease_of(unit: Unit) -> str:
    """The name of the lease on a unit."""
    return f"{unit.number:06d}"


def process(work: PendingUnits, job: SampleJob) -> None:
    """Does all units in this process, until it is to stop."""
    with Leases(work.store.place) as leases:
        queue = UnitQueue(work, leases)
        while queue and not work.stop():
            unit = queue.take()
            if unit is not None:
                work.finished(do_unit(work.store, job, unit, work.first))
                queue.done(unit)
            elif queue:
                time.sleep(WAIT)
