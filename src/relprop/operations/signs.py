"""Which tensors cannot hold negative numbers, by how they were made."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.notes import note_of
from relprop.engine.origins import ChainStep
from relprop.engine.registry import lookup

_ABOVE_ZERO = (F.relu6, torch.sigmoid, F.sigmoid, F.hardsigmoid, F.softplus)
_LOW = {F.hardtanh: (1, "min_val"), torch.clamp: (1, "min"), torch.clip: (1, "min"), torch.clamp_min: (1, "min")}
"""Where a function is given its lower bound."""
_POSITIVE = {"ReluBackward0", "SigmoidBackward0", "SoftmaxBackward0", "ExpBackward0"}
_KEEPS_SIGNS = {
    "ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "CloneBackward0", "TransposeBackward0",
    "PermuteBackward0", "MaxPool1DBackward0", "MaxPool2DWithIndicesBackward0", "MaxPool3DWithIndicesBackward0",
    "AvgPool2DBackward0", "AvgPool3DBackward0", "AdaptiveAvgPool2DBackward0", "MeanBackward0", "MeanBackward1",
}  # fmt: skip


def never_negative(x: Tensor) -> bool:
    """Whether a tensor cannot hold negative numbers, by how it was made: its numbers are not read."""
    note = note_of(x)
    if note is not None and note.chain is not None and _positive(note.chain.step):
        return True
    return _from_positive(x.grad_fn)


def _positive(step: ChainStep) -> bool:
    """Whether the last step of a chain gives no negative numbers."""
    entry = lookup(step.function)
    if entry is None:
        return False
    place, name = _LOW.get(entry.function, (0, ""))
    low = step.kwargs.get(name, step.args[place] if len(step.args) > place else None) if name else None
    return entry.function in _ABOVE_ZERO or (isinstance(low, (int, float)) and low >= 0)


def _from_positive(node: Any) -> bool:
    """Whether a node of the graph gives no negative numbers, by its own kind and those before it."""
    while node is not None and type(node).__name__ in _KEEPS_SIGNS:
        node = node.next_functions[0][0]
    if type(node).__name__ == "CatBackward0":
        return all(_from_positive(before) for before, _ in node.next_functions)
    return type(node).__name__ in _POSITIVE
