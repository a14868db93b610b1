"""Custom autograd functions, `class F(torch.autograd.Function)`: no mode sees `F.apply`, only what runs inside it.

While `F.forward` runs, the frame of `F.apply` stands on this thread's stack and holds the arguments. They are noted at
the first torch operation inside, and belong to a result whose node in the graph leads to the very same places.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from relprop.engine import functions

_APPLY = torch.autograd.Function.apply.__func__.__code__  # type: ignore[attr-defined]
_OUTER = {functions._apply.__code__}
_AT_ONCE = 16
"""How many calls may wait for an operation to meet their results."""

Edges = list[tuple[Node | None, int]]


@dataclass(eq=False)
class Applied:
    """One call of a custom function: its class, its arguments, and where its tensors' gradients would go."""

    function: type[torch.autograd.Function]
    args: tuple
    edges: Edges


class Applications:
    """The calls of custom functions whose results no operation has met yet."""

    def __init__(self) -> None:
        self._waiting: deque[Applied] = deque(maxlen=_AT_ONCE)
        self._last: tuple[Node, Applied] | None = None  # of a function with several results

    def note(self) -> bool:
        """Notes the custom function whose forward runs now; whether there is one."""
        frame = None if torch.compiler.is_dynamo_compiling() else _frame()
        if frame is None:
            return False
        args = frame.f_locals["args"]
        if not any(known.args is args for known in self._waiting) and not frame.f_locals["kwargs"]:
            self._waiting.append(Applied(frame.f_locals["cls"], args, _edges(args)))
        return True

    def made(self, value: Tensor) -> Applied | None:
        """The call that returned a tensor."""
        node: Any = value.grad_fn
        if self._last is not None and self._last[0] is node:
            return self._last[1]
        leads = list(node.next_functions)
        for known in self._waiting:
            if known.function is node._forward_cls and known.edges == leads:
                self._waiting.remove(known)
                self._last = node, known
                return known
        return _saved(node)


def _frame() -> FrameType | None:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code not in _OUTER:
        if frame.f_code is _APPLY:
            return frame
        frame = frame.f_back
    return None


def _edges(args: tuple) -> Edges:
    return [edge_or_none(a) for a in args if isinstance(a, Tensor)]


def edge_or_none(tensor: Tensor) -> tuple[Node | None, int]:
    """Where a tensor's gradient goes, as a node of the graph lists it."""
    if not tensor.requires_grad:
        return None, 0
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def _saved(node: Any) -> Applied | None:
    """The call of a function with one argument, which it saved: no torch operation ran inside."""
    if len(node.needs_input_grad) != 1:
        return None
    leads = list(node.next_functions)
    for tensor in node.saved_tensors:
        if isinstance(tensor, Tensor) and [edge_or_none(tensor)] == leads:
            return Applied(node._forward_cls, (tensor,), leads)
    return None


class Context:
    """What stands for a function's context while its forward runs again: it takes notes that nobody reads."""

    def __init__(self, args: tuple) -> None:
        self.needs_input_grad = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)

    def _ignore(self, *_: Any) -> None:
        pass

    save_for_backward = save_for_forward = mark_non_differentiable = set_materialize_grads = mark_dirty = _ignore


def forward(function: type[torch.autograd.Function], args: tuple) -> Any:
    """A function's forward, run as any Python is."""
    if function.setup_context is not torch.autograd.Function.setup_context:
        return function.forward(*args)
    return function.forward(Context(args), *args)


class Invisible(Exception):
    """A function's forward is not made of visible steps alone."""


def advice(function: type, why: str, known: bool) -> str:
    """What to do about a custom function."""
    name = function.__qualname__
    what = f"{function.__module__}.{name}, a custom autograd.Function, and {why}. "
    if known:
        return f'{what}Register it with family="structure", replace=True to use its own backward pass as it is.'
    lines = (
        f'relprop.register({name}, family="activation") if it is elementwise; family="linear" if it is a weighted layer, '
        'linear in its input; family="structure" if its own backward pass is right as it is'
    )
    return f"{what}Say what it is in one line: {lines}. Or pass strict=False to use its gradient."
