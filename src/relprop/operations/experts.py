"""Grouped matrix products, as in mixtures of experts: each run of rows has the weight of its own expert."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import scaled
from relprop.engine.registry import register
from relprop.operations.linear import weighted
from relprop.operations.maps import Map


class Grouped(Map):
    """`y_r = x_r w_e` for the rows r of expert e, up to `offsets[e]`: weight (e, i, j).

    A rule may stack several operands. Each has as many rows as the offsets count.
    """

    def __init__(self, multiply: Any, offsets: Tensor | None, rows: int) -> None:
        self.multiply, self.offsets, self.rows = multiply, offsets, rows

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        y = torch.cat([self.multiply(part.contiguous(), w, offs=self.offsets) for part in x.split(self.rows)])
        return y if b is None else y + b

    def transpose(self, s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        return self.forward(s, w.transpose(-2, -1))


def grouped_mm(
    call: Call, mat_a: Tensor, mat_b: Tensor, offs: Tensor | None = None, bias: Tensor | None = None, **kwargs: Any
) -> Tensor:
    if mat_a.requires_grad and mat_b.requires_grad:
        return call(scaled(mat_a, 0.5), scaled(mat_b, 0.5), offs=offs, bias=bias, **kwargs)
    if mat_a.requires_grad and mat_b.ndim == 3:
        return weighted(call, mat_a, Grouped(call.entry.function, offs, mat_a.shape[0]), mat_b, bias)
    return call()


register(
    *(found for space in (torch, F) for name in ("_grouped_mm", "grouped_mm") if (found := getattr(space, name, None))),
    family="linear",
    handler=grouped_mm,
)
