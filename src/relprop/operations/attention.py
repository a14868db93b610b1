"""Attention: `softmax(q k^T) v`, fused or written out, and torch's attention modules.

With the softmax's Jacobian (AttnLRP, Achtibat et al. 2024) the two products give half to each side. The values get 1/2
of the native gradient; queries and keys get 1/2 (product with the values) of 1/2 (their own product). The backward pass
is the fused kernel's. With the softmax a constant (CP-LRP, Ali et al. 2022) the values get all.

Index letters: b batch, h head, t query position, s key position, d feature.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import grafted, scaled
from relprop.engine.mode import Propagation
from relprop.engine.registry import register
from relprop.engine.tensors import is_live, without_history
from relprop.operations.biases import positioned
from relprop.operations.normalisation import softened
from relprop.operations.sample_axes import with_axes
from relprop.rules.base import Way
from relprop.torch_private.calls import unfolded


def _share(t: Tensor, share: float) -> Tensor:
    return scaled(t, share) if t.requires_grad and share != 1 else t


def scaled_dot_product_attention(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    result = _attention(call, *args, **kwargs)
    call.attended(result)
    return result


def _attention(
    call: Call, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False, **kwargs: Any,
) -> Tensor:  # fmt: skip
    call.trait("attention")
    if dropout_p > 0:
        raise call.training("scaled_dot_product_attention with dropout")
    options = {"dropout_p": 0.0, "is_causal": is_causal, "scale": scale, **kwargs}
    if enable_gqa:
        options["enable_gqa"] = True
    if call.way is Way.CONSTANT:
        return call(without_history(query), without_history(key), value, without_history(attn_mask), **options)
    scores = 0.5 if is_live(value) else 1.0
    of_query, of_key = (scores * (0.5 if is_live(other) else 1.0) for other in (key, query))
    q, k = _share(query, of_query), _share(key, of_key)
    v = _share(value, 0.5 if is_live(query) or is_live(key) else 1.0)
    mask = None
    if attn_mask is not None:
        shape = torch.Size([*query.shape[:-1], key.shape[-2]])
        mask = _share(positioned(call, attn_mask, shape), scores)
    if call.formula is not None:
        return _with_temperature(call, q, k, v, mask, is_causal, scale, enable_gqa)
    result = call(q, k, v, mask, **options)
    if mask is not None and is_live(mask) and not is_live(attn_mask):  # a live mask needs another kernel
        return grafted(
            call(*map(without_history, call.args), **{n: without_history(a) for n, a in call.kwargs.items()}), result
        )
    return result


def _with_temperature(
    call: Call, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None, gqa: bool
) -> Tensor:
    """The fused value, with the backward pass of the visible steps: the kernel supports only one temperature."""
    if gqa:
        groups = q.shape[-3] // k.shape[-3]
        k, v = k.repeat_interleave(groups, -3), v.repeat_interleave(groups, -3)
    scores = q @ k.transpose(-2, -1) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if causal:
        t, s = scores.shape[-2:]
        scores = scores.masked_fill(torch.ones(t, s, dtype=torch.bool, device=q.device).triu(1), -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    blind = scores.isneginf().all(-1, keepdim=True)  # a query that sees no key gets zeros
    weights = softened(scores.masked_fill(blind, 0.0), -1, call.formula).masked_fill(blind, 0.0)
    return grafted(call(*map(without_history, call.args), **call.kwargs), weights @ v)


_multi_head_attention_forward = unfolded(F.multi_head_attention_forward)


class _Projected(Propagation):
    """Remembers the input of the last linear layer, which in torch's attention is the projection of all heads."""

    entered: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is F.linear:
            self.entered = args[0]
        return super().__torch_function__(func, types, args, kwargs)


def multi_head_attention_forward(call: Call, query: Tensor, *args: Any, **kwargs: Any) -> Any:
    """One opaque call that stands for visible steps: projections, attention per head, projection."""
    heads = kwargs["num_heads"] if "num_heads" in kwargs else args[3]
    mode = _Projected(call.run)
    with call.unattended() as wanted, mode:  # the fused attention inside is shown below
        result = _multi_head_attention_forward(query, *args, **kwargs)
    if wanted and mode.entered is not None:
        t, n = query.shape[0], query.shape[1:-1]

        def arranged(rows: Tensor) -> Tensor:
            """From (t n, h d) to (n, h, t, d)."""
            return rows.reshape(t, *n, heads, -1).movedim(0, -2)

        call.attended(mode.entered, arranged)
    return result


register(F.scaled_dot_product_attention, family="softmax", handler=scaled_dot_product_attention, apart=with_axes(3))
register(F.multi_head_attention_forward, family="structure", handler=multi_head_attention_forward, decomposes=True)
