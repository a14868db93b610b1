"""Nested results as JSON: tensors are stored apart under names; all else is plain data or text."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor

from relprop.results.contrast import Contrast
from relprop.results.forms import FORMS, Form

# Inputs and outputs of models are some ten levels deep at most.
_DEEPEST = 64
_NOT_FINITE = ("nan", "inf", "-inf")


def encode(tree: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A tree as data for JSON. Its tensors go into `tensors`, under names that begin with `name`."""
    if isinstance(tree, Tensor):
        key = f"{name}.{len(tensors)}"
        tensors[key] = tree.detach().cpu().contiguous().clone()
        return {"tensor": key}
    if isinstance(tree, Contrast):
        return {"contrast": [encode(part, name, tensors) for part in (tree.positive, tree.negative)]}
    if isinstance(tree, Form):
        return {"form": [type(tree).__name__, encode(tree.kept(), name, tensors)]}
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


def decode(data: Any, tensors: dict[str, Tensor], depth: int = 0) -> Any:
    """The inverse of `encode`, except that objects it cannot hold come back as text.

    Each tensor is removed from `tensors`, because `encode` never writes one twice.

    Raises:
        ValueError: `encode` does not write such data.
    """
    if depth > _DEEPEST:
        raise ValueError(f"it is nested more than {_DEEPEST} deep")
    if isinstance(data, list):
        return [decode(item, tensors, depth + 1) for item in data]
    if not isinstance(data, dict):
        return data
    if len(data) != 1:
        raise ValueError(f"an entry has {len(data)} keys instead of one")
    ((kind, content),) = data.items()
    if kind == "tensor" and isinstance(content, str):
        if content not in tensors:
            raise ValueError(f"there is no tensor {content[:80]!r}, or it is used twice")
        return tensors.pop(content)
    if kind == "float" and isinstance(content, str) and content in _NOT_FINITE:
        return float(content)
    if kind == "text" and isinstance(content, str):
        return content
    if kind == "form":
        return _form(content, tensors, depth)
    if kind in ("tuple", "dict", "contrast") and isinstance(content, list):
        items = [decode(item, tensors, depth + 1) for item in content]
        if kind == "tuple":
            return tuple(items)
        if kind == "contrast" and len(items) == 2:
            return Contrast(*items)
        if kind == "dict" and all(isinstance(item, list) and len(item) == 2 for item in items):
            return _table(items)
    raise ValueError(f"an entry is a {kind[:20]!r} of {type(content).__name__}")


def _form(content: Any, tensors: dict[str, Tensor], depth: int) -> Form:
    if not isinstance(content, list) or len(content) != 2 or content[0] not in FORMS:
        raise ValueError("a target has a form that is not known")
    fields = decode(content[1], tensors, depth + 1)
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise ValueError("a target is not described")
    return FORMS[content[0]].restored(fields)


def _table(items: list[list[Any]]) -> dict[Any, Any]:
    if not all(key is None or isinstance(key, (str, int, float)) for key, _ in items):
        raise ValueError("a key of a table is neither text nor a number")
    found = {key: item for key, item in items}
    if len(found) != len(items):
        raise ValueError("a table holds a key twice")
    return found


def plain(tree: Any) -> Any:
    """A tree as data for JSON that any program reads: tensors as lists, numbers that are not finite as text."""
    if isinstance(tree, Tensor):
        return plain(tree.detach().cpu().to(torch.float64 if tree.is_floating_point() else tree.dtype).tolist())
    if isinstance(tree, Contrast):
        return {"positive": plain(tree.positive), "negative": plain(tree.negative)}
    if isinstance(tree, Form):
        return {"form": type(tree).__name__, **plain(tree.kept())}
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
    """JSON in UTF-8. If it holds lone surrogates, which UTF-8 cannot encode, all but ASCII is escaped."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, **options)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(content, ensure_ascii=True, allow_nan=False, **options).encode()
