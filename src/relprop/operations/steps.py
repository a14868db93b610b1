"""Operations that stand for visible steps. The steps are followed; the value is the operation's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import grafted
from relprop.engine.mode import steps_of
from relprop.engine.notes import note_of
from relprop.engine.registry import Handler, register
from relprop.engine.spelling import named
from relprop.engine.tensors import without_history
from relprop.operations import normalisation  # noqa: F401  (whose norms are replaced here)


def by_steps(definition: Callable[..., Any]) -> Handler:
    """A handler for an operation that `definition` writes out. Results that are None there carry no relevance."""

    def handler(call: Call, *args: Any, **kwargs: Any) -> Any:
        # the steps run on the operands themselves, and must not write into them
        with steps_of(call):
            history = definition(*args, **kwargs)
        value = call(*map(without_history, args), **without_history(kwargs))
        if isinstance(value, Tensor):
            return with_history(value, history)
        pairs = [with_history(v, h) for v, h in zip(value, history, strict=True)]
        return tuple(pairs) if type(value) is tuple else type(value)(pairs)

    return handler


def with_history(value: Any, history: Any) -> Any:
    """An operation's own value, with the backward pass of its steps."""
    if not isinstance(history, Tensor) or not history.requires_grad:
        return value
    history = history if history.shape == value.shape else history.reshape(value.shape)
    known = note_of(history)
    # the next operation may be folded into the layer that made it
    if known is not None and known.layer is not None and _equal(value, history):
        return history
    return grafted(value, history)


def _equal(a: Tensor, b: Tensor) -> bool:
    from relprop.operations.followed_functions import same

    return same(a, b.detach())


def cov(
    input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None
) -> Tensor:
    """The product of centred rows with one another: a product of two."""
    rows = input if input.ndim > 1 else input.reshape(1, -1)
    weights = torch.ones(rows.shape[1], dtype=rows.dtype, device=rows.device)
    counts = weights if fweights is None else fweights.to(rows.dtype)
    weights = counts if aweights is None else counts * aweights.detach().to(rows.dtype)
    total = weights.sum()
    centred = rows - (rows * weights).sum(1, keepdim=True) / total
    extra = counts.sum() if aweights is None else total
    norm = extra - correction if aweights is None else total - correction * (weights * aweights.detach()).sum() / total
    found = (centred * weights) @ centred.mT / norm.clamp_min(0)
    return found.reshape(()) if input.ndim < 2 else found


def corrcoef(input: Tensor) -> Tensor:
    """A covariance over two lengths, which are normalisers: constants."""
    c = cov(input)
    if input.ndim < 2:
        return c / c
    lengths = c.diagonal().detach().sqrt()
    return c / lengths[:, None] / lengths[None]


def vander(x: Tensor, N: int | None = None, increasing: bool = True) -> Tensor:
    """Powers of each entry: elementwise."""
    count = x.shape[-1] if N is None else N
    powers = [torch.ones_like(x) if k == 0 else (x if k == 1 else x**k) for k in range(count)]
    return torch.stack(powers if increasing else powers[::-1], -1)


def xlog1py(input: Any, other: Any) -> Tensor:
    """`x log(1 + y)`, and 0 where x is 0."""
    return _times_logarithm(input, other, torch.log1p, 0.0)


def xlogy(input: Any, other: Any) -> Tensor:
    """`x log(y)`, and 0 where x is 0."""
    return _times_logarithm(input, other, torch.log, 1.0)


def _times_logarithm(input: Any, other: Any, log: Callable[[Tensor], Tensor], nothing: float) -> Tensor:
    """`nothing` is where the logarithm is 0."""
    if isinstance(input, Tensor) and isinstance(other, Tensor):
        undefined = (input.detach() == 0) & ~log(other.detach()).isfinite()
        other = torch.where(undefined, torch.full_like(other, nothing), other)
    if not isinstance(other, Tensor):
        return input * log(torch.tensor(float(other), dtype=input.dtype))
    return log(other) * input


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """Each entry of one times each of the other."""
    return input[:, None] * vec2


def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """A convolution along time, laid out (time, batch, channels)."""
    return F.conv1d(input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad).permute(2, 0, 1)


def native_layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, None]:
    y = F.layer_norm(input, normalized_shape, weight, bias, eps)
    return y, input.mean(tuple(range(-len(normalized_shape), 0)), keepdim=True), None


def native_group_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, N: int, C: int, HxW: int, group: int, eps: float
) -> tuple[Tensor, Tensor, None]:
    return F.group_norm(input, group, weight, bias, eps), input.reshape(N, group, -1).mean(2), None


def native_batch_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None, running_var: Tensor | None,
    training: bool, momentum: float, eps: float,
) -> tuple[Tensor, None, None]:  # fmt: skip
    return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps), None, None


def batch_norm_no_training(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor, running_var: Tensor, momentum: float,
    eps: float,
) -> tuple[Tensor, None, None]:  # fmt: skip
    return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps), None, None


def fused_rms_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None, eps: float | None
) -> tuple[Tensor, None]:
    return F.rms_norm(input, normalized_shape, weight, eps), None


def embedding_bag(
    weight: Tensor, indices: Tensor, offsets: Tensor, scale_grad_by_freq: bool = False, mode: int = 0,
    sparse: bool = False, per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[Tensor, None, None, None]:  # fmt: skip
    bags = F.embedding_bag(
        indices, weight, offsets, scale_grad_by_freq=scale_grad_by_freq, mode=("sum", "mean", "max")[mode], sparse=sparse,
        per_sample_weights=per_sample_weights, include_last_offset=include_last_offset, padding_idx=padding_idx,
    )  # fmt: skip
    return bags, None, None, None


_DEFINITIONS: dict[str, Callable[..., Any]] = {
    "cov": cov,
    "corrcoef": corrcoef,
    "xlog1py": xlog1py,
    "xlogy": xlogy,
    "outer": outer,
    "ger": outer,
    "conv_tbc": conv_tbc,
    "native_layer_norm": native_layer_norm,
    "native_group_norm": native_group_norm,
    "native_batch_norm": native_batch_norm,
    "_native_batch_norm_legit_no_training": batch_norm_no_training,
    "_fused_rms_norm": fused_rms_norm,
}
for _name, _definition in _DEFINITIONS.items():
    for _function in named(_name):
        register(_function, family="structure", handler=by_steps(_definition), only=True, decomposes=True)
register(torch.linalg.vander, family="structure", handler=by_steps(vander), only=True, decomposes=True)
register(
    torch.vander,
    family="structure",
    handler=by_steps(lambda x, N=None, increasing=False: vander(x, N, increasing)),
    only=True,
    decomposes=True,
)
register(torch.embedding_bag, family="structure", handler=by_steps(embedding_bag), only=True, decomposes=True)
