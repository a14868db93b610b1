"""Maps that know nothing about the model. A method that is not better than these has measured nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from relprop.evaluation.generators import generator
from relprop.evaluation.subject import Subject


def _random(subject: Subject, samples: list[int], seed: int, main: Tensor | None) -> Tensor:
    shape = subject.main.shape[1:]
    rows = [torch.randn(shape, generator=generator(seed, "random", subject.fingerprint(n))) for n in samples]
    return torch.stack(rows).to(subject.main.device)


def _input(subject: Subject, samples: list[int], seed: int, main: Tensor | None) -> Tensor:
    return _main(subject, samples, main)


def _centre(subject: Subject, samples: list[int], seed: int, main: Tensor | None) -> Tensor:
    """The nearer to the middle, the more."""
    x = _main(subject, samples, main)
    axes = [torch.linspace(-1, 1, size, device=x.device, dtype=torch.float64) for size in x.shape[2:]]
    grid = torch.meshgrid(*axes, indexing="ij")
    distance = torch.stack([axis**2 for axis in grid]).sum(0).sqrt()
    return -distance.expand(len(samples), 1, *distance.shape)


def _edges(subject: Subject, samples: list[int], seed: int, main: Tensor | None) -> Tensor:
    """The size of the picture's gradient (Sobel), summed over channels."""
    x = _main(subject, samples, main).double()
    kernel = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]], device=x.device, dtype=torch.float64)
    kernels = torch.stack([kernel, kernel.T])[:, None]
    flat = torch.nn.functional.pad(x.reshape(-1, 1, *x.shape[2:]), (1, 1, 1, 1), mode="replicate")
    slopes = torch.nn.functional.conv2d(flat, kernels).square().sum(1).sqrt()
    return slopes.reshape(x.shape).sum(1, keepdim=True)


def _main(subject: Subject, samples: list[int], main: Tensor | None) -> Tensor:
    return main if main is not None else subject.main[torch.tensor(samples, device=subject.main.device)]


BASELINES: dict[str, Callable[[Subject, list[int], int, Tensor | None], Tensor]] = {
    "random": _random,
    "input": _input,
    "centre": _centre,
    "edges": _edges,
}


def beside(main: Tensor) -> tuple[str, ...]:
    """Those that are always run beside the methods."""
    if not main.is_floating_point():
        return ("random",)
    return ("random", "input", "centre", "edges") if main.ndim == 4 else ("random", "input")
