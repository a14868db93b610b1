"""`python -m benchmarks.data`: what a run over a data set costs beyond its explanations, and what it keeps of them.

    python -m benchmarks.data --samples 64 --rounds 3
    python -m benchmarks.data --only ray

Each figure is printed beside its goal, and all of them in a table at the end. CPU time of the whole process, one thread,
rounds in turn, so that other work on the machine disturbs both alike. Seconds by the clock mean something on idle cores alone.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

import relprop
from benchmarks.data_engines import processes, ray
from benchmarks.data_figures import Figure, cpu
from benchmarks.data_promises import damage, kills, planted, texts
from relprop.data import sample_job
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
    parser.add_argument("--kills", type=int, default=12, help="kills in each of the loops with 1 and 2 processes")
    parser.add_argument("--seconds", type=float, default=30.0, help="CPU time of a unit, for processes and ray")
    steps: dict[str, Callable[[Path], Iterator[Figure]]] = {
        "loops": lambda place: loops(place, options.samples, options.rounds), "resuming": resuming, "storing": storing,
        "damage": damage, "memory": memory, "kills": lambda place: kills(place, options.kills), "texts": texts,
        "planted": planted, "clusters": clusters, "processes": lambda place: processes(place, options.seconds),
        "ray": lambda place: ray(place, options.seconds),
    }  # fmt: skip
    parser.add_argument("--only", default="", help=f"one or several of {', '.join(steps)}, with commas between")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    wanted = options.only.split(",") if options.only else list(steps)
    if unknown := [name for name in wanted if name not in steps]:
        parser.error(f"--only knows {', '.join(steps)}; got {unknown[0]}")
    found = []
    for name in wanted:
        with tempfile.TemporaryDirectory() as place:
            for figure in steps[name](Path(place)):
                print(figure, flush=True)
                found.append(figure)
    print("\n| what | figure | goal | |\n|---|---|---|---|")
    for figure in found:
        print(f"| {figure.what} | {figure.shown} | {figure.goal} | {figure.verdict} |")


def loops(folder: Path, samples: int, rounds: int) -> Iterator[Figure]:
    """The bare loop of `attribute` against a run, with and without reading pictures, and one map at random."""
    model = efficientnet_lite0()
    chance = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for n in range(samples):
        small = Image.fromarray(chance.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        small.resize((320, 240), Image.Resampling.BICUBIC).save(folder / "photos" / f"{n:04d}.jpg", quality=90)
    paths = sorted((folder / "photos").iterdir())
    x = torch.cat([preprocess(load_image(path)) for path in paths])
    settings: dict[str, Any] = {"batch_size": 8, "unit": max(samples // 32, 1) * 8, "progress": False}  # four units
    relprop.attribute(model, x[:8])
    relprop.explain_dataset(x[:8], model, folder / "first", **settings)  # what is imported later is imported here
    for name, source, least in (("pictures", folder / "photos", 0.95), ("tensors", x, 0.97)):
        found = [in_turns(model, x, source, folder / f"{name} {n}", settings) for n in range(rounds)]
        told = ", ".join(f"{ratio:.3f} and {share:.3f}" for ratio, share in found)
        print(f"{name}, bare loop over run and the share of its explanations, by rounds: {told}", flush=True)
        ratio, share = np.median(found, 0)
        yield Figure(
            f"bare loop over a run of {samples} {name}, median of {rounds} rounds", ratio, ">=", least, digits=3
        )
        what = f"share of a run's CPU time that its explanations take, {samples} {name}, the same"
        yield Figure(what, share, ">=", least, digits=3)
    run = relprop.open_run(folder / "pictures 0")
    keys = run.keys()
    run[keys[0]]
    at = [keys[n] for n in chance.integers(0, len(keys), 200)]
    yield Figure(
        "one map at random, warm, CPU", cpu(lambda: [run[key] for key in at]) / len(at) * 1e3, "<=", 3, "ms", 1
    )
    size = sum(
        path.stat().st_size for path in (folder / "pictures 0" / "maps.zarr" / "maps").rglob("*") if path.is_file()
    )
    yield Figure("bytes per map of that run, sum, float16", size / samples / 1024, "<=", 88, "KiB", 1)


def bare_loop(model: Any, x: torch.Tensor, batch: int) -> None:
    """Explains and forgets."""
    for start in range(0, len(x), batch):
        relprop.attribute(model, x[start : start + batch])


def in_turns(model: Any, x: torch.Tensor, source: Any, place: Path, settings: dict[str, Any]) -> tuple[float, float]:
    """A bare loop over a run in CPU time, a unit of the one and then of the other, and the share of the run's own loop.

    Neither keeps its results. The share is that of the calls of `attribute` with the batches of units: what else runs on
    the machine slows these and the rest of the run alike, where it may disturb one of two loops more.
    """
    bare: list[float] = []
    inside: list[float] = []
    size, batch = settings["unit"], settings["batch_size"]

    def loop() -> bool:
        start = len(bare) * size
        bare.append(cpu(lambda: bare_loop(model, x[start : start + size], batch)))
        return False

    def timed(model: Any, inputs: torch.Tensor, *given: Any, **named: Any) -> Any:
        began = time.thread_time()
        found = relprop.attribute(model, inputs, *given, **named)
        if len(inputs) == batch:  # not that of the first sample alone, which tells what a run stores
            inside.append(time.thread_time() - began)
        return found

    with mock.patch.object(sample_job, "attribute", timed):
        whole = cpu(lambda: relprop.explain_dataset(source, model, place, stop=loop, **settings))
    run = whole - sum(bare)
    return sum(bare) / run, sum(inside) / run


def resuming(folder: Path) -> Iterator[Figure]:
    """What a run costs beside its explanations, and what a finished one of 1,000 units costs to call again."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)).eval()
    x = torch.randn(1000, 1, 4, 4)
    settings: dict[str, Any] = {"batch_size": 1, "unit": 1, "progress": False}
    relprop.explain_dataset(x, model, folder / "units", **settings)
    again = cpu(lambda: relprop.explain_dataset(x, model, folder / "units", **settings))
    whole: dict[str, Any] = {**settings, "batch_size": 32, "unit": 32}
    fixed = [
        cpu(lambda n=n: relprop.explain_dataset(x[:1], model, folder / f"fixed {n}", **whole))
        - cpu(lambda: relprop.attribute(model, x[:1]))
        for n in range(3)
    ]
    yield Figure("fixed cost of a run, without importing", min(fixed), "<=", 1, "s", 3)
    yield Figure("a finished run of 1,000 units, called again, CPU", again, "<=", 1, "s", 2)


