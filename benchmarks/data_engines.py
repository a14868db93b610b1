"""Several processes and actors of Ray: units per second, and the CPU time of a unit."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import relprop
from benchmarks.data_figures import Figure, cpu
from relprop.zoo import efficientnet_lite0

UNITS = 6
"""Of each run. CPU time is counted from where each process has done its first."""
_MARK = "RELPROP_BENCH"
"""A variable of the environment that all processes of a run inherit."""


def processes(folder: Path, seconds: float) -> Iterator[Figure]:
    """One process against two, by the clock and by CPU time."""
    size = source(folder, seconds)
    found = {count: per_unit(folder, size, {"processes": count}) for count in (1, 2)}
    what = f"two processes against one, units per second, {UNITS} units of {size} samples"
    yield Figure(what, found[1][0] / found[2][0], ">=", 1.8, digits=2, why="on two idle cores")
    yield Figure("CPU time of a unit, two processes over one", found[2][1] / found[1][1], "<=", 1.05, digits=3)


def ray(folder: Path, seconds: float) -> Iterator[Figure]:
    """Two actors of Ray against two processes."""
    what = "CPU time of a unit, two actors of Ray with all that Ray runs over two processes"
    try:
        import ray as library
        import ray.data
    except ModuleNotFoundError as error:
        yield Figure(what, None, "<=", 1.05, digits=3, why=f"Ray is not installed ({error.name})")
        return
    size = source(folder, seconds)
    os.environ[_MARK] = uuid.uuid4().hex  # before Ray starts its processes
    plain = per_unit(folder, size, {"processes": 2})
    actors = per_unit(folder, size, {"processes": 2, "engine": "ray"})
    library.shutdown()
    print(f"CPU time of a unit of {size} samples: {plain[1]:.1f} s with processes, {actors[1]:.1f} s with Ray")
    yield Figure(f"{what}, {UNITS} units of {size} samples", actors[1] / plain[1], "<=", 1.05, digits=3)


def source(folder: Path, seconds: float) -> int:
    """Writes an array of samples, which every process reads by itself; gives the samples of a unit of that CPU time."""
    torch.manual_seed(0)
    some = torch.randn(8, 3, 224, 224)
    model = efficientnet_lite0()
    relprop.attribute(model, some)
    each = min(cpu(lambda: relprop.attribute(model, some)) for _ in range(3)) / len(some)
    size = max(round(seconds / each / 8), 1) * 8
    found = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (UNITS * size, 3, 224, 224))
    for n in range(0, len(found), 8):
        found[n : n + 8] = torch.randn(8, 3, 224, 224).numpy()
    return size


def per_unit(folder: Path, size: int, settings: dict[str, Any]) -> tuple[float, float]:
    """Seconds by the clock and of CPU time for each unit, from where each process has done its first to the end."""
    spent = Spent(os.environ.setdefault(_MARK, uuid.uuid4().hex))
    spent.start()
    place = folder / "-".join(map(str, settings.values()))
    relprop.explain_dataset(
        folder / "x.npy", "efficientnet_lite0", place, batch_size=8, unit=size, progress=False, **settings
    )
    spent.seconds()
    spent.over.set()
    # Ray hands over what is done in heaps, so that the records tell when each unit was written
    written = sorted(path.stat().st_mtime for path in (place / "units").glob("*.json"))
    began, ended, count = written[settings["processes"] - 1], written[-1], len(written) - settings["processes"]
    return (ended - began) / count, (spent.at(ended) - spent.at(began)) / count


class Spent(threading.Thread):
    """Counts the CPU time of this process and of all that have a mark in their environment. Needs /proc.

    It looks every second, so that the time of processes that have ended since counts as well, but for their last second. Whose
    children they are does not matter: those of Ray belong to nobody.

    Args:
        mark: the value of the variable.
    """

    def __init__(self, mark: str) -> None:
        super().__init__(daemon=True)
        self.mark, self.over = f"{_MARK}={mark}".encode(), threading.Event()
        self.ours: set[tuple[str, str]] = set()
        self.ticks: dict[tuple[str, str], int] = {}
        self.lock = threading.Lock()
        self.seen: list[tuple[float, float]] = []

    def run(self) -> None:
        while not self.over.wait(1.0):
            self.seconds()

    def seconds(self) -> float:
        """The seconds of CPU time so far."""
        with self.lock:
            for path in Path("/proc").glob("[0-9]*"):
                try:
                    fields = (path / "stat").read_text().rpartition(")")[2].split()
                    one = (path.name, fields[19])  # with when it began: numbers are used again
                    if one not in self.ours:
                        own = path.name == str(os.getpid())
                        if not own and self.mark not in (path / "environ").read_bytes().split(b"\0"):
                            continue  # or it has just begun, and shows its environment later
                        self.ours.add(one)
                except OSError:
                    continue
                self.ticks[one] = sum(map(int, fields[11:13]))
            found = sum(self.ticks.values()) / os.sysconf("SC_CLK_TCK")
            self.seen.append((time.time(), found))
            return found

    def at(self, when: float) -> float:
        """The seconds of CPU time at a time, between two looks."""
        return float(np.interp(when, *zip(*self.seen, strict=True)))
