"""Counts the samples that a method sends through the model, forward and backward, by a hook that is removed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from relprop.engine.gradients import Unhooked
from relprop.trees import leaves


@dataclass
class PassCounts:
    """Numbers of samples."""

    forwards: int = 0
    backwards: int = 0

    def forward(self, rows: int) -> None:
        """Counts samples that went forward."""
        self.forwards += rows

    def backward(self, rows: int) -> None:
        """Counts samples that went backward."""
        self.backwards += rows


@contextmanager
def counted(model: Any) -> Iterator[PassCounts]:
    """Counts while this lasts. Of a model that is not a module, nothing is seen."""
    passes = PassCounts()
    if not isinstance(model, nn.Module):
        yield passes
        return

    def after(module: nn.Module, args: Any, output: Any) -> None:
        tensors = [leaf for _, leaf in leaves(output) if isinstance(leaf, Tensor)]
        rows = tensors[0].shape[0] if tensors and tensors[0].ndim else 1
        passes.forward(rows)
        for tensor in tensors[:1]:
            if tensor.requires_grad and isinstance(tensor.grad_fn, Unhooked):
                passes.backward(rows)  # an explanation of ours, which calls no hooks of the model's gradients
            elif tensor.requires_grad:
                tensor.register_hook(lambda grad, rows=rows: passes.backward(rows))

    handle = model.register_forward_hook(after)
    try:
        yield passes
    finally:
        handle.remove()
