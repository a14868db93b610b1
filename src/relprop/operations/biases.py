"""Biases of attention scores that stand for positions, such as ALiBi's, as sinks of relevance.

Such a bias is a model constant, or is computed from the mask. Added to the scores, it takes `b / (s + b)` of the
relevance that arrives at their sum. On request (`positions=True`) this is reported per text and key. The bias is
multiplied by ones, and the relevance of a one is that of its position (as for rotary encodings: PA-LRP, Bakish et al.
2025). Entries that a mask hides, with the lowest number or minus infinity, are not positions.

Index letters: n text, h head, t query, s key.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.notes import role_of
from relprop.engine.replay import replaying
from relprop.engine.roles import role
from relprop.engine.traits import ADDS, MIXES, MOVES, SAME, SCALES

SCORES = role(
    "scores", MOVES, SAME, SCALES, ADDS, MIXES,
    given_by="a product of two live matrices, with `positions=True`",
    asked_by="sums: a constant added to scores may stand for positions",
)  # fmt: skip


def scored(call: Call, result: Any) -> Any:
    """Notes that a product of two live matrices may be the scores of an attention."""
    if call.reports_positions and isinstance(result, Tensor) and result.requires_grad:
        call.give(result, SCORES, True)
    return result


def are_scores(value: Any) -> bool:
    return bool(role_of(value, SCORES))


def positioned(call: Call, bias: Any, shape: torch.Size) -> Any:
    """A constant bias of scores of this shape, (n, h, t, s) or (n h, t, s), made to report; others unchanged."""
    if not call.reports_positions or replaying() or not isinstance(bias, Tensor) or bias.requires_grad:
        return bias
    if bias.ndim < 2 or not bias.is_floating_point() or bias.shape[-1] != shape[-1] or len(shape) < 3:
        return bias
    seen = bias > torch.finfo(bias.dtype).min
    if not bool((seen & (bias != 0)).any()):
        return bias  # a mask
    texts = call.samples if shape[0] % max(call.samples, 1) == 0 else shape[0]
    ones = call.position_leaf(torch.ones(texts, shape[-1], 1, dtype=bias.dtype, device=bias.device))
    per_row = ones[..., 0].repeat_interleave(shape[0] // texts, 0)
    per_row = per_row.reshape(shape[0], *[1] * (len(shape) - 2), shape[-1])
    return torch.where(seen, bias.masked_fill(~seen, 0) * per_row, bias)
