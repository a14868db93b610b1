"""Several processes on one machine. Units are handed out one at a time; a process that dies is started again.

A unit that kills three processes is halved until one sample is left, which is put aside.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import time
from collections import Counter
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

import torch

from relprop.data.explaining import explain_unit
from relprop.data.leases import Leases
from relprop.data.preparing import Given, prepared
from relprop.data.processing import WAIT, PendingUnits, UnitQueue, do_unit
from relprop.data.sample_job import SampleJob
from relprop.data.store import Store, Unit
from relprop.errors import InputError, RelpropError
from relprop.rendering.visible import quoted

_DEATHS = 3
"""How many processes a unit may kill before the sample at fault is looked for, or may die before their first unit."""

_GRACE = 3.0
"""Seconds that processes have to end by themselves, so that they clean up; then they are killed."""


def process(work: PendingUnits, given: bytes, count: int) -> None:
    """Does all units in other processes.

    Raises:
        InputError: processes die before their first unit, or a unit kills them and no sample of it does so alone.
        RelpropError: what a process raised.
    """
    workers, deaths = _Workers(work, given), Counter[int]()
    condemned: dict[int, set[int]] = {}
    busy: dict[_Worker, Unit] = {}
    with Leases(work.store.place) as leases:
        queue = UnitQueue(work, leases)
        try:
            idle = workers.several(min(count, len(queue)))
            while busy or (queue and not work.stop()):
                while idle and not work.stop() and (unit := queue.take()) is not None:
                    worker = idle.pop()
                    worker.send(("unit", unit.number, work.first, sorted(condemned.get(unit.number, ()))))
                    busy[worker] = unit
                if not busy and not work.stop():
                    time.sleep(WAIT if queue else 0)
                for worker in _ready(list(busy), WAIT if queue and idle else None):
                    unit, answer = busy.pop(worker), worker.answer()
                    if answer is not None:
                        work.finished(answer)
                        queue.done(unit)
                        idle.append(worker)
                        continue
                    deaths[unit.number] += 1
                    work.say(f"a process died by {worker.how()} in unit {unit.number} and is started again")
                    if deaths[unit.number] >= _DEATHS:
                        known = condemned.setdefault(unit.number, set())
                        known.add(_culprit(workers, work, unit.number, set(known)))
                    queue.again(unit)
                    if not work.stop():
                        idle.append(workers.start())
        finally:
            workers.stop()


def _culprit(workers: _Workers, work: PendingUnits, number: int, known: set[int]) -> int:
    """The sample of a unit that kills processes, as its number in the unit."""
    low, high = 0, len(work.units[number].samples)
    while high - low > 1:
        middle = (low + high) // 2
        if workers.kills(number, low, middle, known):
            high = middle
        else:
            low = middle
    if not workers.kills(number, low, high, known):
        raise InputError(
            f"unit {number} killed {_DEATHS} processes, and none of its samples does so alone: is memory too small for "
            "batch_size? What is done stays."
        )
    work.say(f"sample {low} of unit {number} in {quoted(work.store.folder)} kills processes and is put aside")
    return low


class _Worker:
    """Another process."""

    def __init__(self, folder: Any, place: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.place = place
        # What is large goes through our own pipe. `start` would wait for ever to hand it to a process that dies meanwhile,
        # because it keeps the other end of its pipe open.
        self.process = context.Process(
            target=_serve, args=(theirs, folder, torch.get_num_threads(), place), daemon=True
        )
        self.process.start()
        theirs.close()

    def send(self, what: Any) -> None:
        """Asks for something; if the process is dead, `answer` says so."""
        try:
            self.pipe.send(what)
        except (BrokenPipeError, ConnectionResetError):
            return

    def answer(self) -> Any:
        """What it found; None if it died.

        Raises:
            RelpropError: what it raised.
        """
        try:
            kind, content = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return None
        if kind == "error":
            raise content
        return content

    def how(self) -> str:
        """How it died."""
        code = self.process.exitcode or 0
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def stop(self, seconds: float) -> None:
        """Ends it. Its pipe is closed: it ends by itself if it waits for work, and by a signal if it is busy for longer."""
        self.process.join(seconds)
        self.process.kill()  # it does not hear signals that it can ignore
        self.process.join()
        self.process.close()


class _Workers:
    """The processes of a run."""

    def __init__(self, work: PendingUnits, given: bytes) -> None:
        self.folder, self.given = work.store.folder, given
        self.all: list[_Worker] = []
        self.trial: _Worker | None = None  # the one that looks for samples that kill

    def several(self, count: int) -> list[_Worker]:
        """So many processes whose networks are loaded. They load at the same time."""
        begun = [self._begin() for _ in range(count)]
        return [worker if self._loaded(worker) else self.start() for worker in begun]

    def start(self) -> _Worker:
        """A process whose network is loaded.

        Raises:
            InputError: it dies before that, again and again.
        """
        for _ in range(_DEATHS):
            worker = self._begin()
            if self._loaded(worker):
                return worker
        raise InputError(
            f"processes die by {worker.how()} before their first unit. Is memory too small for that many networks? In a "
            "script, the call must be under `if __name__ == '__main__':`."
        )

    def _begin(self) -> _Worker:
        places = {worker.place for worker in self.all if worker.process.is_alive()}
        worker = _Worker(self.folder, next(n for n in range(len(places) + 1) if n not in places))
        self.all.append(worker)
        return worker

    def _loaded(self, worker: _Worker) -> bool:
        worker.send(self.given)
        return worker.answer() is not None

    def kills(self, number: int, low: int, high: int, known: set[int]) -> bool:
        """Whether some samples of a unit kill a process."""
        trial = self.trial or self.start()
        trial.send(("try", number, low, high, sorted(known)))
        died = trial.answer() is None
        self.trial = None if died else trial
        return died

    def stop(self) -> None:
        """Ends all of them."""
        end = time.monotonic() + _GRACE
        for worker in self.all:
            worker.pipe.close()
        for worker in self.all:
            worker.stop(max(end - time.monotonic(), 0))


def _ready(workers: list[_Worker], seconds: float | None) -> list[_Worker]:
    by = {worker.pipe: worker for worker in workers}
    return [by[pipe] for pipe in wait(list(by), seconds)] if by else []  # type: ignore[index]


def _serve(pipe: Any, folder: Any, threads: int, place: int) -> None:
    """What another process does: it answers until it is ended."""
    for one in (signal.SIGINT, signal.SIGTERM):  # which may go to all processes: the first one ends the others
        signal.signal(one, signal.SIG_IGN)
    try:
        torch.set_num_threads(threads)
        job, store = loaded(pipe.recv(), folder, place)
        pipe.send(("ready", True))
        while True:
            what, number, *rest = pipe.recv()
            unit = store.units()[number]
            if what == "unit":
                pipe.send(("did", do_unit(store, job, unit, *rest)))
            else:
                low, high, known = rest
                inside = [n - low for n in known if low <= n < high]
                explain_unit(job, unit.samples[low:high], store.about["input_shape"], store.specs, store.size, inside)
                pipe.send(("tried", True))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # nobody listens any more
        return
    except Exception as error:
        with suppress(OSError):
            pipe.send(("error", _portable(error)))


def loaded(given: bytes, folder: Any, place: int) -> tuple[SampleJob, Store]:
    """What a process needs to do units: network and samples, and the store."""
    arguments: Given = pickle.loads(given)
    job, prints = prepared(arguments)
    if prints["device"] == "cuda":
        job.model.to(f"cuda:{place % torch.cuda.device_count()}")
    return job, Store(folder)


def _portable(error: Exception) -> Exception:
    """An error that can be sent to the first process."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:  # whatever an object raises
        return RelpropError(f"{type(error).__name__}: {error}")
