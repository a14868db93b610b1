"""Lookups: integers cannot carry relevance, so the rows they name start to carry it (see `engine.integer_inputs`)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import grafted, scaled
from relprop.engine.registry import register
from relprop.engine.replay import replaying
from relprop.engine.traits import MOVES
from relprop.operations.sample_axes import along_axis, indexed_off_first


def _looked_up(call: Call, ids: Tensor, rows: Tensor) -> Tensor:
    """The rows of a table named by `ids`. If the ids come from an input, the rows start to carry relevance."""
    positions = call.positions_of(ids)
    if not torch.is_grad_enabled() or (positions is None and not call.reports_positions):
        return rows
    if positions is None:
        return rows if replaying() else call.position_leaf(rows)
    return call.look_up(positions, rows)


def embedding(call: Call, input: Tensor, weight: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
    rows = call()
    return rows if rows.requires_grad else _looked_up(call, input, rows)


def embedding_bag(
    call: Call, input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None,
    norm_type: float = 2, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
    per_sample_weights: Tensor | None = None, include_last_offset: bool = False, padding_idx: int | None = None,
) -> Tensor:  # fmt: skip
    """The rows of each bag, summed or averaged, or the largest entry of each column."""
    bags = call()
    if call.positions_of(input) is None:
        return bags
    rows = _looked_up(call, input, F.embedding(input, weight))
    rows = rows.reshape(-1, rows.shape[-1])
    ids = input.flatten()
    if input.ndim == 2:
        bag = torch.arange(input.shape[0], device=ids.device).repeat_interleave(input.shape[1])
    else:
        assert offsets is not None  # torch refuses one-dimensional ids without offsets
        starts = torch.zeros(ids.numel() + 1, dtype=torch.int64, device=ids.device)
        starts.index_add_(0, offsets[: len(bags)], torch.ones_like(offsets[: len(bags)]))
        bag = starts.cumsum(0)[:-1] - 1
    kept = torch.ones_like(ids, dtype=torch.bool) if padding_idx is None else ids != padding_idx
    rows, bag = rows[kept], bag[kept]
    if mode == "max":
        return grafted(bags, _largest(rows, bag, bags))
    if per_sample_weights is not None:
        factors = per_sample_weights.flatten()[kept][:, None]
        live = rows.requires_grad and factors.requires_grad  # a product: half to each
        rows = scaled(rows, 0.5) * scaled(factors, 0.5) if live else rows * factors
    summed = torch.zeros_like(bags).index_add(0, bag, rows)
    if mode == "mean":
        summed = summed / bag.bincount(minlength=len(bags)).clamp_min(1)[:, None]
    return grafted(bags, summed)


def _largest(rows: Tensor, bag: Tensor, bags: Tensor) -> Tensor:
    """The winner takes all: the first of equal entries."""
    wins = rows.detach() == bags[bag]
    order = torch.arange(len(bag), device=bag.device)[:, None].expand_as(wins)
    first = torch.full(bags.shape, len(bag), device=bag.device)
    first = first.scatter_reduce(0, bag[:, None].expand_as(wins), torch.where(wins, order, len(bag)), "amin")
    return torch.zeros_like(bags).index_add(0, bag, rows * (first[bag] == order).to(rows.dtype))


def _rows_alone(index: tuple[Any, ...]) -> bool:
    """Whether what follows the ids in an index takes all columns."""
    return all(one is Ellipsis or (isinstance(one, slice) and one == slice(None)) for one in index)


def indexed(call: Call, table: Any, *args: Any, **kwargs: Any) -> Tensor:
    """`table[ids]`, `table[ids, :]`, `table.index_select(0, ids)`, `torch.embedding(table, ids)`: spellings of a lookup."""
    rows = call()
    if len(call.live) == 1:
        return rows
    if isinstance(rows, Tensor) and rows.is_floating_point() and not rows.requires_grad:
        for candidate in (*args, *kwargs.values()):
            ids = candidate[0] if isinstance(candidate, tuple) and _rows_alone(candidate[1:]) else candidate
            if call.positions_of(ids) is not None and rows.shape[: ids.ndim] == ids.shape:
                return _looked_up(call, ids, rows)
    return rows


register(F.embedding, family="structure", handler=embedding, only=True, on_constants=True)
for _function, _apart in (
    (torch.embedding, None),
    (torch.index_select, along_axis(1, "dim", "axis")),
    (Tensor.__getitem__, indexed_off_first),
):
    register(_function, family="structure", handler=indexed, on_constants=True, traits={MOVES}, apart=_apart)
register(F.embedding_bag, family="structure", handler=embedding_bag, only=True, on_constants=True)
