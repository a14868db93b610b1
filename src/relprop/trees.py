"""Nested tuples, lists and dicts of tensors: map, flatten, slice, join."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def leaves(tree: Any, path: str = "inputs") -> list[tuple[str, Any]]:
    """Every leaf with its path, in order."""
    if isinstance(tree, (tuple, list)):
        return [leaf for i, item in enumerate(tree) for leaf in leaves(item, f"{path}[{i}]")]
    if isinstance(tree, dict):
        return [leaf for key, item in tree.items() for leaf in leaves(item, f"{path}[{key!r}]")]
    return [(path, tree)]


def map_tree(change: Callable[[Any], Any], tree: Any) -> Any:
    """The same structure with each leaf changed."""
    if isinstance(tree, tuple):
        items = [map_tree(change, item) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)
    if isinstance(tree, list):
        return [map_tree(change, item) for item in tree]
    if isinstance(tree, dict):
        return {key: map_tree(change, item) for key, item in tree.items()}
    return change(tree)


def batch_of(tree: Any) -> int:
    """The number of samples: the size of the first tensor's first axis, else 1."""
    tensors = [t for _, t in leaves(tree) if isinstance(t, Tensor)]
    return tensors[0].shape[0] if tensors and tensors[0].ndim else 1


def join(trees: Sequence[Any]) -> Any:
    """Trees of one structure joined along the first axis."""
    first = trees[0]
    if isinstance(first, tuple):
        items = [join([t[i] for t in trees]) for i in range(len(first))]
        return type(first)(*items) if hasattr(first, "_fields") else tuple(items)
    if isinstance(first, list):
        return [join([t[i] for t in trees]) for i in range(len(first))]
    if isinstance(first, dict):
        return {key: join([t[key] for t in trees]) for key in first}
    return torch.cat(list(trees)) if isinstance(first, Tensor) and first.ndim else first
