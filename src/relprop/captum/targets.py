"""Targets as captum takes them: which entry of the output is explained."""

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
        target: an int, negative ones from the end, or a tensor with one, for all samples; a list or 1-D tensor of
            ints, one per sample; a tuple of ints where the output has more dimensions, or a list of tuples; None where
            there is one output per sample.

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
    try:
        return scores(output, target, None)[0]
    except TargetIndexError:
        raise
    except TargetError as error:
        raise TargetTypeError(str(error)) from None


def gradients(forward_fn: Any, inputs: Any, target_ind: Any = None, additional_forward_args: Any = None) -> tuple:
    """The plain gradient of the target's score with respect to each input: `LRP.gradient_func`."""
    leaves = tuple(t.detach().clone().requires_grad_() for t in (inputs if isinstance(inputs, tuple) else (inputs,)))
    with torch.inference_mode(False), torch.enable_grad():
        output = forward_fn(*leaves, *positional(additional_forward_args))
        return torch.autograd.grad(select(output, target_ind).sum(), leaves, allow_unused=True, materialize_grads=True)


def positional(additional_forward_args: Any) -> tuple:
    """Further arguments of the model: a tuple is several, anything else is one, None is none."""
    if additional_forward_args is None:
        return ()
    return additional_forward_args if isinstance(additional_forward_args, tuple) else (additional_forward_args,)
