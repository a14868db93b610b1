"""`python -m benchmarks.overhead`: small networks, where the work in Python around each operation weighs most.

Process CPU time of `relprop.attribute` over that of one forward pass and the input gradient with frozen parameters: batch
1, one thread, medians over rounds in turns, with the range from the 10th to the 90th percentile.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median, quantiles

import torch
from torch import Tensor, nn

import relprop

COMPOSITES = ("zero", "epsilon", "auto")


def mlp(layers: int, width: int = 32) -> nn.Sequential:
    hidden = [part for _ in range(layers) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, 10))


def convolutional() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 16, 10))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "MLP, 10 layers of width 32": (partial(mlp, 10), (1, 32)),
    "MLP, 100 layers of width 32": (partial(mlp, 100), (1, 32)),
    "3 convolutions with BatchNorm, 32²": (convolutional, (1, 3, 32, 32)),
}


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)[0]


def seconds(call: Callable[[], object], repeats: int) -> float:
    began = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - began) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=10, help="calls in a round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print("| network | composite | time × | 10 – 90 % |\n|---|---|--:|--:|")
    for name, (make, shape) in NETWORKS.items():
        model, x = make().eval().requires_grad_(False), torch.randn(shape)
        calls = {c: partial(relprop.attribute, model, x, 0, composite=c) for c in COMPOSITES}
        ratios: dict[str, list[float]] = {c: [] for c in COMPOSITES}
        for number in range(options.rounds + 1):
            plain = seconds(partial(gradient, model, x), options.repeats)
            for composite, call in calls.items():
                ratio = seconds(call, options.repeats) / plain
                if number:  # the first round warms up
                    ratios[composite].append(ratio)
        for composite, found in ratios.items():
            tenths = quantiles(found, n=10)
            print(f"| {name} | `{composite}` | {median(found):.1f} | {tenths[0]:.1f} – {tenths[-1]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
