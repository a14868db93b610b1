"""What a rule is, and what it may ask of the weighted layer it acts on.

Each family of operations has one protocol: a method of the rule, `propagate` of weighted layers, and those of `PROTOCOLS`.
Methods run without gradients; one that takes a gradient does so under `torch.enable_grad()`.

Where a rule lacks the method of a family, the family's default applies. A rule whose `way` is not `FORMULA` needs no
methods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from inspect import Signature, signature
from math import inf, isfinite
from typing import Any, ClassVar, Protocol

from torch import Tensor

from relprop.errors import RelpropError, RuleError
from relprop.signatures import public

WEIGHTED = frozenset({"linear", "conv", "bilinear", "batch_norm"})
EVERYTHING = WEIGHTED | {
    "activation",
    "max_pool",
    "avg_pool",
    "product",
    "division",
    "sum",
    "norm",
    "softmax",
    "selection",
    "recurrent",
    "structure",
}


PROTOCOLS = {
    "activation": "of operand `x`, result `output()` and `G` at it: `G` at `x`. `gradient(v)` is its own backward pass of `v`",
    "norm": "of operand `x`, result `output()` and `G` at it: `G` at `x`",
    "max_pool": "of operand `x`, result `y`, `G` at it and the `Windows`: `G` at `x`",
    "softmax": "of the scores `x`, `G` at the softmax and its axis: `G` at `x`",
    "product": "of the ranks of two factors as gates (2 like a sigmoid, 1 like another activation, 0): the share of each",
    "output": "of any result `y` and `G` at it: the `G` that the family's default receives instead",
}
"""The methods for all but weighted layers: what each is given, and what it returns."""


class Way(Enum):
    """How a rule treats any operation, before its formulas are consulted."""

    FORMULA = "the formula of the family, where the rule has one, else the default"
    DEFAULT = "the family's default"
    NATIVE = "torch's own gradient"
    BLOCKED = "no relevance passes"
    CONSTANT = "the result is a constant"
    UNDECIDED = "known when the forward pass has ended"


def check_number(name: str, value: float, above: float | None = None) -> None:
    """Refuses a parameter that is not a finite number >= 0 (or > `above`)."""
    if (
        not isinstance(value, (int, float))
        or not isfinite(value)
        or value < 0
        or (above is not None and value <= above)
    ):
        raise RuleError(f"{name} must be a finite number {'>= 0' if above is None else f'> {above:g}'}; got {value!r}.")


class Windows(Protocol):
    """The windows of a pooling. Each output is the maximum of one window, and an entry may lie in several."""

    def __call__(self, x: Tensor) -> Tensor:
        """The sum of each window: from the shape of the input to that of the output."""
        ...

    def entries(self, x: Tensor, outside: float = -inf) -> Tensor:
        """The entries of each window, along a new last axis; `outside` where the window has none: in the padding."""
        ...

    def collect(self, shares: Tensor) -> Tensor:
        """Back from entries of windows to the input: what an entry has in all its windows is added up."""
        ...


class Layer(Protocol):
    """A weighted layer `z = A(weight) x + bias` during the backward pass.

    Attributes:
        x: the layer's input.
        weight: its weight, merged with a BatchNorm that follows.
        bias: its bias, in a shape that broadcasts with `z`, or 0.
        z: its output. Entries that a following relu sets to 0 may be 0 here already: no relevance arrives there.
    """

    x: Tensor

    @property
    def weight(self) -> Tensor: ...
    @property
    def bias(self) -> Tensor | float: ...
    @property
    def z(self) -> Tensor: ...
    @property
    def nonnegative(self) -> bool:
        """Whether `x` is known to have no negative entry by how it was made, as after a relu."""
        ...

    @property
    def rectified(self) -> bool:
        """Whether no relevance arrives where the output is negative, because a relu follows."""
        ...

    @property
    def extent(self) -> tuple[int, ...]:
        """The axes of `x` along which values are of one kind: the positions of a convolution, or those that a unit sums."""
        ...

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | float = 0.0) -> Tensor:
        """`A(weight) x + bias`."""
        ...

    def transpose(self, s: Tensor, weight: Tensor | None = None) -> Tensor:
        """`A(weight)` transposed, times `s`: from the shape of `z` to that of `x`; by default with `self.weight`."""
        ...

    def relevance(self, g: Tensor) -> Tensor:
        """`R_j = z_j G_j`, the relevance that arrived: a new tensor, in float32 or wider."""
        ...

    def share(self, g: Tensor, denominator: Tensor) -> Tensor:
        """`R_j / denominator_j`, and 0 where the denominator is 0."""
        ...

    def stabilised(self, g: Tensor, epsilon: float | Tensor) -> Tensor:
        """`R_j / (z_j + epsilon sgn z_j)`, and 0 where the denominator is 0."""
        ...

    def deviation(self) -> Tensor:
        """The standard deviation of `z` over the whole output of each sample, shaped to broadcast with `z`."""
        ...

    def halves(self, g: Tensor, denominator: Tensor) -> tuple[Tensor, Tensor]:
        """`R_j / denominator_j`, and the same times the sign of `z_j`; 0 where the denominator is 0.

        The denominator must be at least a constant times `|z_j|`.
        """
        ...

    def once(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """The result of the first `compute` of this backward pass, for values that do not depend on the sample."""
        ...

    def of_weight(self, name: str, change: Callable[[Tensor], Tensor], within: Callable[[Tensor], Tensor]) -> Tensor:
        """`once(name, lambda: change(weight))`. `within` does the same in place, to save a copy of the weight."""
        ...

    def without_bias(self) -> Layer:
        """The same layer with a bias of 0 (the relevance that arrived stays)."""
        ...


class _Made(type):
    """The metaclass of rules. The error for an unknown parameter names the rule's own parameters."""

    @property
    def __signature__(cls) -> Signature:
        """The constructor's signature, for `help` and the like."""
        made = signature(cls.__init__)  # type: ignore[misc]
        return made.replace(parameters=list(made.parameters.values())[1:])

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except TypeError as error:
            if isinstance(error, RelpropError):
                raise
            again: Any = cls.__init__  # type: ignore[misc]
            public(cls.__name__)(again)(cls.__new__(cls), *args, **kwargs)  # type: ignore[call-overload]
            raise


