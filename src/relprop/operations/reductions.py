"""Reductions by index: sums and means are linear, extremes select, products share by the number of their factors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.registry import register
from relprop.engine.spelling import named
from relprop.engine.traits import MOVES
from relprop.operations.sample_axes import along_axis
from relprop.operations.steps import by_steps


def _by_count(y: Tensor, counts: Tensor) -> Tensor:
    """A product of `counts` live factors: an equal share to each."""
    y = y + 0
    y.register_hook(lambda g: g / counts)
    return y


def _ones(t: Any, like: Tensor) -> Any:
    """A one for each live entry."""
    live = isinstance(t, Tensor) and t.requires_grad
    return torch.full_like(t if isinstance(t, Tensor) else like, float(live), requires_grad=False)


def by_index(counting: Callable[..., Tensor]) -> Callable[..., Any]:
    """A reduction of `source` at `index` into `input`: linear, a selection, or a product, by its last argument."""

    def reduce(
        call: Call, input: Tensor, dim: int, index: Tensor, source: Any = None, reduce: str = "", *,
        include_self: bool = True, **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        source = kwargs.get("src") if source is None else source
        y: Tensor = call()
        if reduce != "prod":
            return y
        counts = counting(_ones(input, input), dim, index, _ones(source, input), include_self)
        return _by_count(y, counts.clamp_min(1))

    return reduce


def _scattered(a: Tensor, dim: int, index: Tensor, b: Tensor, include_self: bool) -> Tensor:
    return a.scatter_reduce(dim, index, b, "sum", include_self=include_self)


def _indexed(a: Tensor, dim: int, index: Tensor, b: Tensor, include_self: bool) -> Tensor:
    return (a if include_self else a.index_fill(dim, index, 0.0)).index_add(dim, index, b)


def segment_reduce(call: Call, data: Tensor, reduce: str, **kwargs: Any) -> Tensor:
    """A sum, mean, extreme or product of each run of entries along an axis."""
    y: Tensor = call()
    if reduce != "prod":
        return y
    kwargs = {key: a for key, a in kwargs.items() if key != "initial"}
    return _by_count(y, call(torch.ones_like(data, requires_grad=False), "sum", initial=0, **kwargs).clamp_min(1))


def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, reduce: str = "", value: Any = None) -> Tensor:
    """`scatter` with `reduce=`, for which torch has no gradient: treated as `scatter_reduce`."""
    source = value if src is None else src
    if not isinstance(source, Tensor):
        source = torch.full(index.shape, source, dtype=input.dtype, device=input.device)
    source = source[tuple(slice(0, n) for n in index.shape)]
    return input.scatter_reduce(dim, index, source, {"add": "sum", "multiply": "prod"}[reduce])


def _linear(args: tuple, kwargs: dict) -> bool:
    """Whether a reduction sums: its last argument is a sum or a mean."""
    return kwargs.get("reduce", args[-1] if args else None) in ("sum", "mean")


_followed = by_steps(scatter)


def scattered(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    return _followed(call, *args, **kwargs) if "reduce" in kwargs else call()


register(torch.scatter_reduce, family="selection", handler=by_index(_scattered), sums=_linear)
register(torch.index_reduce, family="selection", handler=by_index(_indexed), sums=_linear)
register(*named("segment_reduce"), family="selection", handler=segment_reduce, only=True, sums=_linear)
register(torch.scatter, family="structure", handler=scattered, traits={MOVES}, apart=along_axis(1, "dim", "axis"))
