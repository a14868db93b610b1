"""The stabiliser of LRP-epsilon, for operations without weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from relprop.numerics import quotient, signed, wide
from relprop.rules.base import Rule, check_number


@dataclass(frozen=True)
class Stabilise(Rule):
    """`R_i = sum_j c_ij R_j / (y_j + eps sgn y_j)`, in place of the denominator `y_j` of the operation's default.

    LRP-epsilon (Bach et al. 2015) for pooling, sums and other operations without weights.
    """

    epsilon: float = 1e-6
    families: ClassVar[frozenset[str]] = frozenset(
        {"avg_pool", "max_pool", "sum", "product", "division", "norm", "softmax"}
    )

    def __post_init__(self) -> None:
        check_number("epsilon", self.epsilon)

    def output(self, y: Tensor, g: Tensor) -> Tensor:
        """The `G` at the output `y` that the operation's default then receives."""
        z = wide(y)
        return quotient(z * g, signed(z, self.epsilon)).to(g.dtype)
