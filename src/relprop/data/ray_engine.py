"""Units as rows of Ray Data. Only their numbers travel: actors read the source and write the store themselves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from relprop.data.parallel import loaded
from relprop.data.processing import Did, PendingUnits, do_unit
from relprop.optional import library


class Actor:
    """An actor: it loads the network once, and does one unit after the other.

    Args:
        given: the arguments of the run, pickled.
        folder: the run's folder, on a file system that all machines see.
        threads: threads of torch, as in the process that started the run: other numbers may round otherwise.
    """

    def __init__(self, given: bytes, folder: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.job, self.store = loaded(given, Path(folder), 0)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Does a unit, unless an actor that died had finished it."""
        number = int(row["unit"])
        record = self.store.record(number)
        if record is not None:
            size = sum(file["bytes"] for file in record["files"].values())
            return _row(Did(number, record["quarantined"], size, {"explaining": record["seconds"]}))
        return _row(do_unit(self.store, self.job, self.store.units()[number], bool(row["first"])))


def _row(did: Did) -> dict[str, Any]:
    """A row with text alone: Arrow would make one column for each key."""
    return {"did": json.dumps(vars(did))}


def process(work: PendingUnits, given: bytes, count: int, gpus: float | None) -> None:
    """Does all units in actors. One that dies is started again, and its unit is done again.

    Raises:
        RelpropError: as where one process does them.
        ModuleNotFoundError: Ray is not installed.
    """
    ray = library("ray", "engine='ray' needs Ray", "ray")
    data = library("ray.data", "engine='ray' needs Ray", "ray")
    if not work.todo:
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    on_gpu = work.store.about["fingerprint"]["device"] == "cuda"
    folder = str(work.store.folder.absolute())
    rows = [{"unit": unit.number, "first": work.first and n == 0} for n, unit in enumerate(work.todo)]
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    units = data.from_items(rows, override_num_blocks=len(rows))
    done = units.map(
        Actor, fn_constructor_args=(given, folder, torch.get_num_threads()), compute=data.ActorPoolStrategy(size=count),
        num_gpus=(1 if on_gpu else 0) if gpus is None else gpus, max_restarts=-1, max_task_retries=-1,
    )  # fmt: skip
    for row in done.iter_rows():
        work.finished(Did(**json.loads(row["did"])))
