"""Inputs larger than memory: they are explained some samples at a time, and the results are joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.results.contrast import target_at, targets_of
from relprop.results.ledger import Ledger
from relprop.results.relevance import Relevance
from relprop.trees import batch_of, join, leaves, map_tree


def in_batches(
    whole: Any, inputs: Any, targets: Sequence[Any], seed: Any, size: int, progress: bool
) -> list[Relevance]:
    """Calls `whole(inputs, targets, seed, (rows, count))` on `size` samples at a time; returns one result per target, as one call would."""
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise InputError(f"batch_size must be a positive int; got {size!r}.")
    lengths = {len(t) for _, t in leaves(inputs) if isinstance(t, Tensor) and t.ndim}
    if len(lengths) > 1:
        raise InputError(
            f"batch_size= takes some samples at a time, and the inputs hold different numbers of them: {sorted(lengths)}. "
            "Leave batch_size out."
        )
    count = batch_of(inputs)
    starts: Any = range(0, count, size)
    if progress:
        try:
            from tqdm import tqdm
        except ImportError:
            raise InputError("progress=True needs tqdm: pip install relprop[progress].") from None
        starts = tqdm(starts, desc="relprop", unit="batch")

    parts = [_some(whole, inputs, targets, seed, slice(at, min(at + size, count)), count) for at in starts]
    return [_joined(list(of_one)) for of_one in zip(*parts, strict=True)]


def _some(whole: Any, inputs: Any, targets: Sequence[Any], seed: Any, rows: slice, count: int) -> list[Relevance]:
    """The results of some of `count` samples."""

    def cut(value: Any) -> Any:
        per_sample = hasattr(value, "__array__") and bool(getattr(value, "ndim", 0))
        return value[rows] if per_sample and len(value) == count else value

    some = [target_at(cut(target), rows, count) for target in targets]
    found: list[Relevance] = whole(map_tree(lambda t: t[rows], inputs), some, cut(seed), (rows, count))
    return found


LOST = (
    "a rule takes the standard deviation of each sample's output (Epsilon with relative=True), and nothing shows along which axis "
    "of a layer the samples lie. The samples cannot be explained one at a time here ({why}). If they do not lie along the first axis, the "
    "stabiliser was taken over several samples: pass each sample in a call of its own, or take an absolute epsilon."
)


def one_by_one(
    whole: Any, inputs: Any, targets: Sequence[Any], seed: Any, together: list[Relevance], further: Any
) -> list[Relevance]:
    """The results where it is not known along which axis of a layer samples lie, and a rule has to know it.

    No sample speaks for the others: in a mixture of experts, one may have experts of its own.

    Args:
        whole: as in `in_batches`.
        inputs: the inputs.
        targets: the targets.
        seed: the relevance to start with.
        together: what was found for all samples at once.
        further: further arguments of the model, which cannot be taken apart.
    """
    lengths = {len(t) for _, t in leaves(inputs) if isinstance(t, Tensor) and t.ndim}
    count = batch_of(inputs)
    if len(lengths) > 1:
        why = "the inputs have different numbers of rows"
    elif any(isinstance(t, Tensor) and t.ndim and len(t) == count for _, t in leaves(further)):
        why = "forward_args or forward_kwargs hold a tensor with a row for each sample"
    else:
        try:
            alone = in_batches(whole, inputs, targets, seed, 1, False)
        except (RuntimeError, ValueError, IndexError) as error:
            why = f"the model raises for one sample: {str(error).splitlines()[0]}"
        else:
            # the model's own numbers, to the last bit, are those of all samples
            pairs = zip(alone, together, strict=True)
            return [replace(one, output=every.output, score=every.score) for one, every in pairs]
    for result in together:
        result.notices.append(LOST.format(why=why))
    return together


def _joined(parts: list[Relevance]) -> Relevance:
    first = parts[0]
    found = targets_of([part.target for part in parts], [len(part) for part in parts])
    return Relevance(
        join([p.values for p in parts]), join([p.output for p in parts]), torch.cat([p.score for p in parts]), found,
        first.composite, torch.cat([p.residual for p in parts]), join([p.layers for p in parts]), first.rules, first.unknown,
        {name: _along(parts, name) for name in first.positions},
        Ledger.joined([p.ledger for p in parts]), list(dict.fromkeys(n for p in parts for n in p.notices)),
        weights=_added(parts),
        effect=None if first.effect is None else torch.cat([p.effect for p in parts if p.effect is not None]),
    )  # fmt: skip


def _added(parts: list[Relevance]) -> dict[str, Tensor]:
    """The relevance of parameters, over all batches."""
    names = dict.fromkeys(name for part in parts for name in part.weights)
    return {name: torch.stack([part.weights[name] for part in parts if name in part.weights]).sum(0) for name in names}


def _along(parts: list[Relevance], name: str) -> Tensor:
    """The relevance of a position encoding in all batches: joined where it is per sample, else added up."""
    found = [part.positions[name] for part in parts]
    if all(len(t) == len(part) for t, part in zip(found, parts, strict=True)):
        return torch.cat(found)
    return torch.stack(found).sum(0)
