"""`python -m benchmarks.sequences`: transformers and recurrent networks, against the plain gradient.

A decoder of Llama's shape (8 layers, width 512, 256 tokens), a ViT-S (12 layers, width 384, 224²) and an LSTM (2 layers,
128 steps) with random weights, written out in plain torch. The yardstick of the LSTM is the gradient of the same network
unrolled in Python, as relevance needs its steps. `--depth` explains the decoder with 2 to 32 layers, `--compiled`
compares `relprop.compile` with a gradient that is compiled, too.

Ratios are medians over rounds in turns, as in `benchmarks.speed`; memory is measured in a process for each figure, as in
`benchmarks.memory`.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from benchmarks import report
from benchmarks.memory import REPEATABLE, reset_peak, resident

VOCABULARY = 8000
DEPTHS = (2, 8, 32)


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class DecoderBlock(nn.Module):
    """Llama's: rotary attention and a gated feed-forward network, each after an RMSNorm."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        h = self.norm1(x)
        q, k, v = (f(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = rotated(q, cos, sin), rotated(k, cos, sin)
        x = x + self.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    """The score is that of the next token, as in `explain_text`."""

    def __init__(self, layers: int = 8, width: int = 512, heads: int = 8, inner: int = 1408) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(DecoderBlock(width, heads, inner) for _ in range(layers))
        self.norm, self.head = RMSNorm(width), nn.Linear(width, VOCABULARY, bias=False)
        self.angle = 10000.0 ** (-torch.arange(0, width // heads, 2) / (width // heads))

    def forward(self, x: Tensor) -> Tensor:
        """From embedded tokens, so that the plain gradient has an input to reach."""
        angle = torch.arange(x.shape[1], device=x.device)[:, None] * self.angle.repeat(2)
        cos, sin = angle.cos(), angle.sin()
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.head(self.norm(x)[:, -1])


class EncoderBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """ViT-S/16."""

    def __init__(self, layers: int = 12, width: int = 384, heads: int = 6) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.first = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, 197, width) * 0.02)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


class LSTM(nn.Module):
    def __init__(self, features: int = 64, width: int = 128) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(features, width, 2, batch_first=True), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Unrolled(nn.Module):
    """The same network, step by step."""

    def __init__(self, net: LSTM) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        for layer in range(2):
            w, u, b, c = (
                getattr(self.net.lstm, f"{n}_l{layer}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            h = cell = x.new_zeros(x.shape[0], u.shape[1])
            steps = []
            for step in x.unbind(1):
                i, f, g, o = (F.linear(step, w, b) + F.linear(h, u, c)).chunk(4, 1)
                cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
                h = o.sigmoid() * cell.tanh()
                steps.append(h)
            x = torch.stack(steps, 1)
        return self.net.head(x[:, -1])


@dataclass(frozen=True)
class Case:
    """A network, its input, and what is asked of it."""

    model: nn.Module
    x: Tensor
    yardstick: nn.Module


def llama(layers: int = 8) -> Case:
    model = frozen(Llama(layers))
    return Case(model, model.embedding(torch.randint(VOCABULARY, (1, 256))).detach(), model)


def vit() -> Case:
    model = frozen(ViT())
    return Case(model, torch.randn(4, 3, 224, 224), model)


def lstm() -> Case:
    model = frozen(LSTM())
    return Case(model, torch.randn(8, 128, 64), frozen(Unrolled(model)))


def frozen(model: nn.Module) -> nn.Module:
    return model.eval().requires_grad_(False)


CASES: dict[str, Callable[..., Case]] = {"llama": llama, "vit": vit, "lstm": lstm}
COMPOSITES = {"llama": ("attnlrp", "cp_lrp"), "vit": ("attnlrp", "cp_lrp", "attnlrp_gamma"), "lstm": ("lstm",)}
GOALS = {"llama": (1.15, 1.10), "vit": (1.15, 1.10), "lstm": (2.5, None)}
"""Of `attnlrp`, `cp_lrp` and `lstm`: time and memory."""


def case(name: str) -> Case:
    """A case by name; `llama32` has 32 layers."""
    torch.manual_seed(0)
    return llama(int(name[5:])) if name[:5] == "llama" and name[5:] else CASES[name]()


def gradient(given: Case) -> Tensor:
    x = given.x.detach().requires_grad_()
    return torch.autograd.grad(given.yardstick(x)[:, 3].sum(), x)[0]


def gradient_at(given: Case, x: Tensor) -> Tensor:
    return gradient(replace(given, x=x))


def explained(given: Case, composite: str, checkpoint: bool = False) -> Tensor:
    return relprop.attribute(given.model, given.x, 3, composite=composite, checkpoint=checkpoint).values


def contestant(name: str) -> Callable[[Case], Tensor]:
    """`gradient`, a composite, or `composite+checkpoint`."""
    if name == "gradient":
        return gradient
    composite, _, checkpoint = name.partition("+")
    return partial(explained, composite=composite, checkpoint=bool(checkpoint))


def timed(runs: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of each, in turns, after a warm-up."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for n in range(rounds + 1):
        for name, run in runs.items():
            gc.collect()
            start = clock()
            run()
            if n:
                found[name].append(clock() - start)
    return found


def ratios(found: dict[str, list[float]], name: str, yardstick: str) -> list[float]:
    return [a / b for a, b in zip(found[name], found[yardstick], strict=True)]


def peak(case_name: str, name: str, threads: int) -> int:
    """The extra memory of one explanation, in bytes, measured in a new process."""
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.sequences", "--peak", case_name, name, "--threads", str(threads)],
        env=os.environ | REPEATABLE | {"PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(child.stdout.splitlines()[-1])


def own_peak(case_name: str, name: str) -> int:
    given, run = case(case_name), contestant(name)
    rehearsal = case("llama2" if case_name.startswith("llama") else case_name)
    run(rehearsal)  # imports and code
    del rehearsal
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    reset_peak()
    before = resident("VmRSS")
    run(given)
    return resident("VmHWM") - before


def table_of_networks(options: argparse.Namespace, clock: Callable[[], float]) -> None:
    print("| network | composite | time × | range | goal | memory × | goal |\n|---|---|--:|--:|--:|--:|--:|")
    for network in options.network:
        given = case(network)
        names = ("gradient", *COMPOSITES[network])
        runs = {name: partial(contestant(name), given) for name in names}
        found = timed(runs, options.rounds, clock)
        before = peak(network, "gradient", options.threads) if options.memory else 0
        for name in names[1:]:
            time_goal, memory_goal = GOALS[network] if name != "attnlrp_gamma" else (None, None)
            each = ratios(found, name, "gradient")
            memory = peak(network, name, options.threads) / before if options.memory else None
            print(
                f"| {network} | {name} | {median(each):.2f} | {min(each):.2f} – {max(each):.2f} | {'' if time_goal is None else f'≤ {time_goal}'} "
                f"| {report.number(memory)} | {'' if memory_goal is None else f'≤ {memory_goal}'} |",
                flush=True,
            )


def table_of_depths(options: argparse.Namespace, clock: Callable[[], float]) -> None:
    print(
        "| layers | time × | extra MB | gradient MB | checkpointed MB | checkpointed time × |\n|--:|--:|--:|--:|--:|--:|"
    )
    for layers in DEPTHS:
        name = f"llama{layers}"
        given = case(name)
        names = ("gradient", "attnlrp", "attnlrp+checkpoint")
        runs = {n: partial(contestant(n), given) for n in names}
        found = timed(runs, options.rounds, clock)
        plain, ours, again = (peak(name, n, options.threads) / 1e6 for n in names)
        faster, slower = (median(ratios(found, n, "gradient")) for n in names[1:])
        print(f"| {layers} | {faster:.2f} | {ours:.0f} | {plain:.0f} | {again:.0f} | {slower:.2f} |", flush=True)


def table_of_compiled(options: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Every contestant against the compiled gradient, whose graph is recorded in the same way."""
    from torch.fx.experimental.proxy_tensor import make_fx

    print(
        "| network | composite | compiling, s | compiled × | step by step × | gradient × |\n|---|---|--:|--:|--:|--:|"
    )
    for network in [name for name in options.network if name != "lstm"]:
        given, composite = case(network), COMPOSITES[network][0]
        graph = make_fx(partial(gradient_at, given))(given.x)
        fast_gradient = torch.compile(graph, fullgraph=True, dynamic=False)
        explain = relprop.compile(given.model, composite=composite)
        with torch.no_grad():
            fast_gradient(given.x)
        start = time.perf_counter()
        found = explain(given.x, 3).values
        compiling = time.perf_counter() - start
        torch.testing.assert_close(found, explained(given, composite), rtol=1e-2, atol=1e-3 * float(found.abs().max()))

        def yardstick(run: Callable[[Tensor], Tensor] = fast_gradient, x: Tensor = given.x) -> Tensor:
            with torch.no_grad():
                return run(x)

        runs: dict[str, Callable[[], object]] = {
            "compiled gradient": yardstick,
            "compiled": partial(explain, given.x, 3),
            "step by step": partial(explained, given, composite),
            "gradient": partial(gradient, given),
        }
        seconds = timed(runs, options.rounds, clock)
        of = {name: median(ratios(seconds, name, "compiled gradient")) for name in list(runs)[1:]}
        print(
            f"| {network} | {composite} | {compiling:.0f} | {' | '.join(f'{r:.2f}' for r in of.values())} |", flush=True
        )


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sequences", description=__doc__, formatter_class=form)
    parser.add_argument("--network", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--depth", action="store_true", help="growth with depth instead")
    parser.add_argument("--compiled", action="store_true", help="relprop.compile instead")
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "process"), default="wall")
    parser.add_argument("--peak", nargs=2, metavar=("NETWORK", "CONTESTANT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        print(own_peak(*options.peak))
        return
    print(json.dumps(report.environment("cpu", options.threads)))
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    chosen = table_of_depths if options.depth else table_of_compiled if options.compiled else table_of_networks
    chosen(options, clock)


if __name__ == "__main__":
    main()
