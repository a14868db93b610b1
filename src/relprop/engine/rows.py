"""Whether samples stay apart through each operation, each in its own rows along the first axis.

Results are read per sample, which is right only if no sample's score sends relevance to another's rows. If the
arguments of every operation show this, no measurement is needed. Otherwise the backward pass is measured.

Samples are apart in a tensor if their number divides the length of its first axis, with the first sample's rows first.
What shows it is declared with the operation: `register(..., apart=)`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from relprop.engine.registry import Entry
from relprop.engine.tensor_attributes import ELSEWHERE
from relprop.engine.tensors import tensors_in
from relprop.engine.traits import ADDS, AFFINE, BOUNDS, SAME, SCALES

_BY_ENTRY = frozenset({SAME, SCALES, ADDS, AFFINE, BOUNDS})
"""The traits of operations that act on each entry by itself."""


def apart(samples: int, entry: Entry | None, args: tuple, kwargs: dict, live: list[Tensor], result: Any) -> bool:
    """Whether an operation shows that it keeps apart the samples of its live operands."""
    if entry is None or any(ELSEWHERE.of(t) for t in live):
        return False
    results = [r for r in tensors_in(result) if r.requires_grad and not ELSEWHERE.of(r)]
    if any(r.ndim == 0 or r.shape[0] % samples for r in results):
        return False
    test = entry.tests.apart
    if test is None and (entry.family == "activation" or not _BY_ENTRY.isdisjoint(entry.traits)):
        test = by_entry
    return test is not None and all(test(args, kwargs, live, r) for r in results)


def by_entry(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    """Entry by entry, or along axes other than the first: all live operands have the result's first axis."""
    return all(t.ndim == result.ndim and t.shape[0] == result.shape[0] for t in live)
