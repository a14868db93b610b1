"""Kills runs at random moments until each is done, and compares what they leave with a run that nobody disturbed.

    python tests/killed_runs.py FOLDER KILLS [PROCESSES]

With several processes, these are killed at random, and at times the one that started them. That takes long: by hand.

Processes are ended by a timer of the CPU time that they spend, so that a slow machine makes as much progress between two
kills as a fast one. The signal has no handler: the process ends wherever it is, without any cleaning up.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
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
    before = leases(folder)
    child = os.fork()
    if child == 0:
        if seconds is not None:
            signal.setitimer(signal.ITIMER_PROF, seconds)
        relprop.explain_dataset(samples(), network(), folder, **ARGUMENTS)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    at_hand(folder, before, 1)
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


def killed(folder: Path, processes: int, chance: random.Random) -> int:
    """Starts a run with several processes, and kills up to two of them or the one that started them; says how many.

    A unit that kills three processes counts as at fault, so that more than two would be another test.
    """
    before = leases(folder)
    main = subprocess.Popen(
        [sys.executable, __file__, "run", str(folder), str(processes)], env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    kills, at = 0, 0.0
    while kills < 2:
        at += chance.uniform(0.5, 1.5 * (processes + 1))  # each imports torch first
        while main.poll() is None and spent(main.pid) < at:
            time.sleep(0.02)
        if main.poll() is not None:
            break
        children = [int(n) for n in Path(f"/proc/{main.pid}/task/{main.pid}/children").read_text().split()]
        victim = main.pid if chance.random() < 0.3 or not children else chance.choice(children)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
            kills += 1
        if victim == main.pid:
            main.wait()
            for child in children:
                while Path(f"/proc/{child}").exists() and not gone(child):
                    time.sleep(0.05)  # it ends by itself when it hears nothing more
            break
    code = main.wait()
    assert code in (0, -signal.SIGKILL), code
    at_hand(folder, before, processes)
    return kills


def leases(folder: Path) -> dict[str, int]:
    """The units that were begun, and when."""
    found = {}
    for path in folder.glob("leases/[0-9]*"):
        with contextlib.suppress(FileNotFoundError):
            found[path.name] = path.stat().st_mtime_ns
    return found


def at_hand(folder: Path, before: dict[str, int], processes: int) -> None:
    """What a kill costs: at most the unit that each process had at hand, as the leases say that it took."""
    begun = {name for name, when in leases(folder).items() if before.get(name) != when}
    begun -= {path.stem for path in folder.glob("units/*.json")}
    assert len(begun) <= processes, begun


def gone(process: int) -> bool:
    """Whether a process has ended, and only its entry is left."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def spent(process: int) -> float:
    """The CPU time that a process and its children have spent, in seconds: what else the machine does, does not count."""
    total = 0
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        for one in (process, *children):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15] if int(one) == process else fields[11:13]))
    except OSError:  # one has just ended
        pass
    return total / os.sysconf("SC_CLK_TCK")


def by_hand(folder: Path, wanted: int, processes: int, expected: dict[str, bytes]) -> None:
    """Kills until there were so many kills."""
    chance, kills, runs = random.Random(wanted + processes), 0, 0
    while kills < wanted:
        place = folder / f"run {processes}-{runs}"
        while not ((place / "run.json").exists() and len(relprop.open_run(place).keys()) == 60):
            kills += killed(place, processes, chance)
        check(place, expected)
        runs += 1
        print(f"{kills} kills in {runs} runs of {processes} processes", flush=True)


def main(folder: Path, wanted: int, processes: int) -> None:
    torch.set_num_threads(1)
    assert once(folder / "undisturbed", None) == 0
    expected = shards(folder / "undisturbed")
    if processes > 1:
        by_hand(folder, wanted, processes, expected)
        return
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
    if sys.argv[1] == "run":
        torch.set_num_threads(1)
        relprop.explain_dataset(samples(), "killed_runs:network", sys.argv[2], processes=int(sys.argv[3]), **ARGUMENTS)
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1)
