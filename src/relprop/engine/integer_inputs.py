"""Integer inputs: their entries are tracked until a lookup turns them into numbers that carry relevance.

Integers have no gradient. Each tensor of ids therefore carries the positions of its entries in the input. A view, a
slice or a concatenation moves the positions with the ids. At a lookup the rows start to carry relevance, and the
relevance they receive is added up at the positions of their ids.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relprop.engine.spelling import writes
from relprop.engine.tensor_attributes import POSITIONS
from relprop.engine.tensors import each_tensor, tensors_in

NOWHERE = 0
"""The position of an entry that comes from no input, such as padding that the model adds; others count from 1."""


class OnIds(NamedTuple):
    """What an operation makes of ids, where more is known than its family says (`declare_on_ids`).

    Attributes:
        same: each entry of the result is the operand's at the same place, or a constant in its stead.
        hashes: with a model constant it turns each id into another, as tables addressed by hashes and offsets need.
        other: its results are different numbers: positions counted from a mask are not ids of the mask.
        chooses: it takes each entry from one of two operands, by a condition that comes first.
        value: the position of the argument that it writes; the other operands say where.
        adds: the position of the argument that makes it add instead of write.
    """

    same: bool = False
    hashes: bool = False
    other: bool = False
    chooses: bool = False
    value: int | None = None
    adds: int | None = None


_USUAL = OnIds()
_ON_IDS: dict[str, OnIds] = {}
_VALUE_NAMES = ("value", "values", "src", "source")


def declare_on_ids(names: str, what: OnIds) -> None:
    """Says what operations make of ids, by their names without underscores around them."""
    for name in names.split():
        _ON_IDS[name] = what


@dataclass
class Positions:
    """Where the entries of a tensor of ids come from: which input, and which of its flattened entries."""

    run: Any
    input: int
    at: Tensor


@dataclass
class Lookup:
    """One lookup of input ids: the live rows, the positions of their ids, the operation, and the module's path."""

    positions: Positions
    rows: Tensor
    name: str
    path: str

    def gather(self, relevance: Tensor, into: Tensor) -> None:
        """Adds relevance, summed over the features of each row, at the positions of the ids; `into` is flat."""
        at = self.positions.at.flatten()
        per_id = relevance.reshape(at.numel(), -1).to(into.dtype).sum(1)
        into.index_add_(0, (at - 1).clamp(min=0), torch.where(at != NOWHERE, per_id, 0.0))


def track(ids: Tensor, run: Any, number: int) -> Tensor:
    """An alias of input `number` whose entries are tracked."""
    alias = ids.detach()
    POSITIONS.put(alias, Positions(run, number, torch.arange(1, ids.numel() + 1, device=ids.device).reshape(ids.shape)))
    return alias


def positions_of(value: Any, run: Any) -> Positions | None:
    found = POSITIONS.of(value) if isinstance(value, Tensor) else None
    return found if found is not None and found.run is run else None


def follow(run: Any, function: Callable[..., Any], moves: bool, args: tuple, kwargs: dict, result: Any) -> None:
    """Notes on the result of an operation on ids where its entries come from; `moves`: it only moves entries."""
    if any(t.is_floating_point() for t in tensors_in(result)):
        return
    known = _ON_IDS.get(getattr(function, "__name__", "").strip("_"), _USUAL)
    if known.chooses and len(args) == 3:
        _chosen(run, args, result)
        return
    whole: Any = args[0] if args else kwargs.get("input")
    source = positions_of(whole, run)
    if known.same or (known.hashes and _with_constant(run, args, kwargs)):
        if (
            source is not None
            and isinstance(result, Tensor)
            and result.shape == source.at.shape
            and result is not whole
        ):
            _note(result, source, source.at.clone())  # its own copy, as the result has its own memory
        return
    value = known.value
    values = [] if value is None else [*(kwargs.get(key) for key in _VALUE_NAMES), *args[value : value + 1]]
    sources = [found for t in tensors_in([whole, *values]) if (found := positions_of(t, run)) is not None]
    if not sources:
        return
    writing = writes(function)
    adds = kwargs.get("accumulate") or (known.adds is not None and len(args) > known.adds and args[known.adds])
    if not moves or known.other or adds or kwargs.get("reduce") or len({p.input for p in sources}) > 1:
        if writing and source is not None:
            source.at.fill_(NOWHERE)  # it holds other numbers now, as do its views
        return
    if writing and source is None:
        _blank(whole, sources[0])
    rest = [_written(a, run) if n == value else a for n, a in enumerate(args)][1:]
    given = {key: _written(a, run) if key in _VALUE_NAMES else a for key, a in kwargs.items() if key != "input"}
    moved = function(_moved(whole, run), *rest, **given)
    if not writing:
        for some, at in zip(tensors_in(result), tensors_in(moved), strict=True):
            _note(some, sources[0], at)


def _chosen(run: Any, args: tuple, result: Tensor) -> None:
    """`where(condition, a, b)`: entries replaced by a constant keep their positions, as under `masked_fill`."""
    condition, *options = args
    found = [positions_of(t, run) for t in options]
    sources = [p for p in found if p is not None and p.at.shape == result.shape]
    if len(sources) == 1 and found.count(None) == 1:
        _note(result, sources[0], sources[0].at.clone())
    elif len(sources) == 2 and sources[0].input == sources[1].input:
        _note(result, sources[0], torch.where(condition, sources[0].at, sources[1].at))


def _with_constant(run: Any, args: tuple, kwargs: dict) -> bool:
    rest = (*args[1:], *kwargs.values())
    return all(not isinstance(a, Tensor) or run.model.belongs(a) for a in rest)


def _written(value: Any, run: Any) -> Any:
    """The positions of the written values; nowhere for constants."""
    return _moved(value, run) if isinstance(value, Tensor) else NOWHERE


def _blank(target: Tensor, source: Positions) -> None:
    """Adds blank positions to a tensor whose entries come from no input so far, and to its base."""
    base = target if target._base is None else target._base
    at = torch.full_like(base, NOWHERE, dtype=torch.int64)
    _note(base, source, at)
    if target is not base:
        _note(target, source, at.as_strided(target.size(), target.stride(), target.storage_offset()))


def _moved(value: Any, run: Any) -> Any:
    """The positions of ids; nowhere for constants."""

    def at(t: Tensor) -> Tensor:
        found = positions_of(t, run)
        return torch.full_like(t, NOWHERE, dtype=torch.int64) if found is None else found.at

    return each_tensor(at, value)


def _note(result: Any, source: Positions, at: Tensor) -> None:
    if isinstance(result, Tensor) and not result.is_floating_point():
        POSITIONS.put(result, Positions(source.run, source.input, at))
