"""Rules for max pooling other than the default, in which the winner takes all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from relprop.numerics import quotient, signed, wide
from relprop.rules.base import Rule, check_number


@dataclass(frozen=True)
class Proportional(Rule):
    """`R_i = x_i / (S + eps sgn S) R`, with `S` the sum over the window: max pooling is treated as average pooling."""

    epsilon: float = 1e-6
    families: ClassVar[frozenset[str]] = frozenset({"max_pool"})

    def __post_init__(self) -> None:
        check_number("epsilon", self.epsilon)

    def max_pool(self, x: Tensor, y: Tensor, g: Tensor, windows: Callable[[Tensor], Tensor]) -> Tensor:
        """`G_i = sum of y G / (S + eps sgn S)` over the windows that `i` is in."""
        with torch.enable_grad():
            inner = x.detach().requires_grad_()
            total = windows(inner)
        share = quotient(wide(y) * wide(g), signed(wide(total.detach()), self.epsilon)).to(g.dtype)
        return torch.autograd.grad(total, inner, share)[0]
