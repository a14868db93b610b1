"""`python -m benchmarks --overhead`: small networks, where the work in Python around each operation weighs most.

Process CPU time over that of one forward pass and the input gradient with frozen parameters: one thread, batch 1 (the
recurrent network: 8), medians over rounds in turns, with the range from the 10th to the 90th percentile. The yardstick of
the recurrent network is the same network unrolled in Python, as relevance needs its steps.

Beside relprop: a compiled call (`relprop.compile`, with `backend="eager"`: no compiler, only the recorded graph), and
on networks made of torch's modules LRP of captum, zennit and autolrp where they are installed, and captum's DeepLift.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import relprop
from benchmarks import contestants, networks, sequences

CLASS = 3
LEAST = 0.004
"""Seconds: what is quicker is repeated within a round, so that the clock can tell."""


@dataclass(frozen=True)
class Case:
    """A network, its input, the composites that are measured, and the network whose gradient is the yardstick.

    `of_modules`: the network is made of torch's modules, which is what the other libraries have rules for.
    """

    model: nn.Module
    x: Tensor
    composites: tuple[str, ...]
    yardstick: nn.Module
    of_modules: bool


class Graph(nn.Module):
    """Three layers over a list of edges: gather, weigh by degrees, scatter."""

    def __init__(self, width: int = 32, nodes: int = 30) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.head = nn.Linear(width, 5)
        own = torch.arange(nodes).repeat(2, 1)
        self.register_buffer("edges", torch.cat([torch.randint(nodes, (2, 90)), own], 1))

    def forward(self, x: Tensor) -> Tensor:
        source, sink = self.edges
        degree = torch.zeros(x.shape[1]).index_add(0, sink, torch.ones(len(sink)))
        norm = (degree[source] * degree[sink]).rsqrt()
        for layer in self.layers:
            messages = layer(x).index_select(1, source) * norm[None, :, None]
            x = torch.zeros_like(x).index_add(1, sink, messages).relu()
        return self.head(x.mean(1))


def mlp(layers: int, width: int = 32) -> nn.Sequential:
    hidden = [part for _ in range(layers) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(width, 10))


def convolutional() -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 16, 10))


def case(model: nn.Module, x: Tensor, *composites: str, yardstick: nn.Module | None = None) -> Case:
    frozen = [net.eval().requires_grad_(False) for net in (model, model if yardstick is None else yardstick)]
    of_modules = isinstance(model, (nn.Sequential, networks.ResNet, networks.EfficientNetLite))
    return Case(frozen[0], x, composites, frozen[1], of_modules)


def recurrent() -> Case:
    net = sequences.LSTM()
    return case(net, torch.randn(8, 128, 64), "lstm", yardstick=sequences.Unrolled(net))


CONVOLUTIONAL, ATTENDING = ("zero", "epsilon", "gamma_flat"), ("attnlrp", "attnlrp_gamma")
CASES: dict[str, Callable[[], Case]] = {
    "MLP, 10 layers of width 32": lambda: case(mlp(10), torch.randn(1, 32), "zero", "epsilon"),
    "MLP, 100 layers of width 32": lambda: case(mlp(100), torch.randn(1, 32), "zero", "epsilon"),
    "3 convolutions with BatchNorm, 32²": lambda: case(convolutional(), torch.randn(1, 3, 32, 32), *CONVOLUTIONAL),
    "ResNet-50, 32²": lambda: case(networks.build("resnet50"), networks.images(1, 32), *CONVOLUTIONAL),
    "EfficientNet-Lite0, 32²": lambda: case(
        networks.build("efficientnet_lite0"), networks.images(1, 32), *CONVOLUTIONAL
    ),
    "decoder, 16 layers of width 32": lambda: case(sequences.Llama(16, 32, 4, 88), torch.randn(1, 16, 32), *ATTENDING),
    "decoder, 8 layers of width 512": lambda: case(sequences.Llama(), torch.randn(1, 256, 512), "attnlrp"),
    "ViT-S, 224²": lambda: case(sequences.ViT(), torch.randn(1, 3, 224, 224), "attnlrp"),
    "LSTM, 2 layers, 128 steps": recurrent,
    "graph network, 3 layers": lambda: case(Graph(), torch.randn(1, 30, 32), "zero", "gamma_flat"),
}


class Counting(TorchFunctionMode):
    """Counts the operations that a mode sees."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(model(leaf)[:, CLASS].sum(), leaf)[0]


