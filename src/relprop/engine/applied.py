"""Custom autograd functions, `class F(torch.autograd.Function)`.

The mode does not see `F.apply`, only the operations inside it. While `F.forward` runs, this thread's stack holds the
arguments. They are noted at the first torch operation inside. A result belongs to the call if its node has the edges of
these arguments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from relprop.torch_private.autograd_graph import function_of
from relprop.torch_private.custom import running_functions

_AT_ONCE = 16
"""How many calls may wait until an operation meets their results."""

Edges = list[tuple[Node | None, int]]


@dataclass(eq=False)
class Applied:
    """One call of a custom function: its class, its arguments, and where its tensors' gradients would go."""

    functions: tuple[type[torch.autograd.Function], ...]  # several if only the result can tell which
    args: Sequence[Any]  # not a tuple: the stack may be searched for a tuple that holds them
    edges: Edges
    context: ref[Any] | None = None

    def returned(self, node: Any) -> bool:
        """Whether a result with this node in the graph came from this call."""
        if self.context is not None:
            return self.context() is node
        return function_of(node) in self.functions and self.edges == list(node.next_functions)


class Applications:
    """The calls of custom functions whose results no operation has met yet, and the functions already checked."""

    def __init__(self) -> None:
        self.followed: set[Any] = set()
        self._waiting: deque[Applied] = deque(maxlen=_AT_ONCE)
        self._last: tuple[ref[Any], Applied] | None = None  # for a function with several results

    def note(self) -> bool:
        """Notes the custom functions whose forward runs now. Returns whether there is one."""
        if torch.compiler.is_dynamo_compiling():
            return False
        within = False
        for found in running_functions():
            within = True
            if found.args is not None:
                self._waiting.append(Applied(found.functions, [*found.args], _edges(found.args), found.context))
        return within

    def made(self, value: Tensor) -> Applied | None:
        """The call that returned a tensor."""
        node: Any = value.grad_fn
        if self._last is not None and self._last[0]() is node:
            return self._last[1]
        for known in self._waiting:
            if known.returned(node):
                self._waiting.remove(known)
                self._last = ref(node), known
                return known
        return _saved(node)


def _edges(args: tuple) -> Edges:
    return [edge_or_none(a) for a in args if isinstance(a, Tensor)]


def edge_or_none(tensor: Tensor) -> tuple[Node | None, int]:
    """Where a tensor's gradient goes, as a node of the graph lists it."""
    if not tensor.requires_grad:
        return None, 0
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def _saved(node: Any) -> Applied | None:
    """The call of a function that saved its only argument and ran no torch operation inside."""
    function = function_of(node)
    if function is None or len(node.needs_input_grad) != 1:
        return None
    leads = list(node.next_functions)
    for tensor in node.saved_tensors:
        if isinstance(tensor, Tensor) and [edge_or_none(tensor)] == leads:
            return Applied((function,), [tensor], leads)
    return None


class Context:
    """Stands in for a function's context while its forward runs again. Nobody reads what it is given."""

    def __init__(self, args: tuple) -> None:
        self.needs_input_grad = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)

    def _ignore(self, *_: Any) -> None:
        pass

    save_for_backward = save_for_forward = mark_non_differentiable = set_materialize_grads = mark_dirty = _ignore


def forward(function: type[torch.autograd.Function], args: tuple) -> Any:
    """Runs a function's forward as ordinary Python."""
    if function.setup_context is not torch.autograd.Function.setup_context:
        return function.forward(*args)
    return function.forward(Context(args), *args)


class Invisible(Exception):
    """A function's forward does not consist of visible steps alone."""


def advice(function: type, why: str, known: bool, writes: bool = False) -> str:
    """What to do about a custom function. One that writes into its argument can only use its own backward pass."""
    name = function.__qualname__
    what = f"{function.__module__}.{name}, a custom autograd.Function, and {why}. "
    if known:
        return f'{what}Register it with family="structure", replace=True to use its own backward pass as it is.'
    if writes:
        lines = f'relprop.register({name}, family="structure") if its own backward pass is right as it is'
        return f"{what}Say so in one line: {lines}; or let it write into a clone. Or pass strict=False to use its gradient."
    lines = (
        f'relprop.register({name}, family="activation") if it is elementwise; family="linear" if it is a weighted layer, '
        'linear in its input; family="structure" if its own backward pass is right as it is'
    )
    return f"{what}Say what it is in one line: {lines}. Or pass strict=False to use its gradient."
