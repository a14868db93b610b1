"""Gradients that a model takes itself, as of an energy for its forces.

relprop's rules stand in the gradient's place, so a gradient of what carries relevance would be another number, and with
it the model's output: it is refused. A gradient of tensors that carry none is the model's plain arithmetic: a leaf that
the model makes, `x.detach().requires_grad_()`, keeps a plain graph of its own, beside that of relevance.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from relprop.engine.notes import descends, note_of
from relprop.engine.run import Run, module_depth, replaying
from relprop.errors import UnsupportedOperationError

_GRAD = vars(torch._C.TensorBase)["grad"].__get__
_MARKS = {Tensor.requires_grad_, vars(torch._C.TensorBase)["requires_grad"].__set__}
_NAMES = {
    torch.autograd.grad: "torch.autograd.grad",
    torch.autograd.backward: "torch.autograd.backward",
    Tensor.backward: "Tensor.backward",
    _GRAD: "Tensor.grad",
}
TAKES = {*_NAMES, *_MARKS}
"""The functions by which a model takes a gradient, or says that it will."""


def own(run: Run) -> bool:
    """Whether a gradient that is taken now is the model's own, and no backward pass of relevance."""
    return run.own_from is not None and not replaying() and module_depth() >= run.own_from


def take(run: Run, func: Any, args: tuple, kwargs: dict) -> Any:
    """A gradient that the model takes, where it is one of plain tensors.

    Raises:
        UnsupportedOperationError: what is differentiated carries relevance, or depends on nothing but parameters.
    """
    if func in _MARKS:
        result = func(*args, **kwargs)
        if args[0].is_leaf and args[0].requires_grad and not run.adopt:
            keep_plain(run, args[0])
        return result
    name = _NAMES[func]
    # what is differentiated, with respect to what, and what the gradient starts from: all count
    carries = any(_carries(run, t) for t in _tensors((args, kwargs)))
    if carries and (func != _GRAD or func(*args) is not None):
        raise _refused(run, name)
    try:
        result = func(*args, **kwargs)
    except RuntimeError as error:
        if "require grad" not in str(error) and "have been used in the graph" not in str(error):
            raise
        raise _constant(run, name) from error
    for t in _tensors(result):
        run.cut(f"{name}, a gradient that the model takes, in {run.where()}")
        if t.requires_grad:
            keep_plain(run, t)
    return result


def keep_plain(run: Run, tensor: Tensor) -> None:
    """Notes that a tensor has a plain graph of its own, which leads to no input."""
    run.plain[id(tensor)] = tensor


def is_plain(run: Run, tensor: Tensor) -> bool:
    return run.plain.get(id(tensor)) is tensor


def without_plain(run: Run, value: Any) -> Any:
    """Operands that meet what carries relevance: there, what has a plain graph is a constant."""
    if isinstance(value, Tensor):
        return value.detach() if is_plain(run, value) else value
    if isinstance(value, (list, tuple)):
        items = [without_plain(run, item) for item in value]
        if isinstance(value, list):
            return items
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, dict):
        return {key: without_plain(run, item) for key, item in value.items()}
    return value


def _carries(run: Run, tensor: Tensor) -> bool:
    if not tensor.requires_grad or is_plain(run, tensor):
        return False
    note = note_of(tensor)
    known = (note is not None and note.run is run) or id(tensor) in run.inputs
    return known or (not tensor.is_leaf and (run.adopt or descends(run, tensor)))


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


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
