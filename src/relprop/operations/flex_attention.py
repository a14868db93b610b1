"""Flex attention, whose scores pass through a Python function, decomposed into the steps it stands for.

Index letters: b batch, h head, t query position, s key position. `score_mod(score, b, h, t, s)` is written for one
score; here it runs once, on all scores.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from relprop.engine.call import Call
from relprop.engine.mode import steps_of
from relprop.engine.registry import register
from relprop.engine.tensors import tensors_in
from relprop.torch_private.flex import flex_mask, flex_operator, read_by_flex_attention
from relprop.torch_private.recorded import recording
from relprop.torch_private.state import without_torch_function


def flex_attention(
    call: Call, query: Tensor, key: Tensor, value: Tensor, score_mod: Callable[..., Tensor], block_mask: tuple,
    scale: float, options: dict, captured: tuple = (), captured_by_mask: tuple = (),
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The fused kernel if the scores are not changed; else matrix product, function, softmax, matrix product."""
    if not torch.is_grad_enabled():
        return call()
    batch, heads, queries, keys = *query.shape[:3], key.shape[2]
    sizes = (batch, heads, queries, keys)
    index = [torch.arange(n, device=query.device).view(_axis(n, d)) for d, n in enumerate(sizes)]
    allowed = flex_mask(block_mask[-1], [i.flatten() for i in index], captured_by_mask)

    probe = query.new_zeros(()).expand(sizes)
    with _ForEveryScore(probe, *index):
        plain = score_mod(probe, *index, *captured) is probe
    if plain and not call.live:
        return call()
    with steps_of(call, of_model=True):
        groups = heads // key.shape[1]
        key, value = (t if len(t) == batch else t.expand(batch, *t.shape[1:]) for t in (key, value))
        wants = [options.get(name, False) for name in ("OUTPUT_LOGSUMEXP", "OUTPUT_MAX")]
        if not plain or any(wants):
            scores = _scores(query, _repeated(key, groups), scale)
            with _ForEveryScore(scores, *index):
                scores = score_mod(scores, *index, *captured).expand(sizes)
            if allowed is not None:
                scores = scores.masked_fill(~allowed, -torch.inf)
        if plain:
            out = F.scaled_dot_product_attention(query, key, value, allowed, scale=scale, enable_gqa=groups > 1)
        else:
            out = _attended(scores, _repeated(value, groups))
        found = (  # in base 2, as the operator returns them
            scores.logsumexp(-1) / math.log(2) if wants[0] else query.new_empty(0),
            scores.amax(-1) / math.log(2) if wants[1] else query.new_empty(0),
        )
    return (out if plain else _checked(call, out), *found)


def _axis(size: int, axis: int) -> list[int]:
    return [size if d == axis else 1 for d in range(4)]


def _scores(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """In float32 at least, as the operator computes them."""
    wide = torch.promote_types(query.dtype, torch.float32)
    return query.to(wide) @ key.to(wide).transpose(-2, -1) * scale


def _attended(scores: Tensor, value: Tensor) -> Tensor:
    """A query that sees no key gets zeros."""
    with without_torch_function():  # the engine's own question, not a graph break
        blind = scores.isneginf().all(-1, keepdim=True)
    weights = torch.softmax(scores.masked_fill(blind, 0.0), -1).masked_fill(blind, 0.0)
    return weights.to(value.dtype) @ value


def _repeated(t: Tensor, groups: int) -> Tensor:
    return t if groups == 1 else t.repeat_interleave(groups, 1)


def _checked(call: Call, found: Tensor) -> Tensor:
    """The result of the steps, if it equals the operator's own: not every score_mod can run on all scores at once."""
    if recording():
        return found  # a call outside the recording is compared with it
    with torch.no_grad():
        native = call()[0]
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-4}.get(native.dtype, 5e-2)
    if found.shape != native.shape or not torch.allclose(found, native, tolerance, tolerance, equal_nan=True):
        raise call.error(
            "its score_mod, run on all scores at once, is another function than on one score at a time. Write it with "
            "elementwise operations, and look up captured tensors by their indices, as in bias[head, q_idx, kv_idx]; or "
            "use attention written out, such as attn_implementation='eager'."
        )
    return found


class _ForEveryScore(TorchFunctionMode):
    """Runs a function of one score and its indices on all scores at once, with four leading axes, b h t s.

    Elementwise operations broadcast. Only a lookup, as in `mask[b][0][t][s]`, must index the axes behind these four.
    """

    def __init__(self, *tensors: Tensor) -> None:
        super().__init__()
        self.dependent = {id(t): t for t in tensors}

    def _depends(self, value: Any) -> bool:
        return any(id(t) in self.dependent for t in tensors_in(value))

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if not self._depends((*args, *kwargs.values())):
            return func(*args, **kwargs)
        result = self._looked_up(*args) if func is Tensor.__getitem__ else func(*args, **kwargs)
        if isinstance(result, Tensor):
            self.dependent[id(result)] = result
        return result

    def _looked_up(self, source: Tensor, index: Any) -> Tensor:
        if not self._depends(source):
            source = source[None, None, None, None]
        leading = tuple(torch.arange(n, device=source.device).view(_axis(n, d)) for d, n in enumerate(source.shape[:4]))
        return source[leading + (index if isinstance(index, tuple) else (index,))]


def requires_grad(tensor: Tensor) -> bool:
    """Hides gradients from flex attention, which refuses them on a CPU. Its own backward pass is not needed."""
    return not read_by_flex_attention() and tensor.requires_grad


if (_operator := flex_operator()) is not None:
    register(_operator, family="structure", handler=flex_attention, only=True, on_constants=True, decomposes=True)
