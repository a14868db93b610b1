"""Gradients that a model takes itself, as of an energy to get forces.

relprop puts relevance in the gradient's place. A gradient of a live tensor would be a different number and change the
model's output, so it is refused. A gradient of constants is ordinary arithmetic. A leaf that the model makes,
`x.detach().requires_grad_()`, keeps a plain graph, separate from that of relevance.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from relprop.engine.notes import descends, note_of
from relprop.engine.replay import replaying
from relprop.engine.run import Run
from relprop.engine.tensors import each_tensor, tensors_in
from relprop.errors import UnsupportedOperationError
from relprop.torch_private.calls import called_by_torch, module_depth
from relprop.torch_private.names import GET_GRAD, GET_GRAD_FN, SET_REQUIRES_GRAD

_MARKS = {Tensor.requires_grad_, SET_REQUIRES_GRAD}
_NAMES = {
    torch.autograd.grad: "torch.autograd.grad",
    torch.autograd.backward: "torch.autograd.backward",
    Tensor.backward: "Tensor.backward",
    GET_GRAD: "Tensor.grad",
}
TAKES = {*_NAMES, *_MARKS}
"""The functions with which a model takes a gradient, or announces that it will."""
HOOKS = {Tensor.register_hook, Tensor.register_post_accumulate_grad_hook, GET_GRAD_FN}
"""The functions with which a model asks to see a gradient later, when relevance has taken its place."""


def own(run: Run) -> bool:
    """Whether a gradient taken now is the model's own, not a backward pass of relevance."""
    return run.gradients.own_from is not None and not replaying() and module_depth() >= run.gradients.own_from


def hooked(run: Run) -> bool:
    """Whether a hook on a gradient registered now is the model's own, not the caller's or torch's."""
    inside = run.gradients.calling or replaying() or (bool(run.gradients.own_from) and own(run))
    return inside and not called_by_torch()


def pass_by(func: Any, args: tuple, kwargs: dict) -> Any:
    """Answers a hook that a model registers on a tensor or on its node: it is never called.

    It expects a gradient, but relevance is in its place. `module.register_backward_hook` asks for the node.
    """
    if func == GET_GRAD_FN:
        node = func(*args)
        return None if node is None else Unhooked(node)
    return RemovableHandle(OrderedDict())


class Unhooked:
    """A node of autograd's graph as a model sees it. It ignores hooks."""

    def __init__(self, node: Any) -> None:
        self.node = node

    def __getattr__(self, name: str) -> Any:
        return getattr(self.node, name)

    def __eq__(self, other: object) -> bool:
        return bool(self.node == (other.node if isinstance(other, Unhooked) else other))

    def __hash__(self) -> int:
        return hash(self.node)

    def register_hook(self, hook: Any) -> RemovableHandle:
        return RemovableHandle(OrderedDict())

    register_prehook = register_hook


def take(run: Run, func: Any, args: tuple, kwargs: dict) -> Any:
    """A gradient that the model takes of plain tensors.

    Raises:
        UnsupportedOperationError: the differentiated tensor carries relevance, or depends on parameters alone.
    """
    if func in _MARKS:
        result = func(*args, **kwargs)
        if args[0].is_leaf and args[0].requires_grad and not run.inputs.adopt:
            keep_plain(run, args[0])
        return result
    name = _NAMES[func]
    # outputs, inputs and initial gradients of the differentiation all count
    carries = any(_carries(run, t) for t in tensors_in((args, kwargs)))
    if carries and (func != GET_GRAD or func(*args) is not None):
        raise _refused(run, name)
    try:
        result = func(*args, **kwargs)
    except RuntimeError as error:
        if "require grad" not in str(error) and "have been used in the graph" not in str(error):
            raise
        raise _constant(run, name) from error
    for t in tensors_in(result):
        run.trace.severed.append(f"{name}, a gradient that the model takes, in {run.where()}")
        if t.requires_grad:
            keep_plain(run, t)
    return result


def keep_plain(run: Run, tensor: Tensor) -> None:
    """Notes that a tensor has a plain graph, which does not lead to the inputs."""
    run.gradients.keep(tensor)


def is_plain(run: Run, tensor: Tensor) -> bool:
    return tensor in run.gradients.plain


def without_plain(run: Run, value: Any) -> Any:
    """Operands of an operation with live tensors. Those with a plain graph become constants."""
    return each_tensor(lambda t: t.detach() if is_plain(run, t) else t, value)


def _carries(run: Run, tensor: Tensor) -> bool:
    if not tensor.requires_grad or is_plain(run, tensor):
        return False
    note = note_of(tensor)
    known = (note is not None and note.run is run) or id(tensor) in run.inputs.live
    return known or (not tensor.is_leaf and (run.inputs.adopt or descends(run, tensor)))


def _refused(run: Run, name: str) -> UnsupportedOperationError:
    return UnsupportedOperationError(
        f"{name} in {run.where()} takes a gradient of what carries relevance. relprop puts relevance in the gradient's "
        "place, so the model would get another number, and return another output. Explain the part of the model whose "
        "gradient is taken; or, where the gradient may count as a constant, take it of a copy: x.detach().requires_grad_()."
    )


def _constant(run: Run, name: str) -> UnsupportedOperationError:
    return UnsupportedOperationError(
        f"{name} in {run.where()} takes a gradient with respect to parameters, which are constants while a decision is "
        "explained. Take it before, and explain the model with the parameters that come of it; or take it with respect to a "
        "copy that the forward makes: w = weight.detach().requires_grad_()."
    )
