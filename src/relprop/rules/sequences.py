"""Rules for operations that weight content rather than carry it: attention's softmax, gates, and selective scans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from relprop.rules.base import EVERYTHING, Rule, Way, check_number


@dataclass(frozen=True)
class Constant(Rule):
    """The operation's result is a constant: it takes no relevance, and the factor that it multiplies takes all.

    For the softmax of an attention: Ali et al. 2022 (CP-LRP). A log-softmax is a score and keeps its Jacobian.
    """

    families: ClassVar[frozenset[str]] = EVERYTHING
    way: ClassVar[Way] = Way.CONSTANT


@dataclass(frozen=True)
class Temperature(Rule):
    """`G_x = J(x / t)^T G` with `J` the softmax's Jacobian: for `t > 1`, attention propagates as if it were less sharp.

    Args:
        temperature: `t`; 1 is the Jacobian itself, as in AttnLRP (Achtibat et al. 2024).
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

    The gate is the operand that a sigmoid produced, else the one that another activation produced. Two operands of
    equal rank take half each.
    """

    families: ClassVar[frozenset[str]] = frozenset({"product"})

    def product(self, gates: tuple[int, int]) -> tuple[float, float]:
        """The shares of two factors, from their ranks as gates: 2 for a sigmoid, 1 for another activation, else 0."""
        first, second = gates
        return (0.5, 0.5) if first == second else (0.0, 1.0) if first > second else (1.0, 0.0)


@dataclass(frozen=True)
class ScanConstants(Rule):
    """The step size of a selective scan, and the matrices B and C that are split off for it, are constants.

    Jafari et al. 2024 (MambaLRP). The rule is assigned to every softplus and split. It acts only where these serve a
    scan: a softplus `d` gives the decay `exp(d A)`, with the model's `A`, and scales what enters the state.
    """

    families: ClassVar[frozenset[str]] = frozenset({"structure", "activation"})
    by_class: ClassVar[bool] = True

    def matrices(self, sizes: list[int]) -> tuple[int, ...]:
        """The parts of a split that may be B and C, judged by width: the last two of three, if equally wide."""
        return (1, 2) if len(sizes) == 3 and sizes[1] == sizes[2] else ()
