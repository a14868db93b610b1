"""`python -m benchmarks.data`: what a run over a data set costs beyond its explanations, and what it stores.

    python -m benchmarks.data --samples 64 --rounds 3

CPU time of the whole process, one thread, rounds in turn, so that other work on the machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import relprop
from relprop.data.keep import decode, encode, of_input
from relprop.data.sample_job import spec_of
from relprop.data.shards import Spec, shard
from relprop.data.store import Store, create
from relprop.zoo import efficientnet_lite0
from relprop.zoo.images import load_image, preprocess


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="loops, resuming, storing, memory, clusters, processes or ray")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    steps: dict[str, Callable[[Path], None]] = {
        "loops": lambda place: loops(place, options.samples, options.rounds),
        "resuming": resuming,
        "storing": lambda place: storing(),
        "memory": memory,
        "clusters": clusters,
        "processes": lambda place: processes(place, options.samples),
        "ray": lambda place: ray(place, options.samples),
    }
    for name, step in steps.items():
        if options.only in ("", name):
            with tempfile.TemporaryDirectory() as place:
                step(Path(place))


def loops(folder: Path, samples: int, rounds: int) -> None:
    """The bare loop of `attribute` against a run, with and without reading pictures, and one map at random."""
    model = efficientnet_lite0()
    chance = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for n in range(samples):
        small = Image.fromarray(chance.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        small.resize((320, 240), Image.Resampling.BICUBIC).save(folder / "photos" / f"{n:04d}.jpg", quality=90)
    paths = sorted((folder / "photos").iterdir())
    x = torch.cat([preprocess(load_image(path)) for path in paths])
    settings = {"batch_size": 8, "unit": samples, "progress": False}
    relprop.attribute(model, x[:8])
    ratios: dict[str, list[float]] = {"pictures": [], "tensors": []}
    for n in range(rounds):
        bare = cpu(lambda: [relprop.attribute(model, x[s : s + 8]) for s in range(0, samples, 8)])
        read = cpu(lambda n=n: relprop.explain_dataset(folder / "photos", model, folder / f"p{n}", **settings))
        given = cpu(lambda n=n: relprop.explain_dataset(x, model, folder / f"t{n}", **settings))
        ratios["pictures"].append(bare / read)
        ratios["tensors"].append(bare / given)
        print(f"round {n}: bare {bare:.2f} s, run of pictures {read:.2f} s, run of a tensor {given:.2f} s")
    for name, values in ratios.items():
        print(f"bare loop / run, {name}: {statistics.median(values):.3f}")
    run = relprop.open_run(folder / "p0")
    keys = run.keys()
    run[keys[0]]
    took = cpu(lambda: [run[key] for key in keys])
    print(f"one map at random, warm: {took / len(keys) * 1e3:.1f} ms")
    size = sum(path.stat().st_size for path in (folder / "p0" / "maps.zarr" / "maps").rglob("*") if path.is_file())
    print(f"bytes per map, sum, float16: {size / samples / 1024:.1f} KiB")


def resuming(folder: Path) -> None:
    """What a finished run of 1,000 units costs to call again."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)).eval()
    x, settings = torch.randn(1000, 1, 4, 4), {"batch_size": 1, "unit": 1, "progress": False}
    first = cpu(lambda: relprop.explain_dataset(x, model, folder / "units", **settings))
    again = cpu(lambda: relprop.explain_dataset(x, model, folder / "units", **settings))
    print(f"1,000 units of one sample: {first:.1f} s; finished, called again: {again:.2f} s")
    whole = {**settings, "batch_size": 32, "unit": 32}
    fixed = [
        cpu(lambda n=n: relprop.explain_dataset(x[:1], model, folder / f"fixed {n}", **whole))
        - cpu(lambda: relprop.attribute(model, x[:1]))
        for n in range(3)
    ]
    print(f"fixed cost of a run, without importing: {min(fixed):.3f} s")


def storing() -> None:
    """Bytes, time and error of maps of noise, which compress worst."""
    maps = np.random.default_rng(0).laplace(size=(64, 1, 224, 224)).astype(np.float32)
    shard(Spec("maps", (1,), "float16", ("height",)), np.zeros((1, 1), np.float16), 1)  # imports zarr
    for blocks in (224, 28, 14):
        for form in ("float16", "int8"):
            values = of_input(torch.from_numpy(maps), f"sum:{blocks}").numpy()
            start = time.process_time()
            stored, scale = encode(values, form)
            content = shard(Spec("maps", stored.shape[1:], str(stored.dtype), ("height", "width")), stored, 64)
            took = (time.process_time() - start) / 64 * 1e3
            error = np.linalg.norm(decode(stored, scale, form) - values) / np.linalg.norm(values)
            print(f"noise, sum:{blocks}, {form}: {len(content) / 64 / 1024:.2f} KiB, {took:.2f} ms, error {error:.1e}")
    with tempfile.TemporaryDirectory() as place:
        for size in (32, 512):
            took = commits(Path(place) / str(size), size)
            print(
                f"a whole unit of {size} maps of noise, encoded, compressed, hashed and flushed: {took:.2f} ms of CPU per map"
            )


