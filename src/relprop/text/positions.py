"""Rotary positions as sinks: the relevance that ends in them, beside the tokens'.

The cosines and sines that rotate queries and keys are constants of the model. On request they carry relevance: each is
multiplied by ones, one per text and token, and these are an input. What arrives at a one is the relevance of its
position (PA-LRP, Bakish et al. 2025, "Revisiting LRP: positional attribution as the missing ingredient for transformer
explainability"). At a rotation, a product, position and token get half each. Positions that are looked up or added are
the engine's own (`relprop.attribute(positions=True)`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from relprop.engine.undo import Undo

NAME = "relprop_positions"
"""The model's extra argument while the context lasts."""


def rotary(model: Any) -> dict[str, nn.Module]:
    """The modules that make cosines and sines: they have frequencies and no weights."""
    if not isinstance(model, nn.Module):
        return {}
    return {
        name: m
        for name, m in model.named_modules()
        if any("inv_freq" in key for key, _ in m.named_buffers(recurse=False)) and not list(m.parameters())
    }


def ones(model: nn.Module, ids: Tensor) -> Tensor:
    """One per text and token, (N, T, 1), in the model's dtype."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return torch.ones(*ids.shape, 1, dtype=dtype, device=ids.device)


@contextmanager
def sinks(model: nn.Module, modules: dict[str, nn.Module]) -> Iterator[None]:
    """While it lasts the model takes the ones as an argument, in this thread, and these modules are multiplied by them."""
    thread = threading.get_ident()
    state: dict[str, Tensor] = {}

    # without kwargs in another thread, while this one removes its hook
    def take(_: Any, args: tuple, kwargs: dict | None = None) -> Any:
        if threading.get_ident() != thread or kwargs is None or NAME not in kwargs:
            return None
        state[NAME] = kwargs.pop(NAME)
        return args, kwargs

    def follow(_: Any, args: tuple, output: Any) -> Any:
        if threading.get_ident() != thread or NAME not in state or not isinstance(output, tuple):
            return None
        return tuple(t * state[NAME].to(t.dtype) for t in output)

    with Undo() as undo:
        undo.later(model.register_forward_pre_hook(take, with_kwargs=True, prepend=True).remove)
        for module in modules.values():
            undo.later(module.register_forward_hook(follow).remove)
        yield
