"""Linear layers with quantised weights: relevance passes by the dequantised weights, from the unrounded input."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relprop.engine.call import Call
from relprop.engine.functions import grafted
from relprop.engine.mode import steps_of
from relprop.engine.registry import register
from relprop.operations.contractions import weighs_positively
from relprop.operations.kernels import folds
from relprop.operations.linear import linear as plain_linear
from relprop.operations.sample_axes import of_layer

_PLAIN = (Tensor, nn.Parameter, type(None))


def linear_dynamic(call: Call, input: Tensor, packed: Any, *args: Any, **kwargs: Any) -> Tensor:
    """For `torch.ao.quantization.quantize_dynamic`: the operator's own value, and steps that do not round the input."""
    weight, bias = packed.unpack()
    with steps_of(call):
        steps = F.linear(input, weight.dequantize() if weight.is_quantized else weight, bias)
    return grafted(call(input.detach(), packed, *args, **kwargs), steps)


def linear(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """For weights of a tensor subclass that can be dequantised, such as torchao's."""
    if type(weight) in _PLAIN or getattr(type(weight), "dequantize", Tensor.dequantize) is Tensor.dequantize:
        return plain_linear(call, input, weight, bias)
    value = call(input.detach(), weight, bias)
    call.becomes(call.function, input, weight.dequantize(), bias)
    return grafted(value, plain_linear(call, *call.args))


register(F.linear, family="linear", handler=linear, apart=of_layer, other_kernel=folds, sums=weighs_positively)
for _name in ("linear_dynamic", "linear_dynamic_fp16"):
    if hasattr(torch.ops.quantized, _name):  # missing in builds without quantised kernels
        register(
            getattr(torch.ops.quantized, _name), family="structure", handler=linear_dynamic, only=True, decomposes=True
        )