def competitors(one: Case, others: bool) -> dict[str, Callable[[], object]]:
    """Who is measured on a network."""
    x, target = one.x, torch.full((len(one.x),), CLASS)
    found: dict[str, Callable[[], object]] = {}
    for composite in one.composites:
        found[f"`{composite}`"] = partial(relprop.attribute, one.model, x, CLASS, composite=composite)
    compiled = relprop.compile(one.model, composite=one.composites[0], backend="eager")
    found[f"`{one.composites[0]}`, compiled"] = partial(compiled, x, CLASS)
    names = ("captum default", "zennit Epsilon", "autolrp default")
    for name, contestant in contestants.everyone().items() if others else ():
        if name in names:
            found[name.replace("default", "LRP")] = partial(contestant.run, contestant.prepare(one.model), x, target)
    if others:
        found["captum DeepLift"] = partial(deep_lift, contestants.captum_model(one.model), x, target)
    return found


def deep_lift(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    from captum.attr import DeepLift

    return DeepLift(model).attribute(x, target=target)


def often(call: Callable[[], object]) -> int:
    """How often a call is repeated within a round."""
    call()
    began = time.process_time()
    call()
    return max(1, min(20, int(LEAST / max(time.process_time() - began, 1e-6))))


def seconds(call: Callable[[], object], repeats: int) -> float:
    began = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - began) / repeats


def measure(one: Case, rounds: int, others: bool) -> tuple[int, float, dict[str, list[float] | str]]:
    """The operations of a forward pass, the gradient in milliseconds, and the ratios of each competitor, or why it fails."""
    with Counting() as counting:
        one.yardstick(one.x.clone().requires_grad_())
    plain, ratios, running = partial(gradient, one.yardstick, one.x), {}, {}
    for name, call in competitors(one, others).items():
        ratios[name] = []
        try:
            running[name] = call, often(call)
        except Exception as error:  # other people's code: whatever it raises is the result
            ratios[name] = f"fails: {type(error).__name__}"
    repeats, spent = often(plain), []
    gc.collect()
    for _ in range(rounds):
        for name, (call, times) in running.items():
            spent.append(seconds(plain, repeats))
            ratios[name].append(seconds(call, times) / spent[-1])
    return counting.count, 1e3 * median(spent), ratios


def row(network: str, count: int, plain: float, name: str, found: list[float] | str) -> str:
    if isinstance(found, str):
        return f"| {network} | {name} | {found} | | | |"
    tenths = quantiles(found, n=10)
    each = 1e3 * plain * (median(found) - 1) / count
    return (
        f"| {network} | {name} | {median(found):.2f} | {tenths[0]:.2f} – {tenths[-1]:.2f} | {plain:.2f} | {each:.1f} |"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks --overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--network", nargs="+", metavar="PART", help="networks whose name contains one of these")
    parser.add_argument("--alone", action="store_true", help="without the other libraries")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(
        "| network | explained by | time × | 10 – 90 % | gradient, ms | µs per operation |\n|---|---|--:|--:|--:|--:|"
    )
    record: dict[str, Any] = {}
    for network, make in CASES.items():
        if options.network and not any(part in network for part in options.network):
            continue
        torch.manual_seed(0)
        one = make()
        count, plain, ratios = measure(one, options.rounds, one.of_modules and not options.alone)
        record[network] = {"operations": count, "gradient_ms": plain, "ratios": ratios}
        for name, found in ratios.items():
            print(row(network, count, plain, name, found), flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
