"""`python -m benchmarks.kernels`: how many kernels an explanation starts, and how often it waits for the device.

On a GPU these are what an explanation costs beside its convolutions and products of matrices. They are counted on a CPU,
by a dispatch mode, and do not depend on the machine. `--size 224` counts at another size of the inputs; the counts are
the same.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import relprop
from benchmarks.counted import densenet_121, efficientnet_b0, mobilenet_v2
from benchmarks.networks import ResNet, images
from benchmarks.sequences import Llama, ViT
from relprop.attribution import later

MATRICES = frozenset(["convolution", "convolution_backward", "mm", "addmm", "bmm", "baddbmm", "linear", "matmul", "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward"])  # fmt: skip
"""Convolutions and products of matrices, which are counted by themselves."""
FREE = frozenset(["_unsafe_view", "reshape", "view_as", "unflatten", "chunk", "split_with_sizes", "unbind", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh", "resize_", "set_", "_reshape_alias", "resolve_conj"])  # fmt: skip
"""What starts no kernel, beside views."""
WAITS = frozenset(
    [
        "_local_scalar_dense",
        "nonzero",
        "equal",
        "is_nonzero",
        "masked_select",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
    ]
)
"""What needs numbers on the side of Python, or for the shape of a result."""
READS = frozenset({Tensor.tolist, Tensor.numpy, Tensor.__array__})
"""The same, where a CPU needs no operation for it."""


class Counts(TorchDispatchMode):
    """Counts the operations that reach a device.

    Attributes:
        kernels: elementwise operations, sums and the like, by name.
        matrices: convolutions and products of matrices, by name.
        waits: how often Python waited for a number, by the name of what asked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter[str] = Counter()
        self.matrices: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITS:
            self.waits[name] += not _of_host(args)
        elif name in MATRICES:
            self.matrices[name] += 1
        elif name not in FREE and not func.is_view:
            self.kernels[name] += 1
            if name == "index" and any(isinstance(at, Tensor) and at.dtype is torch.bool for at in args[1]):
                self.waits["index by a mask"] += 1
        return func(*args, **(kwargs or {}))


class Reads(TorchFunctionMode):
    """Counts what reads numbers without an operation."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in READS and not _of_host(args):
            self.counts.waits[func.__name__] += 1
        return func(*args, **(kwargs or {}))


def _of_host(args: tuple) -> bool:
    """Whether an operation is on the state of a generator: bytes, which lie in the host's memory on every device."""
    return bool(args) and isinstance(args[0], Tensor) and args[0].dtype is torch.uint8


def counted(call: Callable[[], object]) -> Counts:
    """The counts of one call, after another that may take more."""
    call()
    counts = Counts()
    with ExitStack() as within:
        within.enter_context(Reads(counts))
        within.enter_context(patch.object(later, "waits_for", lambda device: True))
        within.enter_context(counts)
        call()
    return counts


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    leaf = x.detach().requires_grad_()
    return torch.autograd.grad(model(leaf)[:, 3].sum(), leaf)[0]


CONVOLUTIONAL = ("zero", "epsilon", "gamma_flat", "epsilon_plus")
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]] = {
    "ResNet-50": (partial(ResNet, ((8, 3, 1), (16, 4, 2), (32, 6, 2), (64, 3, 2)), 10), CONVOLUTIONAL),
    "EfficientNet-B0": (efficientnet_b0, CONVOLUTIONAL),
    "MobileNet-v2": (mobilenet_v2, CONVOLUTIONAL),
    "DenseNet-121": (densenet_121, CONVOLUTIONAL),
    "ViT-S": (partial(ViT, 12, 24, 2), ("zero", "attnlrp", "attnlrp_gamma")),
    "decoder, 8 layers": (partial(Llama, 8, 16, 2, 24), ("zero", "attnlrp", "attnlrp_gamma", "cp_lrp")),
}


def built(name: str, size: int = 32) -> tuple[nn.Module, Tensor]:
    """A network with random weights, and one sample."""
    torch.manual_seed(0)
    model = NETWORKS[name][0]().eval().requires_grad_(False)
    if isinstance(model, Llama):
        return model, torch.randn(1, 8, 16)
    return model, images(1, 224 if isinstance(model, ViT) else size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | composite | kernels | convolutions and products | waits |\n|---|---|--:|--:|--:|")
    for name, (_, composites) in NETWORKS.items():
        model, x = built(name, options.size)
        calls = {"gradient": partial(gradient, model, x)}
        for composite in composites:
            calls[f"`{composite}`"] = partial(relprop.attribute, model, x, 3, composite=composite)
        for label, call in calls.items():
            found = counted(call)
            numbers = (found.kernels.total(), found.matrices.total(), found.waits.total())
            print(f"| {name} | {label} | {' | '.join(map(str, numbers))} |", flush=True)


if __name__ == "__main__":
    main()
