"""BatchNorm in eval mode: folded into the weighted layer before it, else a diagonal layer of its own."""

from __future__ import annotations

from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import mapped
from relprop.engine.registry import register
from relprop.engine.traits import AFFINE
from relprop.errors import ModelStateError
from relprop.numerics import own
from relprop.operations.activations import detached
from relprop.operations.folding import layer_before
from relprop.operations.layer_call import LayerCall
from relprop.operations.linear import weighted
from relprop.operations.maps import Diagonal
from relprop.torch_private.recorded import recording


def batch_norm(
    call: Call, input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
    weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False, momentum: float = 0.1,
    eps: float = 1e-5, *rest: object,
) -> Tensor:  # fmt: skip
    if running_mean is None or running_var is None:
        if not call.live:  # weight standardisation
            return call()
        raise ModelStateError(
            f"batch_norm in {call.where()} has no running statistics (track_running_stats=False): its output depends on "
            "the other samples of the batch, so no explanation of one sample exists. Train it with running statistics."
        )
    if training:
        raise call.training("batch_norm")
    layer, factor = layer_before(input) if call.live and call.rule is None else (None, None)
    layer = layer if layer is not None and _follows(layer, input) else None
    if not call.live:
        return call()
    if not (layer is not None or call.rule is not None or call.zeros_carry_hidden):
        return _native(call, input, running_mean, running_var, weight, eps)
    scale, shift = _scale(running_mean, running_var, weight, eps), _shift(running_mean, running_var, weight, bias, eps)
    shape = [1, -1] + [1] * (input.ndim - 2)
    if layer is not None:
        if call.place is not None:
            call.place.merge()
        detached = input.detach()
        arguments = (running_mean, running_var, weight, bias, False, momentum, eps, *rest)
        call.keeps_zeros()
        linear = layer.weighted.linear
        if linear.channel_axis is None:
            scale, shift = (linear.vector(v.reshape(shape[1:]), layer.shape) for v in (scale, shift))
        scale = scale if factor is None else scale * factor  # of a layer that was scaled before
        return layer.folded(scale, shift).apply(lambda: call(detached, *arguments))
    return weighted(call, input, Diagonal(), scale.reshape(shape), shift.reshape(shape))


def _follows(layer: LayerCall, z: Tensor) -> bool:
    """Whether the normalised channels, axis 1, are the layer's output channels. A lone one may lie on any axis."""
    linear = layer.weighted.linear
    axis = linear.channel_axis
    if layer.folds and ((axis is not None and z.ndim + axis == 1) or linear.over(1)):
        return True
    return z.shape[1] == 1 and layer.vector(torch.empty([1] * (z.ndim - 1), device="meta")) is not None


def _native(call: Call, input: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """The operation itself, with a backward pass that needs only its constants."""
    return mapped(input, detached(call), partial(_scaled, eps=eps), mean, var, weight)


def _scaled(g: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """`g` times the scale of each channel, in torch's own kernel where it can be had.

    torch 2.13 reads the gradient as if it lay in memory as the input does. The input does not matter if the statistics
    are frozen, so the gradient stands for it, too.
    """
    if g.device.type in ("cpu", "cuda") and own(g) and type(var) is Tensor and g.dtype == var.dtype:
        options = None, None, False, eps, [True, False, False]
        return torch.ops.aten.native_batch_norm_backward(g, g, weight, mean, var, *options)[0]
    scale = (var + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    return g * scale.reshape([1, -1] + [1] * (g.ndim - 2))


@lru_cache(maxsize=64)
def _row(value: float, channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """One sample with this value in each channel. Nothing writes into it."""
    return torch.full((1, channels), value, dtype=dtype, device=device)


def _scale(mean: Tensor, var: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """The factor of each channel: what the backward pass makes of ones."""
    with torch.no_grad():
        return _scaled(_ones_or_zeros(1.0, var), mean, var, weight, eps)[0]


def _shift(mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """What each channel adds: what the operation makes of zeros."""
    return F.batch_norm(_ones_or_zeros(0.0, var), mean, var, weight, bias, False, 0.0, eps)[0]


def _ones_or_zeros(value: float, like: Tensor) -> Tensor:
    if recording() or type(like) is not Tensor:
        return torch.full_like(like, value)[None]
    return _row(value, len(like), like.dtype, like.device)


def in_torchs_order(
    call: Call, input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
    running_var: Tensor | None, training: bool, momentum: float, eps: float, *rest: object,
) -> Tensor:  # fmt: skip
    """`torch.batch_norm`, whose weight and bias come before the statistics."""
    call.becomes(F.batch_norm, input, running_mean, running_var, weight, bias, training, momentum, eps)
    return batch_norm(call, *call.args)


register(F.batch_norm, family="batch_norm", handler=batch_norm, on_constants=True, traits={AFFINE}, only=True)
register(torch.batch_norm, family="batch_norm", handler=in_torchs_order, on_constants=True, traits={AFFINE}, only=True)
