"""Convolutions, under their several names: weighted layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import scaled
from relprop.engine.registry import register
from relprop.engine.tensors import is_live
from relprop.operations.linear import weighted, with_live_bias
from relprop.operations.maps import Convolution
from relprop.operations.sample_axes import of_layer


def _convolution(call: Call, linear_map: Convolution, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if is_live(weight):
        if not is_live(input):
            return call()
        args = (scaled(input, 0.5), scaled(weight, 0.5), *call.args[2:])
        kwargs = {k: v for k, v in call.kwargs.items() if k not in ("input", "weight")}
        return call(*args, **kwargs)
    if bias is not None and bias.requires_grad:
        options = {k: v for k, v in call.kwargs.items() if k not in ("input", "weight", "bias")}
        return with_live_bias(call, input, weight, bias, *call.args[3:], **options) if is_live(input) else call()
    if is_live(input) and call.undecided and call.place is not None and call.place.first:
        # Also a convolution of two axes, if the input has one entry along one of them.
        if sum(length > 1 for length in input.shape[2 - weight.ndim :]) < 2:
            call.trait("series")
        if linear_map.takes_patches(weight):
            call.trait("patch convolution")
    return weighted(call, input, linear_map, weight, bias) if is_live(input) else call()


def _conv(dims: int) -> Callable[..., Tensor]:
    def conv(
        call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1,
    ) -> Tensor:  # fmt: skip
        if call.native and not (weight.requires_grad or is_live(bias)):
            return call.natively()
        return _convolution(call, Convolution(dims, stride, padding, dilation, groups, False, 0), input, weight, bias)

    return conv


def _conv_transpose(dims: int) -> Callable[..., Tensor]:
    def conv_transpose(
        call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
    ) -> Tensor:  # fmt: skip
        linear_map = Convolution(dims, stride, padding, dilation, groups, True, output_padding)
        return _convolution(call, linear_map, input, weight, bias)

    return conv_transpose


def convolution(
    call: Call, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Tensor:  # fmt: skip
    dims = weight.ndim - 2
    return _convolution(
        call,
        Convolution(dims, stride, padding, dilation, groups, transposed, output_padding),
        input,
        weight,
        bias,
    )


for _dims, _plain, _turned in (
    (1, torch.conv1d, torch.conv_transpose1d),
    (2, torch.conv2d, torch.conv_transpose2d),
    (3, torch.conv3d, torch.conv_transpose3d),
):
    register(_plain, family="conv", handler=_conv(_dims), apart=of_layer)
    register(_turned, family="conv", handler=_conv_transpose(_dims), apart=of_layer)
register(torch.convolution, family="conv", handler=convolution)
