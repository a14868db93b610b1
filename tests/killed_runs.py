"""Kills runs at random moments until each is done, and compares what they leave with a run that nobody disturbed.

    python tests/killed_runs.py FOLDER KILLS

Processes are ended by a timer of the CPU time that they spend, so that a slow machine makes as much progress between two
kills as a fast one. The signal has no handler: the process ends wherever it is, without any cleaning up.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import torch
import torch.fx.experimental.symbolic_shapes  # with zarr, what a run would import: once here, and not in each process
import zarr  # noqa: F401
from torch import nn

import relprop
import relprop.data

ARGUMENTS = {"batch_size": 2, "unit": 4, "keep": {"input": "sum", "0": "channels"}, "progress": False}


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    return nn.Sequential(*layers).eval()


def samples() -> torch.Tensor:
    return torch.randn(60, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def shards(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "maps.zarr").rglob("*"))
        if path.is_file()
    }


def once(folder: Path, seconds: float | None) -> int:
    """Starts a run in a process of its own; returns the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        if seconds is not None:
            signal.setitimer(signal.ITIMER_PROF, seconds)
        relprop.explain_dataset(samples(), network(), folder, **ARGUMENTS)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def together(folder: Path, count: int) -> None:
    """Starts that many processes at once on an empty path."""
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            relprop.explain_dataset(samples(), network(), folder, **ARGUMENTS)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * count


def check(folder: Path, expected: dict[str, bytes]) -> None:
    run = relprop.open_run(folder)
    assert run.keys() == [str(n) for n in range(60)]
    assert set(run.table["status"]) == {1}
    assert not run.verify()
    found = shards(folder)
    assert {name for name in found if not name.rpartition("/")[2].startswith(".")} == set(expected)
    assert all(found[name] == content for name, content in expected.items())


def main(folder: Path, wanted: int) -> None:
    torch.set_num_threads(1)
    assert once(folder / "undisturbed", None) == 0
    expected = shards(folder / "undisturbed")
    together(folder / "together", 10)
    check(folder / "together", expected)
    chance, kills, runs = random.Random(wanted), 0, 0
    while kills < wanted:
        place, during = folder / f"run {runs}", 0
        while once(place, chance.uniform(0.02, 0.25)):
            during += 1
            if (place / "run.json").exists():
                relprop.open_run(place)  # readable at any moment
        check(place, expected)
        kills, runs = kills + during, runs + 1
    print(f"{kills} kills in {runs} runs")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
