"""Units as rows of Ray Data. Only their numbers travel: actors read the source and write the store themselves."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from relprop.data.leases import Leases
from relprop.data.parallel import loaded
from relprop.data.processing import WAIT, Did, PendingUnits, do_unit, lease_of
from relprop.data.store import Unit
from relprop.optional import library


class Actor:
    """An actor: it loads the network once, and does one unit after the other.

    Args:
        given: the arguments of the run, pickled.
        folder: the run's folder, on a file system that all machines see, or its address.
        threads: threads of torch, as in the process that started the run: other numbers may round otherwise.
        flag: the actor that says whether the run is to stop.
    """

    def __init__(self, given: bytes, folder: str, threads: int, flag: Any) -> None:
        torch.set_num_threads(threads)
        self.job, self.store = loaded(given, folder, 0)
        self.leases, self.flag = Leases(self.store.place).begin(), flag

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Does a unit, unless it is done, another run has it at hand, or the run is to stop."""
        number = int(row["unit"])
        unit = self.store.units()[number]
        found = self._done(number)
        if found is None and not self._stopped() and self.leases.take(lease_of(unit)):
            try:
                found = self._done(number) or do_unit(self.store, self.job, unit, bool(row["first"]))
            finally:
                self.leases.release(lease_of(unit))
        # text alone: Arrow would make one column for each key
        return {"unit": number, "did": json.dumps(None if found is None else vars(found))}

    def _done(self, number: int) -> Did | None:
        """What became of a unit that is done: by an actor that died since, or by another run."""
        record = self.store.record(number)
        if record is None:
            return None
        size = sum(file["bytes"] for file in record["files"].values())
        return Did(number, record["quarantined"], size, {"explaining": record["seconds"]})

    def _stopped(self) -> bool:
        ray = library("ray", "engine='ray' needs Ray", "ray")
        try:
            return bool(ray.get(self.flag.asked.remote()))
        except ray.exceptions.RayError:  # its machine is gone; it is started again elsewhere
            return False


class StopFlag:
    """An actor that says whether the run is to stop."""

    def __init__(self) -> None:
        self._asked = False

    def ask(self) -> None:
        """Asks the run to stop."""
        self._asked = True

    def asked(self) -> bool:
        """Whether somebody did."""
        return self._asked


def process(work: PendingUnits, given: bytes, count: int, gpus: float | None) -> None:
    """Does all units in actors. One that dies is started again, and its unit is done again.

    Units that another run has at hand are waited for, and done here if it is lost.

    Raises:
        RelpropError: as where one process does them.
        ModuleNotFoundError: Ray is not installed.
    """
    ray = library("ray", "engine='ray' needs Ray", "ray")
    library("ray.data", "engine='ray' needs Ray", "ray")
    if not work.todo:
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not ray.is_initialized():
        with _own_handlers():
            ray.init(log_to_driver=False, include_dashboard=False)
    on_gpu = work.store.about["fingerprint"]["device"] == "cuda"
    flag = ray.remote(num_cpus=0, max_restarts=-1)(StopFlag).remote()
    over = threading.Event()

    def pass_on() -> None:
        while not over.wait(WAIT):
            if work.stop():
                flag.ask.remote()

    threading.Thread(target=pass_on, daemon=True).start()
    try:
        left, watch = list(work.todo), Leases(work.store.place)
        while left and not work.stop():
            left = _round(work, left, given, count, (1 if on_gpu else 0) if gpus is None else gpus, flag)
            while left and not work.stop() and not any(watch.lost(lease_of(unit)) for unit in left):
                time.sleep(WAIT)
    finally:
        over.set()
        with suppress(ray.exceptions.RayError):
            ray.kill(flag)


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Keeps what this process does at SIGINT and SIGTERM: Ray would end it."""
    here = threading.current_thread() is threading.main_thread()
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)} if here else {}
    try:
        yield
    finally:
        for one, handler in before.items():
            if handler is not None:
                signal.signal(one, handler)


def _round(work: PendingUnits, todo: list[Unit], given: bytes, count: int, gpus: float, flag: Any) -> list[Unit]:
    """Does these units in actors; gives those that were not done, because another run has them or this one stops."""
    data = library("ray.data", "engine='ray' needs Ray", "ray")
    folder = work.store.folder
    place = str(folder.absolute()) if isinstance(folder, Path) else folder
    rows = [{"unit": unit.number, "first": work.first and n == 0} for n, unit in enumerate(todo)]
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    units = data.from_items(rows, override_num_blocks=len(rows))
    done = units.map(
        Actor, fn_constructor_args=(given, place, torch.get_num_threads(), flag),
        compute=data.ActorPoolStrategy(size=min(count, len(rows))), num_gpus=gpus,  # an actor of a pool may always restart
    )  # fmt: skip
    left = {unit.number: unit for unit in todo}
    for row in done.iter_rows():
        found = json.loads(row["did"])
        if found is not None:
            del left[int(row["unit"])]
            work.finished(Did(**found))
    return list(left.values())
