"""Gates: factors that say how much of another passes, recognised by the values of their activation."""

from __future__ import annotations

from functools import lru_cache
from types import BuiltinFunctionType, MethodDescriptorType, NoneType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.notes import Note, note_of
from relprop.engine.origins import SOURCE, ChainStep
from relprop.engine.roles import role
from relprop.engine.traits import ADDS, AFFINE, MIXES, MOVES, SAME, SCALES
from relprop.numerics import aside

_GRID = (-1e3, -50.0, -10.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 10.0, 50.0, 1e3)
_ZERO = _GRID.index(0.0)
_PLAIN = (int, float, str, NoneType)
_BUILT_IN = (BuiltinFunctionType, MethodDescriptorType)


class Gating(NamedTuple):
    """A chain of elementwise steps, and the gate that its source was."""

    step: ChainStep
    source: Any


def known_gate(note: Note | None) -> Any:
    """What a tensor's note says of it as a gate: a number, a chain that decides, or None."""
    while note is not None and note.chain is None and note.move is not None:
        note = note.move.note
    if note is None:
        return None
    if note.chain is None:
        return note.role(GATE)
    source = note.chain.note  # as it was: the source may be overwritten since
    return Gating(note.chain.step, None if source is None or source is note else known_gate(source))


def gating(t: Tensor) -> int:
    """How much of a gate a factor is: 2 for a sigmoid, 1 for another activation, else 0."""
    return _level(known_gate(note_of(t)))


def _level(gate: Any) -> int:
    if not isinstance(gate, Gating):
        return gate or 0
    if gate.source is None:
        return _own_level(gate.step)
    steps, source = _steps(gate)
    found = _level_of(*steps)
    return max(source or 0, max(map(_own_level, steps)) if found is None else found)


def _steps(gate: Any) -> tuple[list[ChainStep], Any]:
    """The steps of a gate, first to last, and what the source of the first one was known to be."""
    steps = []
    while isinstance(gate, Gating):
        steps.append(gate.step)
        gate = gate.source
    return steps[::-1], gate


def _own_level(step: ChainStep) -> int:
    level: int = step.judged(_judge)
    return level


def _judge(step: ChainStep) -> int:
    plain = all(a is SOURCE or isinstance(a, _PLAIN) for a in (*step.args, *step.kwargs.values()))
    if plain and (isinstance(step.function, _BUILT_IN) or getattr(step.function, "__module__", "") == F.__name__):
        return _remembered(step.function, step.args, tuple(step.kwargs.items()))
    return _level_of(step) or 0


@lru_cache(maxsize=256)
def _remembered(function: Any, args: tuple, kwargs: tuple) -> int:
    """The level of one of torch's own operations with plain options, which is the same in every run."""
    return _level_of(ChainStep(function, args, dict(kwargs))) or 0


def _level_of(*steps: ChainStep) -> int | None:
    """Judged by the values of the steps, one after another; None if they do not fit together.

    A sigmoid is bounded, of one sign, and not 0 at 0. An affine function is not an activation. A chain with one value
    for all inputs, such as `exp(x - x)`, does not depend on its source: a gate like a sigmoid.
    """
    with aside(), torch.no_grad():
        for end in (1e3, 100.0, 20.0, 8.0):  # `e / (1 + e)` with e = exp(1000) has no value, nor has exp(x * x) at 50
            x = torch.tensor(_GRID, dtype=torch.float64).clamp(-end / 2, end / 2)
            x[0], x[-1] = -end, end
            y = x
            try:
                for step in steps:
                    y = step(y)
            except RuntimeError:  # a constant of it has entries of its own
                return 1 if len(steps) == 1 else None
            y = y.reshape(-1)
            if y.shape != x.shape:
                return 1 if len(steps) == 1 else None
            if bool(torch.isfinite(y).all()):
                break
        else:
            return 1
        if bool((y == y[_ZERO]).all()):
            return 2
        line = y[_ZERO] + (y[_ZERO + 2] - y[_ZERO]) * x
        if torch.allclose(y, line, rtol=1e-9, atol=1e-12):
            return 0
        bounded = bool((y[[0, -1]] - y[[1, -2]]).abs().max() <= 0.1 * y.abs().max())
        one_sign = bool((y >= 0).all() or (y <= 0).all())
        return 2 if bounded and one_sign and y[_ZERO] != 0 else 1


def sigmoidal(step: ChainStep) -> bool:
    """Whether the values of a chain are those of a sigmoid: a gate that is open on one side and shut on the other."""
    return _own_level(step) == 2 and _two_ends(step)


def _two_ends(*steps: ChainStep) -> bool:
    near, _ = _ends(*steps)
    return bool(near[0] != near[1])


def _ends(*steps: ChainStep) -> tuple[Tensor, Tensor]:
    """The values of some steps, one after another, at -50 and 50, and at -100 and 100."""
    with aside(), torch.no_grad():
        y = torch.tensor([-50.0, 50.0, -100.0, 100.0], dtype=torch.float64)
        for step in steps:
            y = step(y)
        return y[:2], y[2:]


def saturates(step: ChainStep, source: Note | None) -> bool:
    """Whether a chain is a sigmoid of what its source is a function of, and comes to an end at both sides.

    `1 / max(norm, 1e-12)` is bounded, too, but it falls for ever.
    """
    steps = [*_steps(known_gate(source))[0], step]
    if _level_of(*steps) is None:  # an entrywise one is among them
        steps = [step]
    if _level_of(*steps) != 2 or not _two_ends(*steps):
        return False
    near, far = _ends(*steps)
    level = (far - near).abs() <= 0.05 * far.abs()
    return bool((level | (far.abs() <= 1e-6 * near.abs())).all())


def gated(t: Tensor, operand: Tensor, step: ChainStep) -> Tensor:
    """Notes that a tensor is an activation of an operand: one step. The tensor has a note already."""
    note = note_of(t)
    if note is not None:
        entrywise = len(step.args) > 1 and any(isinstance(a, Tensor) and a.ndim for a in step.args)
        note.give(GATE, 1 if entrywise else Gating(step, known_gate(note_of(operand))))
    return t


def _joined(known: list[Any]) -> Any:
    return None if None in known else min(_level(gate) for gate in known)


GATE = role(
    "gate", MOVES, SAME, SCALES, ADDS, AFFINE, MIXES,
    given_by="an activation; a sigmoid counts more",
    asked_by="products under `Gate()`",
    join=_joined, read=known_gate,
)  # fmt: skip