@dataclass(frozen=True)
class Rule(metaclass=_Made):
    """Base of all rules: a frozen value, compared by its parameters.

    Attributes:
        families: the families of operations the rule can act on. Those whose method it defines need not be named.
        proportional: whether `R_i = 0` wherever `x_i = 0`. A rule that may give relevance to zeros says False here, and
            returns `R / relprop.numerics.nonzero(x)`.
        linear: whether `G` at the input is linear in `G` at the output, so that parts of relevance add up to the whole.
        way: how the rule treats any operation.
        formulas: the protocols that the rule defines, with the weighted families for `propagate`.
        of_scans: whether the rule takes parts of a selective scan for constants, so that it needs none of the protocols.
    """

    families: ClassVar[frozenset[str]] = frozenset()
    proportional: ClassVar[bool] = True
    linear: ClassVar[bool] = True
    way: ClassVar[Way] = Way.FORMULA
    formulas: ClassVar[frozenset[str]] = frozenset()
    of_scans: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.families = cls.families | {name for name in PROTOCOLS if name in EVERYTHING and hasattr(cls, name)}
        weighted = cls.families & WEIGHTED if hasattr(cls, "propagate") else frozenset()
        cls.formulas = weighted | {name for name in PROTOCOLS if hasattr(cls, name)}


class Undecided:
    """Stands in for a rule until the forward pass ends: only then is it known which layer is the last."""

    way = Way.UNDECIDED
    formulas: frozenset[str] = frozenset()


UNDECIDED = Undecided()


@dataclass(frozen=True)
class WeightedRule(Rule):
    """A rule for weighted layers (linear, conv, bilinear, BatchNorm on its own). Subclass it to write your own."""

    families: ClassVar[frozenset[str]] = WEIGHTED
    whole_output: ClassVar[bool] = False
    """Whether the rule also reads `layer.z` where no relevance arrives (as a standard deviation does)."""
    per_sample: ClassVar[bool] = False
    """Whether the rule reads numbers of a sample as a whole, such as a standard deviation. It takes the first axis for
    that of the samples. Where a layer's samples lie elsewhere, they are explained one at a time."""
    reads_signs: ClassVar[bool] = True
    """Whether the rule asks `layer.nonnegative`."""
    separable: ClassVar[bool] = False
    """Whether the rule may be given a layer in parts, to save memory: some samples of a batch, or some outputs of a
    dense layer. Such a rule must not combine samples or outputs, nor hold a tensor in the shape of a sample."""

    @property
    def of_output(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """The function of `(z, g)` that changes `G` so that LRP-0 then completes the rule; None if there is none."""
        return None

    def propagate(self, layer: Layer, g: Tensor) -> Tensor:
        """From `G` at the output to `G` at the input, where relevance is `R = tensor * G`."""
        raise NotImplementedError(f"{type(self).__name__} must define propagate(layer, g).")