def commits(folder: Path, size: int) -> float:
    """Milliseconds of CPU time per map for writing units with all arrays that a run has, the least of four."""
    maps = np.random.default_rng(0).laplace(size=(size, 224, 224)).astype(np.float32)
    rows = {
        "maps": encode(maps, "float16")[0], "maps.scale": np.zeros(size, np.float32), "score": np.zeros(size),
        "residual": np.zeros(size), "target": np.zeros(size, np.int64), "top.index": np.zeros((size, 5), np.int64),
        "top.value": np.zeros((size, 5), np.float32), "status": np.ones(size, np.uint8),
    }  # fmt: skip
    about = {
        "fingerprint": {}, "lengths": [4 * size], "keys_sha256": "", "unit": size, "input_shape": [3, 224, 224],
        "number_format": "float16",
    }  # fmt: skip
    create(folder, about, [spec_of(name, values, False) for name, values in rows.items()])
    store, found = Store(folder), []
    keys = [f"photos/{n}.jpg" for n in range(size)]
    for unit in store.units():
        start = time.process_time()
        rows["maps"], rows["maps.scale"] = encode(maps, "float16")  # type: ignore[assignment]
        store.commit(unit, keys, rows, {"quarantined": {}})
        found.append((time.process_time() - start) / size * 1e3)
    return min(found)


_RUN = """
import resource, sys, torch, relprop
torch.set_num_threads(1)

class Made:  # samples that are nowhere on disk: pages of a mapped file would count as memory
    def __len__(self):
        return int(sys.argv[1])

    def __getitem__(self, n):
        return torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(n))

model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32 * 32, 10)).eval()
relprop.explain_dataset(Made(), model, sys.argv[2], batch_size=50, unit=500, loaders=2, progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def memory(folder: Path) -> None:
    """The peak memory of runs of 1,000 and of 100,000 samples."""
    found = {}
    for count in (1000, 10_000, 100_000):
        command = [sys.executable, "-c", _RUN, str(count), str(folder / f"run {count}")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[count] = int(done.stdout.split()[-1]) / 1024
        print(f"peak memory of a run of {count:,} samples: {found[count]:.0f} MiB")
        shutil.rmtree(folder / f"run {count}")
    print(f"100,000 samples over 1,000: {found[100_000] / found[1000]:.3f}")


def clusters(folder: Path) -> None:
    """SpRAy of 10,000 maps of 14 x 14, and of 20,000 by 2,000 prototypes."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(196, 2, bias=False)).eval()
    for count, prototypes in ((10_000, None), (20_000, 2000)):
        x = torch.randn(count, 1, 14, 14)
        settings = {"target": 0, "composite": "zero", "batch_size": 1000, "progress": False}
        run = relprop.explain_dataset(x, model, folder / str(count), **settings)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        took = cpu(lambda run=run, prototypes=prototypes: run.spray(by="target", prototypes=prototypes))
        grew = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(f"SpRAy of {count:,} maps, prototypes {prototypes}: {took:.1f} s of CPU time, {grew:.0f} MiB more")


def processes(folder: Path, samples: int) -> None:
    """One process against two, by the clock and by CPU time: the clock means something on two idle cores alone."""
    found = {count: per_unit(folder / str(count), samples, {"processes": count}) for count in (1, 2)}
    print(f"two processes against one, units per second: {found[1][0] / found[2][0]:.2f}")
    print(f"CPU time of a unit with two processes over that with one: {found[2][1] / found[1][1]:.3f}")


def ray(folder: Path, samples: int) -> None:
    """Two actors of Ray against two processes. The CPU time is that of all processes that Ray started."""
    plain = per_unit(folder / "plain", samples, {"processes": 2})
    actors = per_unit(folder / "ray", samples, {"processes": 2, "engine": "ray"})
    print(f"CPU time of a unit with two actors of Ray over that with two processes: {actors[1] / plain[1]:.3f}")


def per_unit(folder: Path, samples: int, settings: dict[str, Any]) -> tuple[float, float]:
    """Seconds by the clock and of CPU time for each unit after the first: starting a process imports torch, once."""
    x = torch.randn(samples, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    seen: list[tuple[float, float]] = []

    def said(line: str) -> None:
        if hasattr(line, "data"):
            seen.append((time.perf_counter(), spent()))

    relprop.explain_dataset(x, "efficientnet_lite0", folder, batch_size=8, unit=16, said=said, **settings)
    (began, before), (ended, after), count = seen[0], seen[-1], len(seen) - 1
    return (ended - began) / count, (after - before) / count


def spent() -> float:
    """The CPU time of this process and all that it has started, in seconds. Needs /proc."""
    parents, times = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        number = int(path.parent.name)
        parents[number], times[number] = int(fields[1]), sum(map(int, fields[11:13]))
    inside = {os.getpid()}
    while more := {n for n, parent in parents.items() if parent in inside} - inside:
        inside |= more
    return sum(times[n] for n in inside if n in times) / os.sysconf("SC_CLK_TCK")


def cpu(act: Callable[[], object]) -> float:
    start = time.process_time()
    act()
    return time.process_time() - start


if __name__ == "__main__":
    main()
