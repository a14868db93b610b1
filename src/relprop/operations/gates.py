"""Gates: factors that say how much of another passes, known by the activation that made them, however they are moved."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.notes import note_of, noted
from relprop.engine.registry import DEFAULTS
from relprop.operations.biases import scored
from relprop.operations.scan import marked

_LINEAR = frozenset({"add", "sub", "rsub", "subtract", "mul", "multiply", "div", "divide", "true_divide", "neg"})
_SIGMOIDS = frozenset({"sigmoid", "hardsigmoid", "expit"})


def gating(t: Tensor) -> int:
    """How much of a gate a factor is: 2 out of a sigmoid, 1 out of another activation, else 0."""
    note = note_of(t)
    if note is None or note.step is None:
        return 0 if note is None else note.gate
    names = note.step.names
    if names & _SIGMOIDS and not note.step.squares:
        return 2
    before = 0 if note.source is None or note.source is t else gating(note.source)
    return max(before, int(bool(names - _LINEAR)))


def still_gating(call: Call, before: Tensor, result: Any) -> Any:
    """Notes on what was made of a gate, by moving or scaling its entries, that it gates as the gate did."""
    known = note_of(before)
    if known is None or (known.step is None and not known.gate and known.scan is None and not known.scores):
        return result  # most of what is moved
    gate, scan = gating(before), known.scan
    if known.scores:
        scored(call.run, result)
    for t in result if isinstance(result, (tuple, list)) else (result,):
        marked(call.run, t, scan)
        if gate and isinstance(t, Tensor) and t.requires_grad:
            note = noted(call.run, t)
            if note.step is None:
                note.gate = gate
    return result


def moving(call: Call, *args: Any, **kwargs: Any) -> Any:
    """A gate that is viewed, cast, gathered or expanded, also as another tensor is, is a gate still."""
    lone = len(call.live) == 1 or call.entry.function.__name__.endswith("_as")
    return still_gating(call, call.live[0], call()) if lone else call()


DEFAULTS["structure"] = moving
