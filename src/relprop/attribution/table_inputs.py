"""Tables as inputs: data frames and dicts of columns become a tensor, and keep the names of their features."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from relprop.errors import InputError

_TOKENS = {"ids", "input_ids", "attention_mask", "token_type_ids"}
"""What tokenizers call their lists, which are not columns."""


def as_table(model: Any, inputs: Any) -> tuple[Any, list[str] | None]:
    """The inputs, and the names of the features if they are a table: a data frame, or a dict of columns.

    Raises:
        InputError: a column does not hold numbers, or columns differ in length.
    """
    if hasattr(inputs, "columns") and hasattr(inputs, "to_numpy") and not isinstance(inputs, Tensor):
        columns = {str(name): inputs[name] for name in inputs.columns}
        if len(columns) != len(inputs.columns):
            raise InputError("the data frame has two columns of the same name: rename one.")
        return _tensor(model, columns), list(columns)
    if (
        type(inputs) is dict
        and inputs
        and all(_column(one) for one in inputs.values())
        and not _arguments(model, inputs)
    ):
        columns = {str(name): one for name, one in inputs.items()}
        return _tensor(model, columns), list(columns)
    return inputs, None


def _column(one: Any) -> bool:
    """Whether this is a column of numbers: a list, an array or a series, and no tensor."""
    if isinstance(one, Tensor):
        return False
    if isinstance(one, (list, tuple)):
        return bool(one) and all(isinstance(n, (int, float)) for n in one)
    return hasattr(one, "__array__") and getattr(one, "ndim", 0) == 1


def _arguments(model: Any, inputs: dict[Any, Any]) -> bool:
    """Whether a key is the name of an argument of the model, or of a tokenizer's list, so that these are inputs and no table."""
    try:
        known = set(inspect.signature(model.forward if isinstance(model, nn.Module) else model).parameters)
    except (TypeError, ValueError):
        known = set()
    return any(name in known or name in _TOKENS for name in inputs)


def _tensor(model: Any, columns: dict[str, Any]) -> Tensor:
    parameter = (
        next((p for p in model.parameters() if p.is_floating_point()), None) if isinstance(model, nn.Module) else None
    )
    found = []
    for name, column in columns.items():
        try:
            one = torch.tensor(column.tolist() if hasattr(column, "tolist") else list(column), dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            kind = getattr(column, "dtype", type(column).__name__)
            raise InputError(
                f"column {name!r} holds {kind}, and a network takes numbers: encode it as in training, or leave it out."
            ) from None
        if not bool(torch.isfinite(one).all()):
            raise InputError(f"column {name!r} holds NaN or infinite values.")
        found.append(one)
    if len({len(one) for one in found}) > 1:
        lengths = ", ".join(f"{name} {len(one)}" for name, one in zip(columns, found, strict=True))
        raise InputError(f"the columns differ in length: {lengths}.")
    if not found or not len(found[0]):
        raise InputError("the table is empty: it needs at least one column and one row.")
    dtype = torch.get_default_dtype() if parameter is None else parameter.dtype
    table = torch.stack([one.to(dtype) for one in found], 1)
    return table if parameter is None or parameter.is_meta else table.to(parameter.device)
