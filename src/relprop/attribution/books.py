"""The books of one score per sample: how much of it the inputs received, and how much each operation kept.

The rows along the first axis are samples if no score sends relevance to another score's row. Most models show this by
their operations (`engine.rows`); then one backward pass gives the books of all samples. Otherwise a second pass finds
out. Its seeds are those of the first pass, each multiplied by another power of two. A sample that is on its own comes
back multiplied by exactly its factor. Where rows exchange relevance, the books follow each score into all rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.seeds import Start
from relprop.engine import Run
from relprop.engine.checkpoint import recomputing
from relprop.errors import RelpropWarning
from relprop.results.ledger import Ledger, LedgerEntry
from relprop.torch_private.recorded import recording

_FACTORS = 16
"""How many powers of two are used. All of them lie within float32."""
_SAME = {torch.float64: 1e-9}
"""How far a row may differ and still count as its own sample, as a share of its relevance.

In narrower dtypes it is 1e-4, because their sums may be taken in any order.
"""
_NONE = torch.zeros(0)
Gradients = Sequence[Tensor | None]


@dataclass
class Books:
    """Where the relevance that was handed out went.

    Attributes:
        received: how much of each score the inputs received, (N,), float64.
        ledger: what each operation absorbed.
        exchanged: whether rows of the inputs take relevance from other rows' scores.
    """

    received: Tensor
    ledger: Ledger
    exchanged: bool = False


def asks(run: Run, count: int, exchanged: bool = False) -> bool:
    """Whether the books of `count` scores may take more than one backward pass."""
    return count > 1 and (exchanged or ((run.inputs.mixing or run.trace.recorder is not None) and not recording()))


@dataclass
class Bookkeeper:
    """Keeps the books of one target, after the backward pass that gave the relevance of the inputs.

    Args:
        run: the run; it has a recorder if a ledger is wanted.
        start: the scores, and the relevance handed to them. Their graph is kept where `asks` says so.
        ends: the tensors in which relevance ends.
        read: gives the relevance of the inputs from the gradients of `ends`.
        exchanged: whether rows are known to exchange relevance. A graph that is recorded cannot find out by numbers.
    """

    run: Run
    start: Start
    ends: list[Tensor]
    read: Callable[[Gradients], list[Tensor]]
    exchanged: bool = False

    def books(self, values: list[Tensor]) -> Books:
        """The books, given the relevance of the inputs."""
        start, count, recorder = self.start, len(self.start.handed), self.run.trace.recorder
        received = per_sample(values, count)
        kept, edges = (_NONE, None) if recorder is None else recorder.balance(start.edge, start.handed)[::2]
        apart = not self.run.inputs.mixing and (recorder is None or recorder.apart)
        if self.exchanged and count > 1 and recording():
            return Books(self._each()[0], self._ledger(kept), True)
        if count == 1 or apart or recording():
            return Books(received, self._ledger(kept))
        factors = 2.0 ** (torch.randperm(count, generator=torch.Generator().manual_seed(count)) % _FACTORS)
        again = self.read(self._pass(start.gradient * factors.to(start.gradient)))
        exchanged = any(_differs(a, b, factors) for a, b in zip(values, again, strict=True))
        by_rows = not exchanged and all(_has_rows(v, count) for v in values)
        if recorder is not None:
            scaled = recorder.balance(start.edge, start.handed * factors.to(start.handed))[2]
            if not (by_rows and recorder.apart and _multiplied(edges, scaled, factors)):
                received, kept = self._each()
        elif not by_rows:
            received = self._derived(float(received.sum()))
        return Books(received, self._ledger(kept), exchanged)

    def _pass(self, seeds: Tensor, **options: Any) -> Gradients:
        with recomputing(self.run):
            return torch.autograd.grad(
                self.start.score, self.ends, seeds, retain_graph=True, allow_unused=True, **options
            )

    def _each(self) -> tuple[Tensor, Tensor]:
        """What the inputs received and what each operation kept of each score. Every score has its own backward pass."""
        start, recorder, received, kept = self.start, self.run.trace.recorder, [], []
        if recorder is not None:
            recorder.begin_pass(1, recorder.nz)
        for n in range(len(start.handed)):
            alone = torch.zeros_like(start.gradient)
            alone[n] = start.gradient[n]
            values = self.read(self._pass(alone))
            if recorder is None:
                received.append(per_sample(values, 1))
            else:
                of_operations, of_inputs, _ = recorder.balance(start.edge, start.handed[n : n + 1])
                kept.append(of_operations)
                received.append(of_inputs)
        return torch.cat(received), torch.cat(kept, 1) if kept else torch.zeros(0)

    def _derived(self, total: float) -> Tensor:
        """What the inputs received of each score. Relevance is linear in the seeds, so its derivative by them gives it."""
        try:
            factors = torch.ones_like(self.start.gradient, requires_grad=True)
            values = self.read(self._pass(self.start.gradient * factors, create_graph=True))
            (found,) = torch.autograd.grad(torch.stack([v.double().sum() for v in values]).sum(), factors)
            if abs(float(found.double().sum()) - total) <= 1e-4 * float(found.double().abs().sum()):
                return found.double()
        except RuntimeError:  # an operation without a second derivative
            pass
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RelpropWarning)  # these passes are not derivatives of the one above
            return self._each()[0]

    def _ledger(self, kept: Tensor) -> Ledger:
        recorder = self.run.trace.recorder
        if recorder is None:
            return Ledger([])
        return Ledger([LedgerEntry(*made, row) for made, row in zip(recorder.entries, kept, strict=True)])


def per_sample(values: list[Tensor], count: int) -> Tensor:
    """Relevance summed over all inputs, per sample, in float64. Inputs without a row per sample are shared out evenly."""
    total = None
    for value in values:
        value = value.detach().cpu().double() if value.device.type == "mps" else value.detach().double()
        rows = value.flatten(1).sum(1) if value.ndim > 1 else value
        part = rows if _has_rows(value, count) else value.sum().expand(count) / count
        total = part if total is None else total.to(value.device) + part
    return torch.zeros(count, dtype=torch.float64) if total is None else total


def _has_rows(value: Tensor, count: int) -> bool:
    return value.ndim > 0 and value.shape[0] == count


def _differs(one: Tensor, other: Tensor, factors: Tensor) -> bool:
    """Whether some row changed by more than its factor."""
    if not _has_rows(one, len(factors)):
        return False
    one, other = one.reshape(len(one), -1), other.reshape(len(one), -1)
    expected = one * factors.to(one)[:, None]
    difference, size = (other - expected).abs().sum(1), expected.abs().sum(1)
    return bool((difference > _SAME.get(one.dtype, 1e-4) * torch.maximum(size, other.abs().sum(1))).any())


def _multiplied(edges: Tensor | None, scaled: Tensor, factors: Tensor) -> bool:
    """Whether each edge handed on what it did in the first pass, times the factors."""
    if edges is None or edges.shape != scaled.shape:
        return False
    return torch.allclose(scaled, edges * factors.double(), rtol=1e-12, atol=0.0)
