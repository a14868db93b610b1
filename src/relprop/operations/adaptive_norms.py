"""Norms whose scale and shift may themselves carry relevance, as in adaptive layer or instance norm."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.registry import Handler, register
from relprop.engine.traits import SCALES
from relprop.operations import normalisation
from relprop.operations.sample_axes import normalised, with_axes
from relprop.operations.steps import by_steps


def _scaled_and_shifted(norm: Callable[..., Tensor], weight: Any, bias: Any, shape: Any = None) -> Tensor:
    y = norm()
    for operand, apply in ((weight, torch.mul), (bias, torch.add)):
        if operand is not None:
            y = apply(y, operand if shape is None else operand.reshape(shape))
    return y


def layer_norm(
    input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *rest: Any
) -> Tensor:
    return _scaled_and_shifted(lambda: F.layer_norm(input, normalized_shape, None, None, eps), weight, bias)


def rms_norm(input: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    return _scaled_and_shifted(lambda: F.rms_norm(input, normalized_shape, None, eps), weight, None)


def group_norm(
    input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *rest: Any
) -> Tensor:
    channels = [1, -1] + [1] * (input.ndim - 2)
    return _scaled_and_shifted(lambda: F.group_norm(input, num_groups, None, None, eps), weight, bias, channels)


def instance_norm(
    input: Tensor, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5, *rest: Any,
) -> Tensor:  # fmt: skip
    channels = [1, -1] + [1] * (input.ndim - 2)

    def norm() -> Tensor:
        return F.instance_norm(input, running_mean, running_var, None, None, use_input_stats, momentum, eps)

    return _scaled_and_shifted(norm, weight, bias, channels)


def adaptive(usual: Handler, definition: Callable[..., Tensor]) -> Handler:
    """A norm whose scale and shift may themselves carry relevance. If so, they become a product and a sum."""
    followed, wanted = by_steps(definition), inspect.signature(definition)

    def handler(call: Call, *args: Any, **kwargs: Any) -> Tensor:
        given = wanted.bind(*args, **kwargs).arguments
        live = any(isinstance(given.get(name), Tensor) and given[name].requires_grad for name in ("weight", "bias"))
        return (followed if live else usual)(call, *args, **kwargs)

    return handler


_instance_norm = adaptive(normalisation.instance_norm, instance_norm)


def in_torchs_order(
    call: Call, input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
    running_var: Tensor | None, use_input_stats: bool, momentum: float, eps: float, *rest: Any,
) -> Tensor:  # fmt: skip
    """`torch.instance_norm`, whose weight and bias come before the statistics."""
    call.becomes(F.instance_norm, input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    return _instance_norm(call, *call.args)


register(
    F.layer_norm,
    torch.layer_norm,
    family="norm",
    handler=adaptive(normalisation.layer_norm, layer_norm),
    apart=normalised,
)
register(
    F.rms_norm, torch.rms_norm,
    family="norm", handler=adaptive(normalisation.rms_norm, rms_norm), traits={SCALES}, apart=normalised,
)  # fmt: skip
register(
    F.group_norm,
    torch.group_norm,
    family="norm",
    handler=adaptive(normalisation.group_norm, group_norm),
    apart=with_axes(3),
)
register(F.instance_norm, family="norm", handler=_instance_norm, only=True, apart=with_axes(3))
register(torch.instance_norm, family="norm", handler=in_torchs_order, only=True, apart=with_axes(3))
