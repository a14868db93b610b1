"""Normalisation layers and softmax: the statistic `1 / std` is a constant, the mean subtraction stays linear."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relprop.engine.call import Call
from relprop.engine.functions import custom, grafted, scaled
from relprop.engine.handling import decided
from relprop.engine.registry import native, register
from relprop.engine.tensors import without_history
from relprop.engine.traits import SCALES
from relprop.errors import ModelStateError
from relprop.numerics import carrying, nonzero, own, wide
from relprop.operations.activations import elementwise
from relprop.operations.sample_axes import along_axis, with_axes
from relprop.operations.softmax_quotients import as_softmax
from relprop.torch_private.recorded import recording
from relprop.torch_private.weak import strong


def _normalised(call: Call, x: Tensor, back: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The native value; `back(x, g)` is its backward pass."""
    args = tuple(a.detach() if isinstance(a, Tensor) else a for a in call.args)
    kwargs = {k: v.detach() if isinstance(v, Tensor) else v for k, v in call.kwargs.items()}
    if (rule := call.formula) is not None:
        rest = args[1:]
        if not rule.proportional:
            call.keeps_zeros()  # as `Pass` does: what arrives at a zero goes on
        return custom(x, lambda: call(*args, **kwargs), lambda s, g: rule.norm(s, lambda: call(s, *rest, **kwargs), g))
    return custom(x, lambda: call(*args, **kwargs), back)


def _centred(x: Tensor, dims: tuple[int, ...], eps: float, g: Tensor) -> Tensor:
    """Through `(x - mean) / std` with `std` a constant: `G / std`, minus its mean."""
    wide_x = wide(x)
    rstd = (wide_x.var(dims, correction=0, keepdim=True) + eps).rsqrt()
    g = wide(g) * rstd
    return (g - g.mean(dims, keepdim=True)).to(x.dtype)


def layer_norm(
    call: Call, input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, *rest: Any,
) -> Tensor:  # fmt: skip
    dims = tuple(range(-len(normalized_shape), 0))
    if call.formula is not None or not _in_one_kernel(input, weight, bias):
        return _normalised(call, input, lambda x, g: _centred(x, dims, eps, g if weight is None else g * weight))
    shape = tuple(input.shape[-len(dims) :])
    kept: list[Tensor] = []

    def compute() -> Tensor:
        y, _, rstd = torch.native_layer_norm(input.detach(), shape, weight, bias, eps)
        kept.append(rstd)
        return y

    def back(x: Tensor, g: Tensor) -> Tensor:
        if not own(g):
            return _centred(x, dims, eps, g if weight is None else g * weight)
        if len(kept) == 1:
            kept.extend((_zeros(kept[0]), _zeros(g)))
        rstd, mean, zeros = kept
        # of an input of zeros, torch's own way back leaves what goes through the deviation out
        options = shape, mean, rstd, weight, None, [True, False, False]
        return torch.ops.aten.native_layer_norm_backward(g, zeros, *options)[0]

    return custom(input, compute, back)


def _zeros(like: Tensor) -> Tensor:
    """Zeros in the shape of a tensor, which all norms of a network share as long as one of them is alive."""
    key = like.shape, like.dtype, like.device
    found = strong(lambda: _ZEROS.get(key))
    if found is None:
        found = _ZEROS[key] = torch.zeros(like.shape, dtype=like.dtype, device=like.device)
    return found


_ZEROS: weakref.WeakValueDictionary[Any, Tensor] = weakref.WeakValueDictionary()


def _in_one_kernel(x: Tensor, *operands: Tensor | None) -> bool:
    """Whether torch's own layer norm computes in the dtype of the input, which holds the deviation as well."""
    plain = x.device.type in ("cpu", "cuda") and x.dtype in (torch.float32, torch.float64)
    alike = all(t is None or (type(t) in (Tensor, nn.Parameter) and t.dtype == x.dtype) for t in operands)
    return plain and alike and not recording() and not torch.is_autocast_enabled(x.device.type)


def rms_norm(
    call: Call, input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))

    def back(x: Tensor, g: Tensor) -> Tensor:
        stabiliser = torch.finfo(x.dtype).eps if eps is None else eps
        rrms = (wide(x).square().mean(dims, keepdim=True) + stabiliser).rsqrt()
        found = (wide(g if weight is None else g * weight) * rrms).to(x.dtype)
        return _kept_at_zeros(call, x, g, found, weight)

    call.keeps_zeros()
    return _normalised(call, input, back)


def _kept_at_zeros(call: Call, x: Tensor, g: Tensor, found: Tensor, weight: Tensor | None = None) -> Tensor:
    """Through `x` times a constant, a zero keeps its relevance, unless the constant is 0."""
    if not call.zeros_carry_first():
        return found
    zeros = x == 0 if weight is None else (x == 0) & (weight != 0)
    return torch.where(zeros & carrying(g), g.to(x.dtype), found)


