"""Integer inputs: where their entries go until a lookup turns them into numbers that carry relevance.

Integers have no gradient. Each tensor of ids therefore carries the positions of its entries in the input; a view, a
slice or a concatenation moves the positions as it moves the ids. At a lookup the rows start to carry relevance, and
what they receive is added up at the positions their ids came from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NOWHERE = -1
"""The position of an entry that came from no input, such as a padding the model itself adds."""

_SAME = {"to", "long", "int", "type", "type_as", "cpu", "cuda", "contiguous", "masked_fill", "where", "clamp", "clone"}
_OTHERS = {"cumsum", "diff", "neg", "negative", "sum_to_size"}
"""Linear, but their results are other numbers than their operands: positions counted from a mask are no ids of it."""


@dataclass
class Positions:
    """Where the entries of a tensor of ids come from: which input, and which of its entries, flattened."""

    run: Any
    input: int
    at: Tensor


@dataclass
class Lookup:
    """One lookup of input ids: the rows that start to carry relevance, and where their ids come from."""

    positions: Positions
    rows: Tensor

    def gather(self, relevance: Tensor, into: Tensor) -> None:
        """Adds relevance, summed over the features of each row, at the positions of the ids; `into` is flat."""
        at = self.positions.at.flatten()
        per_id = relevance.reshape(at.numel(), -1).to(into.dtype).sum(1)
        into.index_add_(0, at.clamp(min=0), torch.where(at != NOWHERE, per_id, 0.0))


def track(ids: Tensor, run: Any, number: int) -> Tensor:
    """An alias of input number `number` whose entries are followed."""
    alias = ids.detach()
    alias._relprop_positions = Positions(  # type: ignore[attr-defined]
        run, number, torch.arange(ids.numel(), device=ids.device).reshape(ids.shape)
    )
    return alias


def positions_of(value: Any, run: Any) -> Positions | None:
    found = getattr(value, "_relprop_positions", None) if isinstance(value, Tensor) else None
    return found if found is not None and found.run is run else None


def follow(run: Any, function: Callable[..., Any], moves: bool, args: tuple, kwargs: dict, result: Any) -> None:
    """Notes on the result of an operation on ids where its entries come from; `moves`: it only moves entries."""
    if any(t.is_floating_point() for t in _flat(result)):
        return
    name = getattr(function, "__name__", "").strip("_")
    if name == "setitem":
        _written(run, args)
        return
    whole = args[1] if name == "where" and len(args) == 3 else args[0] if args else kwargs.get("input")
    if name in _SAME:
        source = positions_of(whole, run)
        if source is not None and isinstance(result, Tensor) and result.shape == source.at.shape:
            _note(result, source, source.at)
        return
    sources = [p for p in map(lambda t: positions_of(t, run), _flat(whole)) if p is not None]
    if not moves or name in _OTHERS or not sources or len({p.input for p in sources}) != 1:
        return
    rest = args[1:] if args else ()
    if name == "pad":
        rest, kwargs = rest[:2], kwargs | {"value": NOWHERE}
    moved = function(_moved(whole, run), *rest, **{k: v for k, v in kwargs.items() if k != "input"})
    for some, at in zip(_flat(result), _flat(moved), strict=True):
        _note(some, sources[0], at)


def _written(run: Any, args: tuple) -> None:
    """`target[index] = value`."""
    target, index, value = args
    source = positions_of(value, run) or positions_of(target, run)
    if source is None:
        return
    before = positions_of(target, run)
    at = torch.full(target.shape, NOWHERE, device=target.device) if before is None else before.at.clone()
    new = positions_of(value, run)
    at[index] = NOWHERE if new is None else new.at
    _note(target, source, at)


def _moved(value: Any, run: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_moved(item, run) for item in value]
    found = positions_of(value, run)
    return torch.full_like(value, NOWHERE, dtype=torch.int64) if found is None else found.at


def _flat(value: Any) -> list[Tensor]:
    if isinstance(value, (list, tuple)):
        return [t for item in value for t in _flat(item)]
    return [value] if isinstance(value, Tensor) else []


def _note(result: Any, source: Positions, at: Tensor) -> None:
    if isinstance(result, Tensor) and not result.is_floating_point():
        result._relprop_positions = Positions(source.run, source.input, at)  # type: ignore[attr-defined]
