"""`python -m benchmarks`: time and peak memory of every contestant on every network.

    python -m benchmarks --small                            # does it run? figures without meaning
    python -m benchmarks --only relprop --network vgg16     # how far are we from the goals?
    python -m benchmarks --json figures.json                # everything, for the record
    python -m benchmarks --overhead                         # small networks, where Python is what costs

Nothing else should run on the machine meanwhile. One thread (the default) repeats best.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

import torch

from benchmarks import memory, networks, overhead, report, speed
from benchmarks.contestants import YARDSTICK, Contestant, everyone

SMALL = "efficientnet_lite0"  # the network that is fastest to build and to run


def main() -> None:
    if "--overhead" in sys.argv[1:]:
        overhead.main([word for word in sys.argv[1:] if word != "--overhead"])
        return
    options = arguments()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # what the others warn of is theirs to mend
    contestants = chosen(options.only)
    record = {
        "environment": report.environment(options.device, options.threads),
        "batch": options.batch,
        "size": options.size,
        "rounds": options.rounds,
        "networks": {},
    }
    print(json.dumps(record["environment"]))
    for network in options.network:
        rows = measure(network, contestants, options)
        record["networks"][network] = rows
        print(f"\n{network}: batch {options.batch}, {options.size}², {options.device}\n")
        print(report.table(rows), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=form)
    parser.add_argument("--network", nargs="+", choices=networks.NETWORKS, help="default: all of them")
    who = 'packages or contestants: relprop "zennit Epsilon"'
    parser.add_argument("--only", nargs="+", metavar="NAME", help=who)
    parser.add_argument("--measure", nargs="+", choices=("speed", "memory"), default=["speed", "memory"])
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds after the warm-up (%(default)s)")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=224, help="height and width of the images (%(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    clock = "wall, or process: the process's own CPU time, for a machine that others use (with one thread)"
    parser.add_argument("--clock", choices=speed.CLOCKS, default="wall", help=clock)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    small = f"a test of the benchmark: {SMALL}, 2 images of 64², 2 rounds"
    parser.add_argument("--small", action="store_true", help=small)
    options = parser.parse_args()
    if options.small:
        options.size, options.rounds, options.batch = 64, 2, 2
        options.network = options.network or [SMALL]
    options.network = options.network or list(networks.NETWORKS)
    return options


def chosen(only: list[str] | None) -> dict[str, Contestant]:
    """The contestants asked for, and always the yardstick."""
    found = everyone()
    if only is None:
        return found
    known = found.keys() | {one.package for one in found.values()}
    if unknown := [name for name in only if name not in known]:
        raise SystemExit(f"nobody here is called {', '.join(unknown)}; there are: {', '.join(found)}")
    wanted = {YARDSTICK, *only}
    return {name: one for name, one in found.items() if name in wanted or one.package in wanted}


def measure(
    network: str, contestants: dict[str, Contestant], options: argparse.Namespace
) -> dict[str, dict[str, object]]:
    """One row per contestant: its timing, its memory and its goals."""
    rows: dict[str, dict[str, object]] = {}
    for name, one in contestants.items():
        rows[name] = {"goal_time": one.goal_time, "goal_memory": one.goal_memory}
    if "speed" in options.measure:
        model = networks.build(network, options.device)
        x = networks.images(options.batch, options.size, options.device)
        target = networks.targets(options.batch, options.device)
        for name, timing in speed.measure(contestants, model, x, target, options.rounds, options.clock).items():
            rows[name] |= timing.summary()
        del model
    if "memory" in options.measure:
        size = (options.batch, options.size, options.device, options.threads)
        for name, row in rows.items():
            if "error" not in row:
                row |= memory.measure(network, name, *size)
        yardstick = rows[YARDSTICK].get("extra")
        for row in rows.values():
            if isinstance(extra := row.get("extra"), int) and isinstance(yardstick, int):
                row["memory"] = extra / yardstick
    return rows


if __name__ == "__main__":
    main()
