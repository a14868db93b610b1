"""Rules for max pooling other than the default, in which the winner takes all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from relprop.numerics import quotient, signed, wide
from relprop.rules.base import Rule, Windows, check_number


@dataclass(frozen=True)
class Proportional(Rule):
    """`R_i = x_i / (S + eps sgn S) R`, with `S` the sum over the window: max pooling is treated as average pooling."""

    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        check_number("epsilon", self.epsilon)

    def max_pool(self, x: Tensor, y: Tensor, g: Tensor, windows: Windows) -> Tensor:
        """`G_i = sum of y G / (S + eps sgn S)` over the windows that `i` is in."""
        trained = torch.is_grad_enabled()  # whether relevance is differentiated in its turn
        with torch.enable_grad():
            inner = x.detach().requires_grad_()
            summed = windows(inner)
        total = windows(x) if trained else summed.detach()
        share = quotient(wide(y) * wide(g), signed(wide(total), self.epsilon)).to(g.dtype)
        return torch.autograd.grad(summed, inner, share, create_graph=trained)[0]