def group_norm(
    call: Call, input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, *rest: Any,
) -> Tensor:  # fmt: skip
    channels = [1, -1] + [1] * (input.ndim - 2)

    def back(x: Tensor, g: Tensor) -> Tensor:
        g = g if weight is None else g * weight.reshape(channels)
        grouped = (x.shape[0], num_groups, -1)
        return _centred(x.reshape(grouped), (2,), eps, g.reshape(grouped)).reshape(x.shape)

    return _normalised(call, input, back)


def instance_norm(
    call: Call, input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
    weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1,
    eps: float = 1e-5, *rest: Any,
) -> Tensor:  # fmt: skip
    if not use_input_stats:
        return call()
    if running_mean is not None:
        raise ModelStateError(
            f"instance_norm in {call.where()} would update its running statistics: call model.eval() first."
        )
    channels = [1, -1] + [1] * (input.ndim - 2)
    dims = tuple(range(2, input.ndim))
    return _normalised(
        call,
        input,
        lambda x, g: _centred(x, dims, eps, g if weight is None else g * weight.reshape(channels)),
    )


def local_response_norm(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`x / (k + alpha * mean of squares)^beta`: the divisor is a constant, and so is `y / x`."""
    value = call(input.detach(), *args, **kwargs)
    call.keeps_zeros()
    return custom(input, lambda: value.clone(), lambda x, g: _kept_at_zeros(call, x, g, g * value / nonzero(x)))


def normalize(call: Call, input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Tensor:
    norm = input.detach().norm(p, dim, keepdim=True).clamp_min(eps)
    call.keeps_zeros()
    value = call(*map(without_history, call.args), **{k: without_history(v) for k, v in call.kwargs.items()})
    return custom(input, lambda: value.clone(), lambda x, g: _kept_at_zeros(call, x, g, g / norm))


def cosine_similarity(call: Call, x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """A product of two vectors over their lengths: half to each if both are live; the lengths are constants."""
    both = x1.requires_grad and x2.requires_grad
    a, b = (scaled(x1, 0.5), scaled(x2, 0.5)) if both else (x1, x2)
    lengths = [t.detach().norm(2, dim, keepdim=True).clamp_min(eps) for t in (x1, x2)]
    return grafted(call(), ((a / lengths[0]) * (b / lengths[1])).sum(dim))


def softmax(call: Call, *args: Any, **kwargs: Any) -> Any:
    """The weights of an attention: native Jacobian (AttnLRP), constant (CP-LRP), or a Jacobian at a temperature."""
    x = args[0] if args else kwargs["input"]
    dim: Any = kwargs["dim"] if "dim" in kwargs else args[1] if len(args) > 1 else None
    smallest = call.entry.function is F.softmin
    if call.formula is not None:
        way = softened(-x if smallest else x, dim, call.formula)
        y = grafted(call(*map(without_history, call.args), **call.kwargs), way)
    else:
        y = decided(call.way, call())
    scores = weakref.ref(x)  # weak: attention would keep them for nothing

    def logs() -> Tensor | None:
        x = strong(scores)
        return None if x is None else F.log_softmax(-x if smallest else x, dim)

    return as_softmax(call, y, logs)


def softened(x: Tensor, dim: int, rule: Any) -> Tensor:
    return custom(x, lambda: torch.softmax(x.detach(), dim), lambda s, g: rule.softmax(s, g, dim))


def sparse_softmax(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """A softmax over the entries of a sparse matrix that are there."""
    if call.formula is not None:
        raise call.error(f"{call.rule!r} cannot act on a sparse softmax: write torch.softmax of a dense tensor.")
    y: Tensor = decided(call.way, call())
    return y


def native_jacobian(call: Call, *args: Any, **kwargs: Any) -> Any:
    """A score, not a weight: the native Jacobian under any composite; of a number and a score, an activation."""
    live = [t for t in args if isinstance(t, Tensor) and t.requires_grad]
    return elementwise(call, *args, **kwargs) if len(live) == 1 and len(args) == 2 and args[0] is live[0] else call()


register(F.local_response_norm, family="norm", handler=local_response_norm, traits={SCALES}, apart=with_axes(3))
register(F.normalize, family="norm", handler=normalize, traits={SCALES}, apart=along_axis(2, "dim", default=1))
register(F.cosine_similarity, family="product", handler=cosine_similarity, apart=along_axis(2, "dim", default=1))
register(
    torch.softmax, F.softmax, torch.special.softmax, F.softmin, family="softmax", apart=along_axis(1, "dim", "axis")
)
register(torch.sparse.softmax, family="softmax", handler=sparse_softmax, only=True)
register(torch.sparse.log_softmax, family="softmax", handler=native, only=True)
register(torch.logaddexp, torch.logaddexp2, family="softmax", handler=native_jacobian)
register(torch.logcumsumexp, family="softmax", handler=native, apart=along_axis(1, "dim", "axis"))
