"""Rules for what carries weights rather than content: the softmax of an attention, and gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from relprop.rules.base import EVERYTHING, Rule, Way, check_number


@dataclass(frozen=True)
class Constant(Rule):
    """What the operation returns is a constant: it takes no relevance, and leaves it to what it is multiplied with.

    For the softmax of an attention: Ali et al. 2022 (CP-LRP). A log-softmax is a score and keeps its Jacobian.
    """

    families: ClassVar[frozenset[str]] = EVERYTHING
    way: ClassVar[Way] = Way.CONSTANT


@dataclass(frozen=True)
class Temperature(Rule):
    """`G_x = J(x / t)^T G` with `J` the softmax's Jacobian: above 1 attention hands on as if it were less sharp.

    Args:
        temperature: 1 is the Jacobian itself, as in AttnLRP (Achtibat et al. 2024).
    """

    temperature: float = 1.0
    families: ClassVar[frozenset[str]] = frozenset({"softmax"})

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, above=0.0)

    def softmax(self, x: Tensor, g: Tensor, dim: int) -> Tensor:
        """From `G` at the softmax to `G` at the scores `x`."""
        weights = torch.softmax(x / self.temperature, dim)
        return weights * (g - (weights * g).sum(dim, keepdim=True))


@dataclass(frozen=True)
class Gate(Rule):
    """A product whose gate is a constant: the other operand takes all. Arras et al. 2019.

    Of two operands, the gate is the one that a sigmoid made; else the one that an activation made; where both or none
    is one, each takes half.
    """

    families: ClassVar[frozenset[str]] = frozenset({"product"})

    def product(self, gates: tuple[int, int]) -> tuple[float, float]:
        """The shares of two factors, by how much of a gate each is: 2 a sigmoid's, 1 another activation's, else 0."""
        first, second = gates
        return (0.5, 0.5) if first == second else (0.0, 1.0) if first > second else (1.0, 0.0)


@dataclass(frozen=True)
class ScanConstants(Rule):
    """The step size of a selective scan, and the matrices B and C that are split off for it, are constants.

    Jafari et al. 2024 (MambaLRP). The rule is given to every softplus and split, and acts where they serve a scan: where
    a softplus `d` makes a decay `exp(d A)`, with A the model's, and multiplies what enters the state.
    """

    families: ClassVar[frozenset[str]] = frozenset({"structure", "activation"})

    def matrices(self, sizes: list[int]) -> tuple[int, ...]:
        """Which parts of a split may be B and C, by their widths: two of three, as wide as each other."""
        return (1, 2) if len(sizes) == 3 and sizes[1] == sizes[2] else ()
