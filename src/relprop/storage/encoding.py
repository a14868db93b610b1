"""Nested results as JSON: tensors are set aside under names, everything else is plain data or text."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor

from relprop.attribution import Contrast


def encode(tree: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A tree as JSON; its tensors go into `tensors` under names that begin with `name`."""
    if isinstance(tree, Tensor):
        key = f"{name}.{len(tensors)}"
        tensors[key] = tree.detach().cpu().contiguous().clone()
        return {"tensor": key}
    if isinstance(tree, Contrast):
        return {"contrast": [encode(part, name, tensors) for part in (tree.positive, tree.negative)]}
    if isinstance(tree, (list, tuple)):
        items = [encode(item, name, tensors) for item in tree]
        return {"tuple": items} if isinstance(tree, tuple) else items
    if isinstance(tree, dict):
        return {"dict": [[encode(key, name, tensors), encode(item, name, tensors)] for key, item in tree.items()]}
    if tree is None or isinstance(tree, (bool, int, str)):
        return tree
    if isinstance(tree, float):
        return tree if math.isfinite(tree) else {"float": repr(tree)}
    return {"text": getattr(tree, "__qualname__", None) or repr(tree)}


def decode(data: Any, tensors: dict[str, Tensor]) -> Any:
    """The tree of an encoded one; what was no plain data is text.

    Raises:
        ValueError: this was not encoded by `encode`.
    """
    if isinstance(data, list):
        return [decode(item, tensors) for item in data]
    if not isinstance(data, dict):
        return data
    if len(data) != 1:
        raise ValueError(f"an entry has the keys {sorted(data)}")
    ((kind, content),) = data.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(decode(item, tensors) for item in content)
    if kind == "dict":
        return {decode(key, tensors): decode(item, tensors) for key, item in content}
    if kind == "contrast":
        return Contrast(*(decode(part, tensors) for part in content))
    if kind == "float":
        return float(content)
    if kind == "text":
        return str(content)
    raise ValueError(f"an entry is a {kind!r}")


def plain(tree: Any) -> Any:
    """A tree as JSON that anyone reads: tensors as lists of numbers, what is not finite as text."""
    if isinstance(tree, Tensor):
        return plain(tree.detach().cpu().to(torch.float64 if tree.is_floating_point() else tree.dtype).tolist())
    if isinstance(tree, Contrast):
        return {"positive": plain(tree.positive), "negative": plain(tree.negative)}
    if isinstance(tree, (list, tuple)):
        return [plain(item) for item in tree]
    if isinstance(tree, dict):
        return {str(key): plain(item) for key, item in tree.items()}
    if tree is None or isinstance(tree, (bool, int, str)):
        return tree
    if isinstance(tree, float):
        return tree if math.isfinite(tree) else repr(tree)
    return getattr(tree, "__qualname__", None) or repr(tree)


def as_json(content: Any, **options: Any) -> bytes:
    """JSON in UTF-8; halves of letters, which UTF-8 cannot hold, are escaped, with all else that is not ASCII."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, **options)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(content, ensure_ascii=True, allow_nan=False, **options).encode()
