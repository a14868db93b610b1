"""Linear layers, and what all weighted layers share: the rule acts in the backward pass; the forward is torch's own."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from string import ascii_letters
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import scaled
from relprop.engine.tensors import is_live
from relprop.operations.complex_layers import complex_layer
from relprop.operations.layer_call import LayerCall
from relprop.operations.layer_site import LayerSite
from relprop.operations.maps import Contraction, Dense
from relprop.operations.patches import embeds_patches
from relprop.operations.steps import by_steps
from relprop.operations.weighted import Weighted


def weighted(
    call: Call, x: Tensor, linear: Any, weight: Tensor, bias: Tensor | None, scale: Tensor | None = None
) -> Tensor:
    """A weighted layer with a constant weight: native for LRP-0, else remembered for its rule."""
    if call.native:
        return call.natively()
    call.keeps_zeros()  # its rules deal with them
    if x.is_complex():
        return complex_layer(call, x, linear, weight, bias)
    if call.undecided and call.place is not None and call.place.first and embeds_patches(x, linear):
        call.trait("patches")
    plain = weight.clone() if call.copies_are_kept else weight
    value = Weighted(linear, plain, scale, bias, weight, plain._version)
    return LayerCall(LayerSite(call, x), value, weakref.ref(x), x._version).apply(call)


def layer(call: Call, x: Tensor, weighted: Any, compute: Callable[[], Tensor]) -> Tensor:
    """The output of a layer on `x`, with the value `compute()`, and the rule of the call's place in its backward pass."""
    return LayerCall(LayerSite(call, x), weighted, weakref.ref(x), x._version).apply(compute)


def two_live(call: Call, a: Tensor, b: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
    """A product of two operands that both carry relevance: half each."""
    return call(scaled(a, 0.5), scaled(b, 0.5), *rest, **kwargs)


def linear(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if weight.requires_grad:
        return two_live(call, input, weight, bias) if is_live(input) else call()
    if bias is not None and bias.requires_grad:
        return with_live_bias(call, input, weight, bias) if is_live(input) else call()
    if call.native:
        return call.natively()
    if weight.ndim == 1 and is_live(input):
        axes = ascii_letters[: input.ndim]
        return weighted(call, input, Contraction(axes, axes[-1], axes[:-1]), weight, bias)
    return weighted(call, input, Dense(), weight, bias) if is_live(input) else call()


def with_live_bias(call: Call, input: Tensor, weight: Tensor, bias: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
    """A layer whose bias carries relevance, too: a sum of two."""
    axes = 1 if call.entry.function is F.linear else weight.ndim - 1

    def steps(*args: Any, **options: Any) -> Tensor:
        y = call.function(input, weight, None, *rest, **kwargs)
        return y + bias.reshape(bias.shape + (1,) * (axes - 1))

    call.relocate("sum")
    call.keeps_zeros()
    result: Tensor = by_steps(steps)(call, *call.args, **call.kwargs)
    return result
