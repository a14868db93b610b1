"""How much memory an attribution needs on top of the model and its input, as a multiple of a gradient's.

Every contestant runs in a process of its own, because what one leaves behind (caches, fragments of the heap)
would be counted for the next. On the CPU the kernel's high-water mark of resident memory is reset just before
the attribution; the extra is the mark after it minus what was resident before it. On a GPU torch's allocator
counts.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import torch

from benchmarks import networks
from benchmarks.contestants import everyone

# By default glibc keeps freed blocks of up to 32 MB (its threshold grows with what a program frees) on heaps,
# one for each thread, and whether a tensor fits into an old hole or extends the heap is chance: peaks came
# out 10 % apart and up to half again as high. With these every tensor above 64 kB is its own mapping, gone
# when it is freed: 0.1 % apart.
REPEATABLE = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def measure(network: str, contestant: str, batch: int, size: int, device: str, threads: int) -> dict[str, object]:
    """`{"extra": bytes}` of one contestant, measured in a new process, or `{"error": reason}`."""
    options = [f"--batch={batch}", f"--size={size}", f"--device={device}", f"--threads={threads}"]
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", network, contestant, *options],
        env=os.environ | REPEATABLE | {"PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    if child.returncode != 0:
        return {"error": (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]}
    return json.loads(child.stdout.splitlines()[-1])


def extra(network: str, name: str, batch: int, size: int, device: str) -> int:
    """Peak minus start, in bytes, of the first attribution of a network in this process."""
    contestant = everyone()[name]
    original = networks.build(network, device)
    x, target = networks.images(batch, size, device), networks.targets(batch, device)

    # Imports and code are loaded by a small picture and a copy of the model: what a library keeps per model
    # and input (modified weights, say) is a cost of using it and stays in the measurement.
    rehearsal = contestant.prepare(copy.deepcopy(original))
    contestant.run(rehearsal, networks.images(1, 64, device), networks.targets(1, device))
    model = contestant.prepare(original)
    del rehearsal, original
    gc.collect()

    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        contestant.run(model, x, target)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    ctypes.CDLL("libc.so.6").malloc_trim(0)
    reset_peak()
    before = resident("VmRSS")
    contestant.run(model, x, target)
    return resident("VmHWM") - before


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def resident(field: str) -> int:
    """`VmRSS`: resident memory now; `VmHWM`: the most since the last reset. In bytes."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found is not None, status
    return int(found[1]) * 1024


def main() -> None:
    """The child process: measure one contestant and print the result as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("network", choices=networks.NETWORKS)
    parser.add_argument("contestant")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    bytes_ = extra(options.network, options.contestant, options.batch, options.size, options.device)
    print(json.dumps({"extra": bytes_}))


if __name__ == "__main__":
    main()
