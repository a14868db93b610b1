"""Several processes and actors of Ray: units per second, and the CPU time of a unit."""

from __future__ import annotations

import os
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
    os.environ.setdefault(_MARK, uuid.uuid4().hex)
    seen: list[tuple[float, float]] = []

    def said(line: str) -> None:
        if hasattr(line, "data"):
            seen.append((time.perf_counter(), spent(os.environ[_MARK])))

    place = folder / "-".join(map(str, settings.values()))
    relprop.explain_dataset(
        folder / "x.npy", "efficientnet_lite0", place, batch_size=8, unit=size, said=said, **settings
    )
    first = settings["processes"] - 1
    (began, before), (ended, after), count = seen[first], seen[-1], len(seen) - 1 - first
    return (ended - began) / count, (after - before) / count


def spent(mark: str) -> float:
    """The CPU time in seconds of this process and of all that have a mark in their environment. Needs /proc.

    Those that have ended do not count, nor does their parent tell: it need not be one of them.
    """
    total = 0
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.name != str(os.getpid()) and f"{_MARK}={mark}".encode() not in (path / "environ").read_bytes():
                continue
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:13]))
    return total / os.sysconf("SC_CLK_TCK")
