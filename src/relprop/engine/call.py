"""One call of an operation, and how its rule or its handler answers it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from relprop.composites.places import Place
from relprop.engine.functions import custom, scaled
from relprop.engine.messages import shapes
from relprop.engine.registry import Entry
from relprop.engine.run import Run
from relprop.engine.zeros import preserved
from relprop.errors import UnsupportedOperationError
from relprop.rules import Block, Constant, Native, Stabilise
from relprop.rules.base import WEIGHTED
from relprop.torch_private.compiled import skipped


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
        self.place = run.place(entry, len(live)) if again is None else again.place
        self.rule = (None if self.place is None else run.rule(self.place)) if again is None else again.rule

    @skipped
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The operation on these arguments, or on its own."""
        if args or kwargs:
            return self.function(*args, **kwargs)
        return self.function(*self.args, **self.kwargs)

    def relocate(self, family: str) -> None:
        """Takes the call for one of another family, now that its handler has looked at the operands."""
        if self.place is not None:
            self.run.forget(self.place)
        self.place = self.run.locate(self.entry, family)
        self.rule = self.run.rule(self.place)

    def error(self, what: str) -> UnsupportedOperationError:
        return self.run.refuse(self.entry, what, shapes(self.args))


class Made(Call):
    """A call of a custom autograd function that has returned: `call()` is the result, with its own way back."""

    __slots__ = ("value",)
    value: Tensor

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs) if args or kwargs else self.value


def handle(call: Call) -> Any:
    """What the operation returns, with the way back that its rule or its family's handler gives it."""
    if isinstance(call.rule, Native) and not (call.run.nz_hidden and call.entry.family in WEIGHTED):
        return call()
    if isinstance(call.rule, Constant) and call.entry.family != "softmax":
        return _map(lambda t: t.detach(), call())
    if isinstance(call.rule, Block):
        return _map(lambda t: scaled(t, 0.0).clone(), call())
    zeros = call.run.nz  # before the handler moves on
    result = call.entry.handler(call, *call.args, **call.kwargs)
    if zeros:
        result = preserved(call, result)
    rule = call.rule
    if isinstance(rule, Stabilise):
        return _map(lambda t: custom(t, lambda: t.detach().clone(), rule.propagate) if t.requires_grad else t, result)
    return result


def _map(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_map(change, item) for item in value)
    return value
