"""One call of an operation, and how its rule or its handler answers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.composites.places import Place
from relprop.engine.messages import shapes
from relprop.engine.registry import Entry
from relprop.engine.run import Run
from relprop.errors import UnsupportedOperationError
from relprop.rules.base import Way
from relprop.torch_private.compiled import skipped
from relprop.torch_private.recorded import recording


class Call:
    """One call of an operation, as its handler sees it. `call()` runs the operation itself."""

    __slots__ = ("args", "entry", "function", "inplace", "kwargs", "live", "place", "rule", "run", "zeros")
    place: Place | None
    rule: Any

    def __init__(
        self,
        run: Run,
        entry: Entry,
        function: Callable[..., Any],
        args: tuple,
        kwargs: dict,
        live: list[Tensor],
        inplace: bool = False,
        again: Call | None = None,
    ):
        self.inplace = inplace  # whether the handler shall write into the first argument
        self.zeros = False  # whether the handler has seen to what exact zeros carry
        self.run = run
        self.entry = entry
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.live = live
        self.place = run.sites.place(entry, len(live)) if again is None else again.place
        self.rule = (None if self.place is None else run.sites.rule(self.place)) if again is None else again.rule

    @property
    def way(self) -> Way:
        """What the rule makes of any operation."""
        return Way.DEFAULT if self.rule is None else self.rule.way

    @property
    def formula(self) -> Any:
        """The rule, where it has a formula for this family; else None."""
        rule, place = self.rule, self.place
        return rule if rule is not None and place is not None and place.family in rule.formulas else None

    @skipped
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The operation on these arguments, or on its own."""
        if args or kwargs:
            return self.function(*args, **kwargs)
        return self.function(*self.args, **self.kwargs)

    def settle(self, result: Any) -> Any:
        """The result with the numbers that the model's own call gives, where torch chooses a kernel by who asks for a gradient.

        In the model parameters ask for one; while it is explained, what carries relevance does.
        """
        differs = KERNELS.get(self.entry.function)
        if differs is None or recording() or not isinstance(result, Tensor) or not differs(self):
            return result
        with torch.no_grad():
            value = self.function(*map(self.own, self.args), **{k: self.own(a) for k, a in self.kwargs.items()})
        result.data.copy_(value)
        return result

    def own(self, operand: Any) -> Any:
        """An operand as the model has it: the parameter itself, and what carries relevance as a plain tensor."""
        if not isinstance(operand, Tensor):
            return operand
        if operand.requires_grad:
            return operand if self.run.gradients.asking else operand.detach()
        parameter = getattr(operand, "_relprop_of", None)
        if parameter is None and operand._is_view():  # a view of a parameter asks for what that asks for
            parameter = getattr(operand._base, "_relprop_of", None)
        if parameter is None or parameter.untyped_storage().data_ptr() != operand.untyped_storage().data_ptr():
            return operand  # none, or its numbers were exchanged since
        with torch.no_grad():
            return parameter.as_strided(operand.shape, operand.stride(), operand.storage_offset())

    def relocate(self, family: str) -> None:
        """Takes the call for one of another family, now that its handler has looked at the operands."""
        if self.place is not None:
            self.run.sites.forget(self.place)
        self.place = self.run.sites.locate(self.entry, family)
        self.rule = self.run.sites.rule(self.place)

    def error(self, what: str) -> UnsupportedOperationError:
        return self.run.refuse(self.entry, what, shapes(self.args))


class Made(Call):
    """A call of a custom autograd function that has returned: `call()` is the result, with its own way back."""

    __slots__ = ("value",)
    value: Tensor

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs) if args or kwargs else self.value


def _folds(call: Call) -> bool:
    """Whether torch folds a product of a tensor and a matrix into one of two matrices here, and not there, or the reverse.

    It does where the matrix asks for a gradient, and where the tensor lies in order.
    """
    operands = tuple(a for a in (*call.args, *call.kwargs.values()) if isinstance(a, Tensor))[:2]
    if len(operands) < 2 or operands[0].ndim == operands[1].ndim:
        return False
    if operands[0].ndim > operands[1].ndim and operands[0].is_contiguous():
        return False
    smaller = min(operands, key=Tensor.dim)
    return smaller.requires_grad != call.own(smaller).requires_grad


def _nuclear(call: Call) -> bool:
    """Whether it is a nuclear norm: without the gradient, torch computes no singular vectors."""
    named = (a for a in (*call.args, *call.kwargs.values()) if isinstance(a, str))
    return call.entry.function is torch.nuclear_norm or "nuc" in named


KERNELS: dict[Callable[..., Any], Callable[[Call], bool]] = {
    F.linear: _folds,
    torch.matmul: _folds,
    torch.linalg.matmul: _folds,
    torch.nuclear_norm: _nuclear,
    torch.norm: _nuclear,
    torch.linalg.norm: _nuclear,
    torch.linalg.matrix_norm: _nuclear,
}
"""The operations that choose a kernel by who asks for a gradient, and whether they do so now.

None of them has a way back that needs the result itself, but the norms, which it serves as well.
"""
