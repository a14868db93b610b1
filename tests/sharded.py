"""Models spread over processes, held against the same model in one: run by test_interop.py, alone or as two processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import relprop
import sequences

X = torch.linspace(-1, 1, 2 * 5 * 16).reshape(2, 5, 16).sin()
TARGET = (4, 3)
COMPOSITES = ["attnlrp", "cp_lrp", "epsilon", "attnlrp_gamma", "epsilon_plus_flat"]


def decoders() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), *(sequences.Decoder() for _ in range(2)), nn.Linear(16, 16)).eval()


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16)).eval()


def sharded(model: nn.Module, mesh: DeviceMesh, **options: Any) -> nn.Module:
    for block in list(model)[1:3]:
        fully_shard(block, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


def split(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    return parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


WAYS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, DeviceMesh], nn.Module]]] = {
    "fully_shard": (decoders, sharded),
    "fully_shard, weights kept": (decoders, lambda m, mesh: sharded(m, mesh, reshard_after_forward=False)),
    "fully_shard, frozen": (lambda: decoders().requires_grad_(False), sharded),
    "data parallel": (decoders, lambda m, mesh: nn.parallel.DistributedDataParallel(m).eval()),
    "tensor parallel": (mlp, split),
}


def here(p: Tensor) -> Tensor:
    return (p.to_local() if hasattr(p, "to_local") else p).detach().clone()


def compare(way: str, composite: str, checkpoint: bool, mesh: DeviceMesh) -> None:
    made, spread = WAYS[way]
    expected = relprop.attribute(made(), X, TARGET, composite=composite)
    model = spread(made(), mesh)
    before = {n: (type(p), p.requires_grad, p.grad, here(p)) for n, p in model.named_parameters()}
    for _ in range(2):
        found = relprop.attribute(model, X, TARGET, composite=composite, checkpoint=checkpoint)
        assert type(found.values) is Tensor and not found.unknown
        torch.testing.assert_close(found.values, expected.values, rtol=1e-6, atol=1e-6)
    for name, p in model.named_parameters():
        kind, trained, gradient, numbers = before[name]
        assert type(p) is kind and p.requires_grad == trained and p.grad is gradient is None, name
        assert torch.equal(here(p), numbers), name


@contextmanager
def processes(rank: int, world: int, store: Any) -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", rank=rank, world_size=world, store=store)
    try:
        yield init_device_mesh("cpu", (world,))
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    number, count, file = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    with processes(number, count, dist.FileStore(file, count)) as several:
        for how in WAYS:
            for which in COMPOSITES:
                compare(how, which, False, several)
        dist.barrier()  # neither leaves while the other still talks to it
        print(f"{len(WAYS) * len(COMPOSITES)} maps agree")
