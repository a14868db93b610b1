"""Losses, written out: differences, activations, products with constants, sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.registry import register
from relprop.operations.steps import by_steps

_REDUCTIONS = ("none", "mean", "sum")


def _kind(size_average: bool | None, reduce: bool | None, reduction: str | int) -> str:
    """How entries are reduced, by the new argument or the two deprecated ones."""
    if size_average is not None or reduce is not None:
        if reduce is False:
            return "none"
        return "sum" if size_average is False else "mean"
    return _REDUCTIONS[reduction] if isinstance(reduction, int) else reduction


def _reduced(loss: Tensor, how: str, weight: Tensor | None = None) -> Tensor:
    if weight is not None:
        loss = loss * weight
    if how == "none":
        return loss
    if how == "sum":
        return loss.sum()
    return loss.mean() if weight is None else loss.sum() / weight.detach().expand_as(loss).sum()


def _of_difference(function: Callable[[Tensor, Any], Tensor]) -> Callable[..., Tensor]:
    """A loss that is an elementwise function of `input - target`."""

    def loss(
        input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: Any = "mean",
        weight: Tensor | None = None, **options: Any,
    ) -> Tensor:  # fmt: skip
        return _reduced(function(input - target, options), _kind(size_average, reduce, reduction), weight)

    return loss


def _rounded(d: Tensor, width: float, slope: float) -> Tensor:
    """`d^2 / 2` near 0 and linear beyond, over `width / slope`: one product, with a constant as its other factor."""
    size = d.detach().abs()
    beyond = slope * (1 - width / 2 / size.clamp_min(width))
    factor = torch.where(size < width, d.detach() * (slope / 2 / width if width else 0), beyond * d.detach().sign())
    return d * factor


mse = _of_difference(lambda d, _: d.square())
l1 = _of_difference(lambda d, _: d.abs())


def smooth_l1(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: Any = "mean",
    beta: float = 1.0,
) -> Tensor:
    return _reduced(_rounded(input - target, beta, 1.0), _kind(size_average, reduce, reduction))


def huber(
    input: Tensor, target: Tensor, reduction: Any = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    return _reduced(_rounded(input - target, delta, delta), _kind(None, None, reduction), weight)


def cross_entropy_of_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None, reduce: Any = None,
    reduction: Any = "mean", pos_weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """`(1 - t) x + (1 + (p - 1) t) softplus(-x)`."""
    slope = 1 if pos_weight is None else 1 + (pos_weight - 1) * target
    loss = (1 - target) * input + slope * F.softplus(-input)
    loss = loss if weight is None else loss * weight
    return _reduced(loss, _kind(size_average, reduce, reduction))


def cross_entropy_of_probabilities(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None, reduce: Any = None,
    reduction: Any = "mean",
) -> Tensor:  # fmt: skip
    # torch clips logarithms at -100; a clipped one is a constant
    yes = torch.where(input > math.exp(-100), input, torch.ones_like(input))
    no = torch.where(input < 1, input, torch.zeros_like(input))
    loss = -(target * yes.log() + (1 - target) * torch.log1p(-no))
    loss = loss if weight is None else loss * weight
    return _reduced(loss, _kind(size_average, reduce, reduction))


def kl_div(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: Any = "mean",
    log_target: bool = False,
) -> Tensor:  # fmt: skip
    loss = target.exp() * (target - input) if log_target else torch.xlogy(target, target) - target * input
    if reduction == "batchmean" and size_average is None and reduce is None:
        return loss.sum() / len(input)
    return _reduced(loss, _kind(size_average, reduce, reduction))


def cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None, ignore_index: int = -100,
    reduce: Any = None, reduction: Any = "mean", label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    how, axis = _kind(size_average, reduce, reduction), 0 if input.ndim == 1 else 1
    logs, classes = F.log_softmax(input, axis), input.shape[axis]
    shape = [-1 if n == axis else 1 for n in range(input.ndim)]
    each = torch.ones(classes, dtype=input.dtype, device=input.device) if weight is None else weight.detach()
    if target.is_floating_point():
        wanted = target * (1 - label_smoothing) + label_smoothing / classes
        loss = -(logs * (wanted * each.reshape(shape))).sum(axis)
        return _reduced(loss, how) if how != "mean" else loss.sum() / (input.numel() // classes)
    kept = target != ignore_index
    ids = torch.where(kept, target, torch.zeros_like(target))
    of_class = torch.where(kept, each[ids], torch.zeros_like(each[ids]))
    loss = -logs.gather(axis, ids.unsqueeze(axis)).squeeze(axis) * of_class
    if label_smoothing:
        spread = (-logs * each.reshape(shape)).sum(axis) * kept.to(input.dtype)
        loss = loss * (1 - label_smoothing) + spread * (label_smoothing / classes)
    return _reduced(loss, how) if how != "mean" else loss.sum() / of_class.sum()


def hinge_embedding(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: Any = None,
    reduce: Any = None,
    reduction: Any = "mean",
) -> Tensor:
    nothing = torch.zeros_like(input)
    loss = torch.where(target != 1, (margin - input).relu(), nothing) + torch.where(target != -1, input, nothing)
    return _reduced(loss, _kind(size_average, reduce, reduction))


def margin_ranking(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0, size_average: Any = None, reduce: Any = None,
    reduction: Any = "mean",
) -> Tensor:  # fmt: skip
    return _reduced((-target * (input1 - input2) + margin).relu(), _kind(size_average, reduce, reduction))


def soft_margin(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: Any = "mean"
) -> Tensor:
    return _reduced(F.softplus(-target * input), _kind(size_average, reduce, reduction))


def cosine_embedding(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0, size_average: Any = None, reduce: Any = None,
    reduction: Any = "mean",
) -> Tensor:  # fmt: skip
    cosine = F.cosine_similarity(input1, input2, -1)
    nothing = torch.zeros_like(cosine)
    loss = torch.where(target == 1, 1 - cosine, nothing) + torch.where(target == -1, (cosine - margin).relu(), nothing)
    return _reduced(loss, _kind(size_average, reduce, reduction))


def poisson(
    input: Tensor, target: Tensor, log_input: bool = True, full: bool = False, size_average: Any = None, eps: float = 1e-8,
    reduce: Any = None, reduction: Any = "mean",
) -> Tensor:  # fmt: skip
    loss = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        many = torch.where(target > 1, target, torch.ones_like(target))
        stirling = many * many.log() - many + 0.5 * (2 * math.pi * many).log()
        loss = loss + torch.where(target > 1, stirling, torch.zeros_like(target))
    return _reduced(loss, _kind(size_average, reduce, reduction))


def gaussian(
    input: Tensor, target: Tensor, var: Any, full: bool = False, eps: float = 1e-6, reduction: Any = "mean"
) -> Tensor:
    var = var if isinstance(var, Tensor) else torch.full_like(input, var)
    if var.shape != input.shape and var.shape == input.shape[:-1]:
        var = var.unsqueeze(-1)
    var = var.clamp(min=eps)
    loss = 0.5 * (var.log() + (input - target).square() / var)
    return _reduced(loss + 0.5 * math.log(2 * math.pi) if full else loss, _kind(None, None, reduction))


def triplet_with_distance(
    anchor: Tensor, positive: Tensor, negative: Tensor, *, distance_function: Any = None, margin: float = 1.0,
    swap: bool = False, reduction: Any = "mean",
) -> Tensor:  # fmt: skip
    between = F.pairwise_distance if distance_function is None else distance_function
    near, far = between(anchor, positive), between(anchor, negative)
    if swap:
        far = torch.minimum(far, between(positive, negative))
    return _reduced((margin + near - far).relu(), _kind(None, None, reduction))


def triplet(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2, eps: float = 1e-6,
    swap: bool = False, size_average: Any = None, reduce: Any = None, reduction: Any = "mean",
) -> Tensor:  # fmt: skip
    return triplet_with_distance(
        anchor, positive, negative, distance_function=lambda a, b: F.pairwise_distance(a, b, p, eps), margin=margin,
        swap=swap, reduction=_kind(size_average, reduce, reduction),
    )  # fmt: skip


def multi_margin(
    input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None, size_average: Any = None,
    reduce: Any = None, reduction: Any = "mean",
) -> Tensor:  # fmt: skip
    rows, ids = (input, target) if input.ndim > 1 else (input.reshape(1, -1), target.reshape(1))
    own = rows.gather(1, ids[:, None])
    short = (margin - own + rows).relu()
    loss = (
        (short if p == 1 else short.square())
        if weight is None
        else (short if p == 1 else short.square()) * weight[ids, None]
    )
    other = torch.ones_like(rows).scatter(1, ids[:, None], 0.0)
    loss = (loss * other).sum(1) / rows.shape[1]
    return _reduced(loss if input.ndim > 1 else loss[0], _kind(size_average, reduce, reduction))


def multilabel_soft_margin(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None, reduce: Any = None,
    reduction: Any = "mean",
) -> Tensor:  # fmt: skip
    loss = -(target * F.logsigmoid(input) + (1 - target) * F.logsigmoid(-input))
    loss = loss if weight is None else loss * weight
    return _reduced(loss.mean(-1), _kind(size_average, reduce, reduction))


_DEFINITIONS: dict[Any, Callable[..., Tensor]] = {
    F.mse_loss: mse,
    F.l1_loss: l1,
    F.smooth_l1_loss: smooth_l1,
    F.huber_loss: huber,
    F.binary_cross_entropy_with_logits: cross_entropy_of_logits,
    F.binary_cross_entropy: cross_entropy_of_probabilities,
    F.kl_div: kl_div,
    F.cross_entropy: cross_entropy,
    F.hinge_embedding_loss: hinge_embedding,
    F.margin_ranking_loss: margin_ranking,
    F.soft_margin_loss: soft_margin,
    F.cosine_embedding_loss: cosine_embedding,
    F.poisson_nll_loss: poisson,
    F.gaussian_nll_loss: gaussian,
    F.triplet_margin_loss: triplet,
    F.triplet_margin_with_distance_loss: triplet_with_distance,
    F.multi_margin_loss: multi_margin,
    F.multilabel_soft_margin_loss: multilabel_soft_margin,
}
_BENEATH: dict[Any, tuple[Callable[..., Tensor], str]] = {
    torch.binary_cross_entropy_with_logits: (cross_entropy_of_logits, "input target weight pos_weight reduction"),
    torch.cosine_embedding_loss: (cosine_embedding, "input1 input2 target margin reduction"),
    torch.hinge_embedding_loss: (hinge_embedding, "input target margin reduction"),
    torch.kl_div: (kl_div, "input target reduction"),
    torch.margin_ranking_loss: (margin_ranking, "input1 input2 target margin reduction"),
    torch.poisson_nll_loss: (poisson, "input target log_input full eps reduction"),
    torch.triplet_margin_loss: (triplet, "anchor positive negative margin p eps swap reduction"),
}
"""The functions that these call: the same losses, with their arguments in this order."""


def _beneath(definition: Callable[..., Tensor], names: str) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: definition(**dict(zip(names.split(), args, strict=False)), **kwargs)


for _function, _definition in _DEFINITIONS.items():
    register(_function, family="structure", handler=by_steps(_definition), only=True, decomposes=True)
for _function, (_definition, _names) in _BENEATH.items():
    register(_function, family="structure", handler=by_steps(_beneath(_definition, _names)), only=True, decomposes=True)
# linear in the logarithms: torch's own gradient is exact
register(F.nll_loss, family="structure")
