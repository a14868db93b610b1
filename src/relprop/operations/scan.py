"""Selective scans (Mamba, Mamba-2), recognised by their arithmetic: step size and matrices B and C are constants.

A step size is a softplus `d` with two uses: the decay `exp(d A)`, with A a model constant, and a product with the input
of the state. B and C are parts of equal width of one split, in the module of the scan. All this is certain only after
the forward pass, so the backward pass decides (MambaLRP, Jafari et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relprop.engine.call import Call
from relprop.engine.notes import role_of
from relprop.engine.registry import register
from relprop.engine.roles import role
from relprop.engine.run import Run
from relprop.engine.traits import ADDS, ANY, BOUNDS, MIXES, MOVES, SAME, SCALES
from relprop.operations.activations import elementwise
from relprop.operations.sample_axes import along_axis
from relprop.operations.structure import cutting
from relprop.rules import ScanConstants
from relprop.torch_private.calls import running_module

_SCANS: WeakKeyDictionary[Run, set[int | None]] = WeakKeyDictionary()
"""The modules, by identity, in which a run met a scan."""


class Suspect:
    """A possible constant of a scan: a softplus, or a part of a split. The backward pass decides."""

    def __init__(self, call: Call) -> None:
        self._run, self._here = call.run, _here()
        run = call.run  # not the call, which would keep its operands alive
        place = run.sites.locate(call.entry, "structure") if call.place is None else call.place
        self._ruled = cache(lambda: _of_scans(run.sites.decide(place)))

    def found_here(self) -> None:
        """Notes that the module now running computes a scan."""
        _SCANS.setdefault(self._run, set()).add(_here())

    @property
    def scans(self) -> bool:
        return self._here in _SCANS.get(self._run, ())

    @property
    def found(self) -> bool:
        return self.scans and self._ruled()


class StepSize(Suspect):
    """A softplus that may be the step size of a scan."""

    decays = enters = False

    def used(self, *, decays: bool = False, enters: bool = False) -> None:
        """Notes one of the two uses that make it the step size of a scan."""
        self.decays, self.enters = self.decays or decays, self.enters or enters

    @property
    def scans(self) -> bool:
        return self.decays and self.enters


def _suspected_all(known: list[Any]) -> Any:
    """A tensor made only of possible constants may also turn out to be one."""
    return frozenset().union(*known) if all(known) else None


Mark = tuple[StepSize, bool]
"""A tensor's part in a step size: the step size itself (False), or the step size times A (True)."""


def _times(run: Run, mark: Mark, args: tuple) -> Mark:
    """A step size times a model constant may be the exponent of a decay."""
    return (
        (mark[0], True)
        if any(isinstance(a, Tensor) and not a.requires_grad and run.model.belongs(a) for a in args)
        else mark
    )


SUSPECTS = role(
    "suspects", ANY,
    given_by="softplus and splits, under `ScanConstants()` or \"auto\"",
    asked_by="products: a constant of a selective scan takes no share",
    join=_suspected_all, joined_by=(ANY,),
)  # fmt: skip
STEP_SIZE = role(
    "step size", MOVES, SAME, SCALES, ADDS, BOUNDS, MIXES,
    given_by="softplus, under `ScanConstants()` or \"auto\"",
    asked_by="exp and products, which tell a selective scan by them",
    scaled=_times,
)  # fmt: skip


def mark_of(value: Any) -> Mark | None:
    return role_of(value, STEP_SIZE)


def scaled_by_model(call: Call, result: Tensor, live: Tensor, constant: Tensor) -> None:
    """A contraction with a constant scales a step size."""
    mark = mark_of(live)
    if mark is not None:
        call.give(result, STEP_SIZE, (mark[0], True) if call.is_model_constant(constant) else mark)


def multiplied(call: Call, operands: Any) -> None:
    """A step size times a live operand: the input of the state."""
    for operand in operands:
        mark = mark_of(operand)
        if mark is not None and not mark[1] and not mark[0].enters:
            mark[0].used(enters=True)
            _found(call, mark[0])


def decaying(call: Call, exponent: Tensor) -> None:
    """`exp` of a step size times A: a decay."""
    mark = mark_of(exponent)
    if mark is not None and mark[1] and not mark[0].decays:
        mark[0].used(decays=True)
        _found(call, mark[0])


def _found(call: Call, step: StepSize) -> None:
    if step.scans:
        call.trait("scan")
        step.found_here()


def _here() -> int | None:
    module: nn.Module | None = running_module()
    return None if module is None else id(module)


def certain(operands: list[Tensor]) -> Callable[[], list[bool]] | None:
    """A function by which the backward pass asks which operands are constants of a scan; None if none can be."""
    suspects = [role_of(t, SUSPECTS) for t in operands]
    if not any(suspects):
        return None
    return lambda: [bool(some) and all(s.found for s in some) for some in suspects]


def _suspected(call: Call) -> bool:
    return call.undecided or _of_scans(call.rule)


def _of_scans(rule: Any) -> bool:
    return bool(getattr(rule, "of_scans", False))


def _watch(call: Call, t: Tensor, suspect: Suspect) -> None:
    """Removes the relevance of a tensor that turns out to be a constant."""
    if t.requires_grad:
        call.give(t, SUSPECTS, frozenset({suspect}))
        t.register_hook(lambda g: torch.zeros_like(g) if suspect.found else None)


def softplus(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    y = elementwise(call, *args, **kwargs)
    if _suspected(call):
        step = StepSize(call)
        _watch(call, y, step)
        call.give(y, STEP_SIZE, (step, False))
    return y


_cut = cutting(2)


def split(call: Call, *args: Any, **kwargs: Any) -> Any:
    parts = _cut(call, *args, **kwargs)
    dim = kwargs.get("dim", args[2] if len(args) > 2 else 0)
    chosen = ScanConstants().matrices([part.shape[dim] for part in parts])
    if chosen and _suspected(call):
        suspect = Suspect(call)
        for n in chosen:
            _watch(call, parts[n], suspect)
    return parts


register(F.softplus, family="activation", handler=softplus)
register(torch.split, family="structure", handler=split, traits={MOVES}, apart=along_axis(2, "dim", "axis", default=0))