def storing(folder: Path) -> Iterator[Figure]:
    """Bytes, time and error of maps of noise, which compress worst."""
    maps = np.random.default_rng(0).laplace(size=(64, 1, 224, 224)).astype(np.float32)
    shard(Spec("maps", (1,), "float16", ("height",)), np.zeros((1, 1), np.float16), 1)  # imports zarr
    most = {224: 88.0, 28: 1.6, 14: 0.5}
    errors = {"float16": 3e-4, "int8": 2e-2}
    for blocks in most:
        values = of_input(torch.from_numpy(maps), f"sum:{blocks}").numpy()
        total = np.abs(values.sum((1, 2)) - maps.sum((1, 2, 3))) / np.abs(maps).sum((1, 2, 3))
        for form, bound in errors.items():
            stored, scale = encode(values, form)
            content = shard(Spec("maps", stored.shape[1:], str(stored.dtype), ("height", "width")), stored, 64)
            if form == "float16" and blocks < 224:
                yield Figure(
                    f"bytes per map of noise, sum:{blocks}, float16",
                    len(content) / 64 / 1024,
                    "<=",
                    most[blocks],
                    "KiB",
                    2,
                )
            back = decode(stored, scale, form)
            error = np.linalg.norm(back - values, axis=(1, 2)) / np.linalg.norm(values, axis=(1, 2))
            yield Figure(f"worst L2 error of a map of noise, sum:{blocks}, {form}", error.max(), "<=", bound, digits=-1)
            if form == "float16" and blocks == 224:
                wide = values * np.float32(10) ** np.random.default_rng(1).uniform(-12, 0, values.shape).astype(
                    np.float32
                )
                lost = np.abs(wide)[decode(*encode(wide, form), form) == 0].max() / np.abs(wide).max()
                yield Figure(
                    "largest value that becomes 0, over the largest of its map, float16", lost, "<=", 1e-7, digits=-1
                )
        if blocks < 224:
            yield Figure(
                f"sums of blocks, sum:{blocks}, against the total, over sum abs(R)", total.max(), "<=", 1e-4, digits=-1
            )
    took = commits(folder, 512)
    yield Figure("store's CPU per map of noise, compressed, units of 512", took, "<=", 1.3, "ms", 2)
    raw = commits(folder, 512, compressed=False)
    yield Figure("the same less its compression (every store compresses)", raw, "<=", 0.5, "ms", 2)


