"""Targets as captum takes them: the entry of the output to explain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relprop.attribution.targets import scores
from relprop.errors import TargetError, TargetIndexError, TargetTypeError


def select(output: Any, target: Any) -> Tensor:
    """The explained score of each sample, shape (N,).

    Args:
        output: what the model returned, (N, ...).
        target: as for `LRP.attribute`.

    Raises:
        TargetTypeError: an AssertionError; the target does not fit the output.
        TargetIndexError: an IndexError; the target lies outside the output.
    """
    if not isinstance(output, Tensor):
        raise TargetTypeError(
            f"the model returned a {type(output).__name__}; LRP explains a tensor of shape (N, ...). Wrap the model in a "
            "module that returns the tensor alone, or use relprop.attribute(..., select=...)."
        )
    if output.ndim == 0:
        raise TargetIndexError(
            "the model returned a single number; LRP explains one score per sample: return a tensor of shape (N,) or (N, ...)."
        )
    if target is None:
        if output[:1].numel() != 1:
            raise TargetTypeError(
                f"the output has shape {tuple(output.shape)}, more than one number per sample: say which one by target=."
            )
        return output.flatten()
    if isinstance(target, Tensor) and target.numel() == 1:
        target = target.reshape(())
    several = isinstance(target, list) and target and all(isinstance(one, tuple) for one in target)
    try:
        if isinstance(target, tuple) or (output.ndim > 2 and _is_index(target)):
            return _named(output, [target if isinstance(target, tuple) else (int(target),)] * len(output))
        if several:
            return _named(output, target)
        return scores(output, target, None)[0]
    except TargetIndexError:
        raise
    except TargetError as error:
        raise TargetTypeError(str(error)) from None


def _is_index(target: Any) -> bool:
    if isinstance(target, Tensor):
        return target.ndim == 0 and not (
            target.is_floating_point() or target.is_complex() or target.dtype == torch.bool
        )
    return hasattr(target, "__index__") and not isinstance(target, bool)


def _named(output: Tensor, places: list[tuple]) -> Tensor:
    """One entry per sample, named by indices or slices of the axes after the first, from the left."""
    full: list[Any] = []
    for place in places:
        if len(place) > output.ndim - 1 or not all(isinstance(i, slice) or _is_index(i) for i in place):
            return scores(output, places, None)[0]  # raises an error that says what is wrong
        for i, n in zip(place, output.shape[1:], strict=False):
            if not isinstance(i, slice) and not -n <= int(i) < n:
                raise TargetIndexError(f"target {place} is out of range: the output has shape {tuple(output.shape)}.")
        size = torch.empty(output.shape[1:], device="meta")[place].numel()
        if size != 1:
            raise TargetTypeError(
                f"target {place} names {size} entries of each sample of an output of shape {tuple(output.shape)}: name one."
            )
        full.append(place)
    if len(full) != len(output):
        return scores(output, places, None)[0]
    if all(place == full[0] for place in full):
        return output[tuple([slice(None), *full[0]])].flatten()
    return torch.stack([output[tuple([n, *place])].reshape(()) for n, place in enumerate(full)])


def gradients(forward_fn: Any, inputs: Any, target_ind: Any = None, additional_forward_args: Any = None) -> tuple:
    """The plain gradient of the target's score with respect to each input: `LRP.gradient_func`."""
    leaves = tuple(t.detach().clone().requires_grad_() for t in (inputs if isinstance(inputs, tuple) else (inputs,)))
    with torch.inference_mode(False), torch.enable_grad():
        output = forward_fn(*leaves, *positional(additional_forward_args))
        return torch.autograd.grad(select(output, target_ind).sum(), leaves, allow_unused=True, materialize_grads=True)


def positional(additional_forward_args: Any) -> tuple:
    """Further arguments of the model as a tuple: None means none, a tuple several, and anything else one."""
    if additional_forward_args is None:
        return ()
    return additional_forward_args if isinstance(additional_forward_args, tuple) else (additional_forward_args,)
