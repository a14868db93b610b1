"""Whether a first layer embeds patches: several positions of the input in each row, and several rows for each sample.

A convolution does; so does a linear layer on an image cut into patches. The default composite must not depend on which
of the two a network uses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relprop.engine.moves import fixed, history
from relprop.engine.notes import note_of
from relprop.numerics import aside
from relprop.operations.maps import Contraction, Dense


def embeds_patches(x: Tensor, linear: Any) -> bool:
    """Whether a dense layer on `x`, or a contraction of it, takes patches of the tensor that `x` was before moves."""
    if not isinstance(linear, (Contraction, Dense)):
        return False
    before, moves = history(note_of(x), x.shape)
    for n in reversed(range(len(moves))):
        if not fixed(
            moves[n]
        ):  # its numbers choose what comes next, as in a max pooling: no patch of the tensor before it
            before, moves = moves[n + 1].shape if n + 1 < len(moves) else x.shape, moves[n + 1 :]
            break
    if len(before) < 3 or not moves or x.ndim < 2:
        return False
    with aside(), torch.no_grad():
        at = torch.arange(before.numel(), dtype=torch.float64).reshape(before) + _MARK
        try:
            for move in moves:
                at = move(at)
        except (RuntimeError, TypeError, IndexError):
            return False
        rows = _rows(at[:1], linear)  # of the first sample
        filled = rows.frac() != _MARK
        rows = rows.long()
        for axis in range(1, len(before)):
            places = (rows // before[axis + 1 :].numel() % before[axis]).masked_fill(filled, before[axis])
            taken = torch.zeros(len(rows), before[axis] + 1, dtype=torch.bool).scatter_(1, places, True)[:, :-1]
            taken = taken[taken.any(1)]  # not of what a padding made
            if bool((taken.sum(1) > 1).any() and (taken != taken[:1]).any()):
                return True  # a row takes part of this axis, and another row takes another part
        return False


def _rows(x: Tensor, linear: Contraction | Dense) -> Tensor:
    """What each number of the output is a sum over, as rows: of a tensor as the layer takes it."""
    if isinstance(linear, Dense):
        return x.reshape(-1, x.shape[-1])
    summed = [axis for axis, label in enumerate(linear.live) if label not in linear.output]
    kept = [axis for axis in range(x.ndim) if axis not in summed]
    return x.permute(kept + summed).flatten(len(kept)).flatten(0, -2)


_MARK = 0.25
"""What is added to the number of an entry, so that a padding with a number is not taken for an entry."""
