"""Rules for max pooling, beside the default in which the winner takes all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from relprop.rules.base import Rule, check_number


@dataclass(frozen=True)
class Proportional(Rule):
    """`R_i = x_i / (S + eps sgn S) R`, with `S` the sum over the window: max pooling shared out like average pooling."""

    epsilon: float = 1e-6
    families: ClassVar[frozenset[str]] = frozenset({"max_pool"})

    def __post_init__(self) -> None:
        check_number("epsilon", self.epsilon)
