"""Rotary positions as sinks: the relevance that ends in them, apart from that of tokens.

The cosines and sines that rotate queries and keys are constants of the model. On request they carry relevance: they are
multiplied by an extra input of ones, one per text and token. The relevance of a one is that of its position (PA-LRP,
Bakish et al. 2025, "Revisiting LRP: positional attribution as the missing ingredient for transformer explainability").
A rotation is a product, so position and token get half each. The engine itself handles positions that are looked up or
added (`relprop.attribute(positions=True)`).
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
"""The model's extra argument within the context `sinks`."""


def rotary(model: Any) -> dict[str, nn.Module]:
    """The modules that make cosines and sines, by path: they have frequencies and no weights."""
    if not isinstance(model, nn.Module):
        return {}
    return {
        name: m
        for name, m in model.named_modules()
        if any("inv_freq" in key for key, _ in m.named_buffers(recurse=False)) and not list(m.parameters())
    }


def ones(model: nn.Module, ids: Tensor) -> Tensor:
    """A one per text and token, (N, T, 1), in the model's dtype."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return torch.ones(*ids.shape, 1, dtype=dtype, device=ids.device)


@contextmanager
def sinks(model: nn.Module, modules: dict[str, nn.Module]) -> Iterator[None]:
    """A context in which the model takes the ones as an argument and multiplies these modules' outputs by them.

    Calls from other threads are not affected.
    """
    thread = threading.get_ident()
    state: dict[str, Tensor] = {}

    # another thread calls this without kwargs while this thread removes the hook
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
