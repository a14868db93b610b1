"""Relevance of exact zeros on its way back to the input.

A rule that gives relevance to an exact zero returns `G = R / tiny` there (see `numerics`). Let `y = A x + b`. A zero of
`y` passes its relevance to the zeros of `x` that made it, in shares that sum to one. If it came about otherwise, as
`1 - 1`, no shares can be assigned, and it keeps its relevance. The plain gradient would multiply by `A` instead, and so lose
relevance, create it, or flip its sign. Moved entries need no change. Operations not known to keep zeros apart drop it.
The real and the imaginary part of a complex number are two entries; only moves are known to keep their zeros apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import custom, grafted
from relprop.engine.run import Run
from relprop.engine.tensor_attributes import NOTE
from relprop.engine.tensors import each_tensor, without_history
from relprop.engine.traits import ADDS, AFFINE, FIRST, MOVES, REDUCES, SAME, SCALES
from relprop.numerics import carrying, from_parts, in_parts, known, nonzero, tiny
from relprop.rules.base import WEIGHTED

_AFFINE = frozenset({ADDS, SCALES, AFFINE})
_MOVING = ("selection", "max_pool")
_WITH_CONSTANTS = ("product", "linear", "structure")


def preserved(call: Call, result: Any) -> Any:
    """The result of an operation with its own gradient, corrected so that zeros keep their relevance."""
    if call.zeros or call.entry.decomposes or not call.live:
        return result
    x = call.live[0]
    if SAME in call.entry.traits and isinstance(result, Tensor) and tiny(result.dtype) > tiny(x.dtype):
        return _narrowed(call, x)
    several = isinstance(result, (tuple, list))
    if not several and isinstance(result, Tensor):
        result = _whole(call, result)
    for number, y in enumerate(result if several else (result,)):
        if not isinstance(y, Tensor) or not y.requires_grad or any(y is t for t in call.live):
            continue
        if y.is_complex() or any(t.is_complex() for t in call.live):
            _drop_unless_moved(call, y)
        elif y.is_floating_point():
            _preserve(call, y, x, number if several else None)
    return result


def _whole(call: Call, y: Tensor) -> Tensor:
    """A result in memory of its own: of a view, as einsum returns it, torch forgets hooks where it is written into."""
    moved = {SAME, MOVES} & call.entry.traits or call.entry.family in _MOVING
    if moved or not y.requires_grad or not y._is_view() or any(y is t for t in call.live):
        return y
    whole = y.clone()
    NOTE.put(whole, NOTE.of(y))
    return whole


def _preserve(call: Call, y: Tensor, x: Tensor, number: int | None = None) -> None:
    """Scales the relevance of zeros of a result, or of one of several."""
    traits, family = call.entry.traits, call.entry.family
    lone, reduction = len(call.live) == 1, _reduction(call)
    share: Callable[[Tensor], Tensor | None]
    if SAME in traits or MOVES in traits or (family in _MOVING and reduction not in ("sum", "mean", "prod")):
        if y.dtype == x.dtype:
            return
        share = lambda dead: None  # noqa: E731
    elif traits & _AFFINE and (lone or FIRST in traits):
        share = lambda dead: _of_affine(call, x, dead, number)  # noqa: E731
    elif REDUCES in traits or (lone and family in _WITH_CONSTANTS) or reduction in ("sum", "mean"):
        share = lambda dead: _of_sum(call, number)  # noqa: E731
    else:
        share = lambda dead: torch.zeros((), dtype=y.dtype, device=y.device)  # noqa: E731
    with torch.no_grad():
        _hook(call.run, y, share, x.dtype)


def _reduction(call: Call) -> str | None:
    """What is made of the entries that share an index: a "sum", a "mean", a "prod", or the largest or smallest of them."""
    if call.entry.tests.sums is None or call.entry.family not in _MOVING:
        return None
    found = call.kwargs.get("reduce", call.args[-1] if call.args else None)
    return found if isinstance(found, str) else None


def _drop_unless_moved(call: Call, y: Tensor) -> None:
    """Drops the relevance of zeros at the result of an operation on complex numbers, or one that makes them."""
    if {SAME, MOVES} & call.entry.traits and call.entry.family not in WEIGHTED:
        return
    run, dead = call.run, in_parts(y.detach()) == 0
    if y.device.type == "cpu" and not known(dead.any(), True):
        return

    def drop(g: Tensor) -> Tensor | None:
        if not run.sites.nz_first:
            return None
        parts = in_parts(g)
        return from_parts(parts.masked_fill(dead & carrying(parts), 0.0), g)

    y.register_hook(drop)


def _rescaled(t: Tensor, run: Run, scale: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor whose zeros pass on `scale` times their relevance."""
    if not t.requires_grad:
        return t
    seen = t.view_as(t)
    _scale_at_zeros(seen, run, scale, dtype)
    return seen


def _scale_at_zeros(t: Tensor, run: Run, scale: Tensor, dtype: torch.dtype | None = None) -> None:
    """Scales the relevance of a tensor's zeros, if they turn out to carry any."""
    t.register_hook(
        lambda g: (
            g * torch.where(carrying(g, dtype), scale, 1.0).to(g.dtype) if g is not None and run.sites.nz_first else g
        )
    )


def _narrowed(call: Call, x: Tensor) -> Tensor:
    """A cast to a dtype whose stand-in for a zero is larger: the relevance of zeros is scaled in the wider dtype."""
    y = call.function(*map(without_history, call.args), **{k: without_history(a) for k, a in call.kwargs.items()})
    scale = torch.ones_like(x).masked_fill_(x.detach() == 0, tiny(y.dtype) / tiny(x.dtype))
    return _on(call, x, _rescaled(x, call.run, scale, y.dtype))


