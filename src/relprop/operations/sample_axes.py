"""How operations show that they keep samples apart, each in its own rows along the first axis (`engine.rows`).

Each test gets the operation's arguments, its live operands and a result. Operations name theirs where they are
registered, `register(..., apart=)`; those that act on each entry by itself need none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.engine.registry import Apart
from relprop.engine.rows import by_entry


def in_order(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    """The same entries in the same order, in another shape."""
    return not isinstance(args[1] if len(args) > 1 else kwargs.get("dtype"), torch.dtype)


def _dims(position: int, *names: str) -> Callable[[tuple, dict], list[int] | None]:
    """Reads the axes that an operation acts on: its arguments from `position` on, or one with these names."""

    def read(args: tuple, kwargs: dict) -> list[int] | None:
        given: Any = [a for a in args[position:]] or [kwargs[n] for n in names if kwargs.get(n) is not None]
        given = list(given[0]) if given and isinstance(given[0], (tuple, list)) else given
        found = [d for d in given if isinstance(d, int) and not isinstance(d, bool)]
        return found or None

    return read


def along_axis(position: int, *names: str, count: int = 1, default: int | None = None) -> Apart:
    """Acts along axes other than the first. `count` arguments from `position` on name axes; 0 means all."""
    read = _dims(position, *names)

    def test(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
        dims = read(args, kwargs)
        if dims is None:
            dims = None if default is None else [default]
        elif count:
            nested = len(args) > position and isinstance(args[position], (tuple, list))
            dims = dims if nested or position >= len(args) else dims[:count]
        if dims is None:
            return False
        return all(t.shape[0] == result.shape[0] and all(d % t.ndim != 0 for d in dims) for t in live)

    return test


def joined_off_first(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    return isinstance(dim, int) and dim % result.ndim != 0 and all(t.shape[0] == result.shape[0] for t in live)


def permuted_off_first(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    given: Any = args[1:] or [kwargs.get("dims", (None,))]
    given = given[0] if isinstance(given[0], (tuple, list)) else given
    return bool(given) and isinstance(given[0], int) and given[0] % live[0].ndim == 0


def indexed_off_first(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    """`t[key]`, and `t[key] = value`."""
    target, key = args[0], args[1]
    if len(args) == 2 and _one_of_each(key, target.shape[0]):
        return True
    if not _keeps_first(key, target.ndim):
        return False
    if len(args) < 3:
        return True
    value = args[2]
    if not (isinstance(value, Tensor) and value.requires_grad):
        return True
    place = target.detach()[key]
    return value.ndim == place.ndim and value.shape[0] == place.shape[0] == target.shape[0]


def _one_of_each(key: Any, count: int) -> bool:
    """Whether an index picks one entry of each row: `t[torch.arange(N), classes]`."""
    lists = isinstance(key, tuple) and all(isinstance(k, Tensor) and k.shape == (count,) for k in key)
    return lists and torch.equal(key[0], torch.arange(count, device=key[0].device))


def _keeps_first(key: Any, ndim: int) -> bool:
    """Whether an index leaves the first axis whole and in place."""
    keys = key if isinstance(key, tuple) else (key,)
    if not keys:
        return False
    one = keys[0]
    whole = isinstance(one, slice) and one == slice(None)
    if one is Ellipsis:
        whole = sum(k is not None and k is not Ellipsis for k in keys) < ndim
    lists = sum(not isinstance(k, (int, slice, type(None), type(Ellipsis))) for k in keys)
    numbers = sum(isinstance(k, int) for k in keys)
    return whole and (
        lists == 0 or lists + numbers == 1
    )  # several lists that are not adjacent move their axis to the front


def matrix_product(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    """`a @ b`: the first axis is a batch, or the rows of a."""
    operands = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
    a, b = operands[0], operands[1]
    if (a.requires_grad and a.ndim < 2) or (b.requires_grad and b.ndim < 3):
        return False
    ndim = result.ndim + (b.ndim == 1)
    return all(t.ndim == ndim and t.shape[0] == result.shape[0] for t in live)


def of_layer(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    """A layer whose input alone is live, and has an axis of samples."""
    x, weight = args[0] if args else kwargs["input"], args[1] if len(args) > 1 else kwargs["weight"]
    axes = weight.ndim if weight.ndim > 2 else 2
    return len(live) == 1 and live[0] is x and x.ndim >= axes and x.shape[0] == result.shape[0]


def of_layer_with_bias_first(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    """`addmm`, whose first operand is a layer's bias."""
    return len(live) == 1 and live[0] is args[1] and result.shape[0] == live[0].shape[0]


def pooled(dims: int) -> Apart:
    def test(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
        return by_entry(args, kwargs, live, result) and result.ndim == dims + 2

    return test


def normalised(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    """A layer norm or similar, over the last axes, given by their sizes."""
    over: Any = args[1] if len(args) > 1 else kwargs.get("normalized_shape")
    return (
        isinstance(over, (tuple, list, torch.Size)) and len(over) < result.ndim and by_entry(args, kwargs, live, result)
    )


def with_axes(least: int) -> Apart:
    def test(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
        return result.ndim >= least and by_entry(args, kwargs, live, result)

    return test


def recurrent(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    """A recurrent layer over sequences with the samples first. Its last states have them second, and are marked so."""
    return batch_first(args) and result.shape[0] == args[0].shape[0]


def batch_first(args: tuple) -> bool:
    """Whether a recurrent layer with these arguments takes dense sequences with the samples first."""
    packed = isinstance(args[1], Tensor) and not args[1].is_floating_point()
    return not packed and args[0].ndim == 3 and args[-1] is True


def by_einsum(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    """An einsum whose live operands and result all begin with the same letter."""
    equation = args[0]
    if not isinstance(equation, str) or "->" not in equation:
        return False
    left, right = equation.replace(" ", "").split("->")
    operands = args[1] if len(args) == 2 and isinstance(args[1], (tuple, list)) else args[1:]
    terms = left.split(",")
    if len(terms) != len(operands) or not right[:1].isalpha():
        return False
    return all(term[:1] == right[0] for term, t in zip(terms, operands, strict=True) if t.requires_grad)
