"""Position encodings as sinks: the relevance that ends in them, beside the tokens'.

A table of positions that is added, and the cosines and sines that rotate queries and keys, are constants of the
model. On request they carry relevance: each is multiplied by ones, one per text and token, and these are an input. What
arrives at a one is the relevance of its position (PA-LRP, Bakish et al. 2025, "Revisiting LRP: positional attribution
as the missing ingredient for transformer explainability"). At a rotation, a product, position and token get half each.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from relprop.errors import InputError
from relprop.text.batch import embeddings

NAME = "relprop_positions"
"""The model's extra argument while the context lasts."""


def ones(model: nn.Module, ids: Tensor) -> Tensor:
    """One per text and token, (N, T, 1), in the model's dtype."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return torch.ones(*ids.shape, 1, dtype=dtype, device=ids.device)


@contextmanager
def sinks(model: Any, mask: Tensor) -> Iterator[list[str]]:
    """While it lasts the model takes the ones as an argument, in this thread; yields the modules that used them.

    Raises:
        InputError: the model has no position encodings that are known.
    """
    found = encoders(model)
    if not found:
        raise InputError(
            "positions=True finds no position encodings: neither a table of positions (nn.Embedding) nor rotary ones (a "
            "module with inv_freq). Relative and ALiBi positions are constants of the attention scores."
        )
    thread, state = threading.get_ident(), {"ones": None}
    used: list[str] = []

    def take(_: Any, args: tuple, kwargs: dict) -> Any:
        if threading.get_ident() != thread or NAME not in kwargs:
            return None
        state["ones"] = kwargs.pop(NAME)
        return args, kwargs

    def follow(name: str) -> Any:
        def hook(_: Any, args: tuple, output: Any) -> Any:
            one = state["ones"]
            if threading.get_ident() != thread or one is None:
                return None
            if isinstance(output, tuple):
                used.append(name)
                return tuple(t * one for t in output)
            if output.requires_grad or not _counts(args, mask, output):
                return None
            used.append(name)
            return output * one

        return hook

    with ExitStack() as stack:
        stack.callback(model.register_forward_pre_hook(take, with_kwargs=True, prepend=True).remove)
        for name, module in found.items():
            stack.callback(module.register_forward_hook(follow(name)).remove)
        yield used


def encoders(model: Any) -> dict[str, nn.Module]:
    """Modules that may give positions: rotary ones, and tables other than that of words."""
    if not isinstance(model, nn.Module):
        return {}
    words = embeddings(model)
    return {
        name: m for name, m in model.named_modules()
        if (isinstance(m, nn.Embedding) and m.weight is not words) or (hasattr(m, "inv_freq") and not list(m.parameters()))
    }  # fmt: skip


def _counts(args: tuple, mask: Tensor, output: Tensor) -> bool:
    """Whether a table was asked for positions: each real token has a higher number than the one before it."""
    if output.ndim < 2 or output.shape[-2] != mask.shape[1]:
        return False
    ids = next((a for a in args if isinstance(a, Tensor) and not a.is_floating_point()), None)
    if ids is None or ids.shape[-1] != mask.shape[1]:
        return False
    rows = ids.expand_as(mask)
    pairs = (mask[:, 1:] > 0) & (mask[:, :-1] > 0)
    steps = rows[:, 1:] > rows[:, :-1]
    asked_for_mask = bool((rows == mask).all())  # a subclass that counts by itself is given the mask
    return bool(steps[pairs].all()) or asked_for_mask