def _hook(run: Run, y: Tensor, share: Callable[[Tensor], Tensor | None], dtype: torch.dtype) -> None:
    """Scales `G` at the zeros of a tensor, if they turn out to carry relevance."""
    dead = y.detach() == 0
    # on other devices, waiting for the answer would take longer than the hook
    if y.device.type == "cpu" and not known(dead.any(), True):
        return
    at_zeros = share(dead)
    factor: Any = 1.0 if at_zeros is None else at_zeros
    if y.dtype != dtype:
        factor = factor * (tiny(y.dtype) / tiny(dtype))
    scale = torch.where(dead, torch.as_tensor(factor, dtype=y.dtype, device=y.device), 1.0).to(y.dtype)
    _scale_at_zeros(y, run, scale)


def through_chain(call: Call, y: Tensor, x: Tensor, source: Tensor) -> Tensor:
    """A sum that ends an elementwise function of `source`, such as `2 * sigmoid(2 s) - 1`, which is a tanh.

    Its operand x is not 0 where the sum and the source are. There the relevance goes to the source, as through any
    function of it that is 0 at 0.
    """
    with torch.no_grad():
        both = (y == 0) & (source == 0) & (x != 0)
        if not known(both.any(), True):
            return y
    if not call.zeros:
        _preserve(call, y, x)
        call.keeps_zeros()
    run, ratio = call.run, tiny(y.dtype) / tiny(source.dtype)

    def propagate(s: Tensor, g: Tensor) -> Tensor:
        return torch.where(both & carrying(g), g * ratio, 0.0) if run.sites.nz_first else torch.zeros_like(g)

    value = y.detach().clone()
    return grafted(value, y + custom(source, lambda: torch.zeros_like(value), propagate))


def _of_affine(call: Call, x: Tensor, dead: Tensor, number: int | None) -> Tensor:
    """`y = a x + b`, entry by entry: all goes to x if x is also 0."""
    one, dead_ones, none = (
        _result(_on(call, x, value), number)
        for value in (torch.ones_like(x), (x.detach() == 0).to(x.dtype), torch.zeros_like(x))
    )
    slope, alone = one - none, dead_ones - none != 0
    return torch.where(alone & dead, 1 / slope, 0.0)


def _of_sum(call: Call, number: int | None) -> Tensor:
    """A weighted sum: shares by the weights, if all summands are 0 and the weights have one sign."""
    zeros = _result(_on_each(call, lambda x: (x == 0).to(x.dtype), lambda c: c), number)
    sizes, others = (
        _result(_on_each(call, lambda x, z=z: ((x == 0) == z).to(x.dtype), torch.abs), number)  # type: ignore[misc]
        for z in (True, False)
    )
    clear = (others == 0) & (zeros != 0) & torch.isclose(zeros.abs(), sizes, rtol=1e-6, atol=0.0)
    return torch.where(clear, 1 / zeros, 0.0)


def _result(results: Any, number: int | None) -> Tensor:
    """The one result of an operation, or one of several."""
    return results if number is None else results[number]


def _on(call: Call, x: Tensor, value: Tensor) -> Any:
    """The operation with another value for one operand."""
    args = tuple(value if a is x else without_history(a) for a in call.args)
    return call.function(*args, **{k: value if a is x else without_history(a) for k, a in call.kwargs.items()})


def _on_each(call: Call, change: Callable[[Tensor], Tensor], constant: Callable[[Tensor], Tensor]) -> Any:
    """The operation with `change` of each live operand, and `constant` of each other one, in their places."""

    def changed(t: Tensor) -> Tensor:
        if not t.is_floating_point():
            return t
        return change(t.detach()) if t.requires_grad else constant(t)

    return call.function(*each_tensor(changed, call.args), **each_tensor(changed, call.kwargs))


def sum_of_two(add: Callable[..., Tensor], call: Call, a: Tensor, b: Tensor, **kwargs: Any) -> Tensor:
    """`y = a + b` or `a - b`, computed by `add`: where both are 0, half to each, whatever the sign."""
    call.keeps_zeros()
    run = call.run
    a, b = torch.broadcast_tensors(a, b)
    left, right = a.detach(), b.detach()
    both = (left == 0) & (right == 0)
    dead = add(left, right, **kwargs) == 0
    one, none = torch.ones_like(left), torch.zeros_like(left)

    def share(sign: Tensor) -> Tensor:
        return torch.where(dead, torch.where(both & (sign != 0), 0.5 / sign, 0.0), 1.0)

    of_a, of_b = share(add(one, none, **kwargs)), share(add(none, one, **kwargs))
    return add(_rescaled(a, run, of_a), _rescaled(b, run, of_b), **kwargs)


def product_of_two(call: Call, a: Tensor, b: Tensor, shares: list[Any]) -> Tensor:
    """`y = a b`: each factor gets its share of a zero's relevance, even if the other factor is the zero."""
    call.keeps_zeros()
    run = call.run
    a, b = torch.broadcast_tensors(a, b)
    left, right = a.detach().clone(), b.detach().clone()  # the model may overwrite its own
    y = call(left, right)
    dead = y == 0

    def back(share: Any, other: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        def propagate(x: Tensor, g: Tensor) -> Tensor:
            ratio = torch.where(dead & carrying(g), tiny(x.dtype) / nonzero(x), other) if run.sites.nz_first else other
            return g * ratio * (share() if callable(share) else share)

        return propagate

    parts = [custom(x, y.clone, back(s, o)) for x, s, o in ((a, shares[0], right), (b, shares[1], left))]
    return grafted(y, parts[0] + parts[1])
