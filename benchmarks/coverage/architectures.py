"""What an entry of the catalogue is, and random weights under which nothing is uniform or dead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

IDS = torch.tensor([[5, 17, 3, 42, 8, 23, 31], [11, 26, 44, 7, 30, 9, 14]])


LIBRARIES = ("transformers", "timm", "torchvision")
"""Whose architectures are the first part of the page; those of packages for one kind of data are the second."""


@dataclass(frozen=True)
class Architecture:
    """A network built from nothing but a seed, and what it is shown.

    Attributes:
        name: how its library calls it.
        library: the package that defines it.
        kind: the row's section in the table.
        build: makes the module.
        inputs: makes a batch of samples: a tensor, or a dict of keyword arguments.
        select: what is explained of the output, as `relprop.attribute` takes it.
        options: further keyword arguments of the forward pass; they get no relevance.
        limit: a reason why it need not conserve even where attention is constant and nothing has a bias.
        mixes: a reason why one sample's output depends on the others in the batch.
        lively: whether its weights are made anew, see `enliven`; what a package draws may have to be what it is.
    """

    name: str
    library: str
    kind: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    select: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    limit: str = ""
    mixes: str = ""
    lively: bool = True


def enliven(model: nn.Module, inputs: Any, options: dict[str, Any]) -> None:
    """Weights of unit gain in place of a library's 0.02 or 0; batch norms with the statistics of these inputs."""
    torch.manual_seed(0)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter) if parameter.is_floating_point() else None
            if noise is None:
                continue
            if parameter.ndim < 2:
                parameter += 0.1 * noise
            elif id(parameter) in tables:
                parameter.copy_(noise)
            else:
                fan_in = parameter.shape[-1] if "expert" in name else parameter[0].numel()
                parameter.copy_(1.2 * noise * fan_in**-0.5)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not norms:
        return
    before = [m.momentum for m in norms]
    for m in norms:
        m.momentum = 1.0
        m.train()
    with torch.no_grad():
        run(model, inputs, options)
    for m, momentum in zip(norms, before, strict=True):
        m.momentum = momentum
        m.eval()
        assert m.running_var is not None
        m.running_var.clamp_(min=0.01)  # two samples of one pixel may agree


def run(model: nn.Module, inputs: Any, options: dict[str, Any]) -> Any:
    """The model's own answer."""
    return model(**inputs, **options) if isinstance(inputs, dict) else model(inputs, **options)


WORDS = ("pos", "token", "class_embed", "register", "query", "latents", "time_embed")
TABLES = ("pos", "token_type", "segment", "level_embed", "row_embed", "col_embed", "wpe", "ngram")


def without_constants(model: nn.Module) -> None:
    """Zeroes what adds to a live tensor and so keeps a share: biases, position and class tokens, running means."""
    lonely = ("weight", "proj", "kernel")
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            leaf = name.rsplit(".", 1)[-1]
            inside = name.lower()
            if not tensor.is_floating_point():
                continue
            if (
                "bias" in leaf
                or leaf in ("running_mean", "beta", "shift")
                or (leaf == "weights" and "position" in inside)
            ) or (any(word in leaf for word in WORDS) and not any(word in leaf for word in lonely)):
                tensor.zero_()
        for name, module in model.named_modules():
            if "Embedding" in type(module).__name__ and any(word in name.lower() for word in TABLES):
                for table in module.parameters(recurse=False):
                    table.zero_()