def commits(folder: Path, size: int, compressed: bool = True) -> float:
    """Milliseconds of CPU time per map for writing units with all arrays that a run has, the least of four.

    Without compression, what zarr's codec takes by itself is taken off.
    """
    maps = np.random.default_rng(0).laplace(size=(size, 224, 224)).astype(np.float32)
    rows: dict[str, Any] = {
        "maps": encode(maps, "float16")[0], "maps.scale": np.zeros(size, np.float32), "score": np.zeros(size),
        "residual": np.zeros(size), "target": np.zeros(size, np.int64), "top.index": np.zeros((size, 5), np.int64),
        "top.value": np.zeros((size, 5), np.float32), "status": np.ones(size, np.uint8),
    }  # fmt: skip
    about = {
        "fingerprint": {}, "lengths": [4 * size], "keys_sha256": "", "unit": size, "input_shape": [3, 224, 224],
        "number_format": "float16",
    }  # fmt: skip
    place = folder / f"{size} {compressed}"
    create(place, about, [spec_of(name, values, False) for name, values in rows.items()])
    store, found = Store(place), []
    keys = [f"photos/{n}.jpg" for n in range(size)]

    def write(unit: Any) -> None:
        rows["maps"], rows["maps.scale"] = encode(maps, "float16")
        store.commit(unit, keys, rows, {"quarantined": {}})

    for unit in store.units():
        taken = 0.0 if compressed else cpu(lambda: compression(rows["maps"]))
        found.append((cpu(lambda unit=unit: write(unit)) - taken) / size * 1e3)
    return min(found)


def compression(rows: np.ndarray) -> None:
    """What the codec of the store does to each map, by the library that zarr calls."""
    from numcodecs import blosc

    for row in rows:
        blosc.compress(np.ascontiguousarray(row), b"zstd", 1, blosc.BITSHUFFLE, 0)  # typed: shuffled as in the store


_RUN = """
import sys, torch, zarr, relprop, relprop.data
import torch.fx.experimental.symbolic_shapes
torch.set_num_threads(1)
count, size, unit, batch, loaders = map(int, sys.argv[1:6])

class Made:  # samples that are nowhere on disk: pages of a mapped file would count as memory
    def __len__(self):
        return count

    def __getitem__(self, n):
        return torch.randn(1, size, size, generator=torch.Generator().manual_seed(n))

model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(size * size, 10)).eval()
if count:
    relprop.explain_dataset(Made(), model, sys.argv[6], batch_size=batch, unit=unit, loaders=loaders, progress=False)
else:
    relprop.attribute(model, torch.randn(batch, 1, size, size))
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def peak(folder: Path, count: int, size: int, unit: int, batch: int, loaders: int) -> float:
    """The peak memory in MiB of a process with such a run; with no sample, of one that explains a batch."""
    numbers = [str(n) for n in (count, size, unit, batch, loaders)]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *numbers, str(folder / "run")], capture_output=True, text=True, check=True
    )
    shutil.rmtree(folder / "run", ignore_errors=True)
    return int(done.stdout.split()[-1]) / 1024


def memory_of(name: str) -> float:
    """The memory of this process in MiB: VmRSS, or VmHWM, its peak since that was set back. Needs /proc."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def memory(folder: Path) -> Iterator[Figure]:
    """The peak memory of runs of 1,000 to 100,000 samples, and what a run has beyond the network and one batch."""
    found = {count: peak(folder, count, 32, 500, 50, 2) for count in (1000, 10_000, 100_000)}
    print(", ".join(f"{count:,} samples: {value:.0f} MiB" for count, value in found.items()))
    what = "peak memory of 1,000 to 100,000 samples of 32 x 32, largest over smallest"
    yield Figure(what, max(found.values()) / min(found.values()), "<=", 1.05, digits=3)
    unit, batch, loaders = 256, 32, 2
    beyond = peak(folder, 2048, 224, unit, batch, loaders) - peak(folder, 0, 224, unit, batch, loaders)
    each = 224 * 224
    allowed = (2 * unit * each * 2 + loaders * 2 * batch * each * 4) / 2**20  # float16 maps, float32 inputs
    what = (
        f"memory beyond network and one batch, units of {unit} maps of 224 x 224, batches of {batch}, {loaders} loaders"
    )
    yield Figure(what, beyond, "<=", allowed, "MiB", 0)


def clusters(folder: Path) -> Iterator[Figure]:
    """SpRAy of 10,000 maps of 14 x 14, and of 20,000 by 2,000 prototypes."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(196, 2, bias=False)).eval()
    for count, prototypes in ((10_000, None), (20_000, 2000)):
        x = torch.randn(count, 1, 14, 14)
        settings: dict[str, Any] = {"target": 0, "composite": "zero", "batch_size": 1000, "progress": False}
        run = relprop.explain_dataset(x, model, folder / str(count), **settings)
        del x
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back
        before = memory_of("VmRSS")
        took = cpu(lambda run=run, prototypes=prototypes: run.spray(by="target", prototypes=prototypes))
        grew = memory_of("VmHWM") - before
        what = f"SpRAy of {count:,} maps of 14 x 14"
        if prototypes:
            print(f"{what} by {prototypes:,} prototypes: {took:.1f} s of CPU time, {grew:.0f} MiB more memory")
            continue
        yield Figure(f"{what}, CPU", took, "<=", 5, "s", 1)
        yield Figure(f"{what}, more memory", grew, "<=", 500, "MiB", 0)


if __name__ == "__main__":
    main()
