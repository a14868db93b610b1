"""Which tensors cannot hold negative numbers, by how they were made."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.notes import note_of
from relprop.engine.registry import lookup

_ABOVE_ZERO = (F.relu6, torch.sigmoid, F.sigmoid, F.hardsigmoid, F.softplus)
_POSITIVE = {"ReluBackward0", "SigmoidBackward0", "SoftmaxBackward0", "ExpBackward0"}
_KEEPS_SIGNS = {
    "ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "CloneBackward0", "TransposeBackward0",
    "PermuteBackward0", "MaxPool1DBackward0", "MaxPool2DWithIndicesBackward0", "MaxPool3DWithIndicesBackward0",
    "AvgPool2DBackward0", "AvgPool3DBackward0", "AdaptiveAvgPool2DBackward0", "MeanBackward0", "MeanBackward1",
}  # fmt: skip


def never_negative(x: Tensor) -> bool:
    """Whether a tensor cannot hold negative numbers, by how it was made: for a graph that must hold for all numbers."""
    note = note_of(x)
    entry = None if note is None or note.chain is None else lookup(note.chain.step.function)
    if entry is not None and entry.function in _ABOVE_ZERO:
        return True
    node = x.grad_fn
    while node is not None and type(node).__name__ in _KEEPS_SIGNS:
        node = node.next_functions[0][0]
    return type(node).__name__ in _POSITIVE
