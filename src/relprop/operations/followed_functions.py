"""Custom autograd functions that nobody registered: if their forward consists of operations, these are followed.

The forward runs once more, step by step, and must give the function's own result bit for bit. In each run, the first
call of each function is checked. A step may not take a tensor that no earlier step made, or that has changed since:
part of the work would be invisible.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relprop.engine import data
from relprop.engine.applied import Invisible, forward
from relprop.engine.call_variants import FinishedCall
from relprop.engine.mode import Propagation
from relprop.engine.run import Run
from relprop.engine.spelling import writes
from relprop.engine.tensors import tensors_in
from relprop.errors import UnsupportedOperationError
from relprop.numerics import known
from relprop.torch_private.names import SET_GRAD_ENABLED

_WITHOUT = {Tensor.detach, torch.detach, data.GET}
_TO_NUMPY = {Tensor.numpy, Tensor.tolist, Tensor.__array__}


class Followed(Propagation):
    """The visible steps of a custom function.

    Autograd records nothing while a forward runs, so `no_grad`, `detach` and `.data` inside it are not graph breaks.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is SET_GRAD_ENABLED and not args[0]:
            return None
        if func in _WITHOUT:
            return super().__torch_function__(Tensor.view_as, types, (args[0], args[0]), kwargs)
        if func in _TO_NUMPY:
            return func(args[0].detach(), *args[1:], **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)


class VisibleSteps(Followed):
    """The visible steps of a custom function, none of which may take a tensor that no earlier step made."""

    def __init__(self, run: Run, args: tuple) -> None:
        super().__init__(run)
        self._made: dict[int, tuple[Tensor, Tensor]] = {}
        self._keep(args)

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.check((args, kwargs))
        result = super().__torch_function__(func, types, args, kwargs)
        written = args[:1] if writes(func) else ()
        self._keep((result, written))
        return result

    def _keep(self, value: Any) -> None:
        for t in tensors_in(value):
            self._made[id(t)] = t, t.detach().clone()

    def check(self, value: Any) -> None:
        for t in tensors_in(value):
            if id(t) not in self._made and self.run.model.owns(t):
                self._keep(t)  # a module that the function runs can read its parameters
            before = self._made.get(id(t))
            if before is None or not same(before[1], t):
                raise Invisible("its forward computes by code that is not a torch operation")


def visible(call: FinishedCall, *args: Any) -> Any:
    """A custom function that nobody registered: if its forward consists of operations, these are followed."""
    function = call.entry.function
    call.keeps_zeros()  # its steps have dealt with them
    first = not call.followed(function)
    mode = VisibleSteps(call.run, args) if first else Followed(call.run)
    versions = [(t, t._version) for t in tensors_in(args)]
    before = call.value.detach().clone()
    try:
        with mode:
            result = forward(function, args)  # type: ignore[arg-type]
    except UnsupportedOperationError as error:
        raise Invisible(f"its forward cannot be followed step by step: {error}") from error
    if any(t._version != version for t, version in versions):
        call.value.data.copy_(before)  # it was written twice
        raise Invisible("it writes into its argument")
    if isinstance(mode, VisibleSteps):
        mode.check(result)
        call.follows(function)
    number = call.value.output_nr
    made = result[number] if isinstance(result, tuple) else result
    if not isinstance(made, Tensor) or not made.requires_grad:
        raise Invisible("no step of its forward hands relevance to its arguments")
    if not same(made, before):
        raise Invisible("its forward, run again, gives another result")
    return result


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal bit for bit, NaN included."""
    return a.dtype == b.dtype and a.shape == b.shape and known(((a == b) | ((a != a) & (b != b))).all(), True)
