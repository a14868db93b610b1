"""Sums, and products with a constant. One with a number per channel folds into the weighted layer before it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.notes import note_of
from relprop.engine.origins import Origin, chain, remembered
from relprop.engine.registry import register
from relprop.engine.replay import replaying
from relprop.engine.roles import same
from relprop.engine.tensors import is_live
from relprop.engine.traits import ADDS, AFFINE
from relprop.engine.zeros import sum_of_two, through_chain
from relprop.numerics import aside
from relprop.operations.activations import detached
from relprop.operations.biases import are_scores, positioned
from relprop.operations.exponentials import difference
from relprop.operations.folding import layer_before, note_scaled
from relprop.operations.layer_call import LayerCall
from relprop.operations.lengths import SQUARES
from relprop.operations.maps import Contraction
from relprop.operations.secants import is_scalar
from relprop.rules.base import UNDECIDED


def with_constant(call: Call, input: Any, other: Any) -> Tensor:
    """Native. A scalar keeps the origin; one number per channel folds into the weighted layer before.

    A number that is added to all entries belongs to the activation behind it, as the 3 in `relu6(h + 3) / 6`.
    """
    live, constant = (input, other) if is_live(input) else (other, input)
    if type(constant) in (int, float) and constant == 0 and call.entry.family == "sum":
        return _with_zero(call, live, input, other)
    if _expanded(constant) and torch.broadcast_shapes(live.shape, constant.shape) == live.shape:
        constant = _unexpanded(call, constant)
        input, other = (live, constant) if input is live else (constant, live)
    if not is_scalar(constant) or (isinstance(constant, Tensor) and _of_one_output(live)):
        return _per_channel(call, live, constant, input is live)
    note = note_of(live)
    behind = note is not None and (note.layer is not None or note.scaled is not None or note.move is not None)
    scales = behind and call.entry.family != "sum" and live.is_floating_point()
    result = _per_channel(call, live, constant, input is live) if scales else call()
    options = {k: v for k, v in call.kwargs.items() if k == "alpha"}
    found = chain(call.function, (input, other), options, affine=True)
    return result if found is None or result.shape != live.shape else _continued(call, result, live, found)


def _expanded(constant: Any) -> bool:
    """Whether a constant holds the same numbers along some axis because it was expanded along it."""
    return isinstance(constant, Tensor) and constant.layout is torch.strided and 0 in constant.stride()


def _unexpanded(call: Call, constant: Tensor) -> Tensor:
    """A constant as it was before it was expanded over the samples, or itself if it may differ between them."""
    base, same_for_all = constant._base, call.is_model_constant(constant)
    if base is not None and not base.ndim and base.dtype == constant.dtype:
        return base.detach()
    with aside():
        narrow, whole = _narrowed(constant), constant
        while narrow.ndim > 1 and len(narrow) == 1 and (same_for_all or len(whole) > 1):
            narrow, whole = narrow[0], whole[0]
    return narrow if narrow.ndim < constant.ndim else constant


def _narrowed(constant: Tensor) -> Tensor:
    """A constant of which axes along which it was expanded, and so holds the same numbers, have length 1."""
    return constant[tuple(slice(0, 1) if step == 0 else slice(None) for step in constant.stride())]


def _with_zero(call: Call, live: Tensor, input: Any, other: Any) -> Tensor:
    """A sum with the number 0 is the tensor itself, or a number times it, as `0 - h` is."""
    options = {k: v for k, v in call.kwargs.items() if k == "alpha"}

    def of(t: Tensor) -> Tensor:
        made: Tensor = call.function(*(t if a is live else a for a in (input, other)), **options)
        return made

    result = call()
    reversed_, plain = call.entry.function is torch.rsub, call.entry.function is torch.add and not options
    if plain or (input is live and not reversed_):
        return same(call, live, result)
    layer, scale = layer_before(live)
    if layer is not None:
        with aside():
            factor = of(torch.ones((), dtype=live.dtype, device=live.device))
        note_scaled(call.note(result), layer, scale, factor)
    found = chain(call.function, (input, other), options, affine=True)
    return result if found is None else _continued(call, result, live, found)


def _continued(call: Call, result: Tensor, live: Tensor, found: Origin) -> Tensor:
    """A step of an elementwise chain. What its zeros carry goes to the start of the chain, if that is 0 as well."""
    if call.zeros_carry and not found.step.affine:
        result = through_chain(call, result, live, found())
    return remembered(call, result, found)


def _of_one_output(live: Tensor) -> bool:
    """Whether a layer made a tensor that has no axis of channels, such as `x @ row`: then a scalar is its bias."""
    note = note_of(live)
    layer = None if note is None else note.layer or (note.scaled and note.scaled[0])
    linear = None if layer is None else layer.weighted.linear
    return isinstance(linear, Contraction) and not linear.channels


def _per_channel(call: Call, live: Tensor, constant: Tensor, first: bool) -> Tensor:
    """Folds a bias, or a scale and then a shift, into the weighted layer before it, like a BatchNorm."""
    layer, scale = layer_before(live)
    if layer is not None and call.entry.family != "sum" and (not isinstance(constant, Tensor) or constant.numel() == 1):
        return _scaled(call, layer, scale, constant, first)
    channels_first = layer is not None and layer.weighted.linear.over(0)
    if layer is None or not (constant.ndim < live.ndim or channels_first or call.is_model_constant(constant)):
        return call()  # it may differ between samples
    if not channels_first and constant.ndim and 1 < len(constant) == len(live) and constant.ndim == live.ndim:
        with aside():  # if it repeats for every sample, one copy is enough
            constant = constant[:1] if bool((constant == constant[:1]).all()) else constant
    with aside():
        constant = _narrowed(constant) if _expanded(constant) else constant
    v = layer.vector(constant.detach())
    return call() if v is None else _folded(call, layer, scale, v, first)


def _scaled(call: Call, layer: LayerCall, scale: Tensor | None, constant: Any, first: bool) -> Tensor:
    """A factor for all channels. It folds into the layer together with a shift or a BatchNorm that follows."""
    live = call.live[0]
    if not isinstance(constant, Tensor):
        return _folded(call, layer, scale, torch.as_tensor(constant, dtype=live.dtype, device=live.device), first)
    fits = constant.ndim < live.ndim or (constant.ndim == live.ndim and call.is_model_constant(constant))
    if not fits or not constant.is_floating_point():
        return call()  # it may differ between samples
    return _folded(call, layer, scale, constant.detach().reshape(()).to(live.device), first)


def _folded(call: Call, layer: LayerCall, scale: Tensor | None, v: Tensor, first: bool) -> Tensor:
    """The result of a shift by a vector over channels, or of a scale by one or by a number, which `layer` takes as its own."""
    if call.rule not in (None, UNDECIDED):
        return call()

    def apply(x: Tensor, c: Tensor) -> Tensor:
        return call(x, c, **call.kwargs) if first else call(c, x, **call.kwargs)

    if call.entry.family != "sum":
        result = call()
        note_scaled(call.renew(result), layer, scale, apply(torch.ones_like(v), v))
        return result
    with aside():
        sign = apply(torch.ones_like(v), torch.zeros_like(v))
        turned = bool((sign != 1).any())
    if turned:
        scale = sign if scale is None else scale * sign
    if scale is not None and not scale.ndim and (scale := layer.uniform(scale)) is None:
        return call()
    if call.place is not None:
        call.place.merge()
    call.keeps_zeros()
    return layer.folded(scale, apply(torch.zeros_like(v), v)).apply(detached(call))


def add(call: Call, input: Any, other: Any = None, **kwargs: Any) -> Tensor:
    """Sums are linear: the native gradient gives `a / (a + b)`, sign included."""
    if call.reports_positions and not replaying():
        input, other = _positioned(call, input, other), _positioned(call, other, input)
        if is_live(input) and is_live(other):
            return call(input, other, **kwargs)
    if is_live(input) and is_live(other):
        y = sum_of_two(call, call, input, other, **kwargs) if call.zeros_carry else call()
        found = chain(call.function, (input, other), kwargs, affine=True)
        return y if found is None else _continued(call, y, input, found)
    if not isinstance(other, (Tensor, int, float)):
        return call()
    return with_constant(call, input, other)


def sub(call: Call, input: Any, other: Any = None, **kwargs: Any) -> Tensor:
    """A sum with a sign."""
    return difference(call, add(call, input, other, **kwargs), input, other)


def _positioned(call: Call, constant: Any, live: Any) -> Any:
    """A constant added along the steps of a sequence and along its features, made to report its relevance."""
    if not isinstance(constant, Tensor) or is_live(constant) or not is_live(live):
        return constant
    if are_scores(live) and torch.broadcast_shapes(constant.shape, live.shape) == live.shape:
        return positioned(call, constant, live.shape)
    along_steps = min(constant.ndim, live.ndim) > 1 and constant.shape[-2:] == live.shape[-2:] and live.shape[-2] > 1
    finite = along_steps and constant.is_floating_point() and bool((constant > torch.finfo(constant.dtype).min).all())
    return call.position_leaf(constant) if finite and bool(constant.any()) else constant


def diff(
    call: Call, input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """Differences of neighbours. If zeros carry relevance, each is a sum of two."""
    if not call.zeros_carry or n < 1:
        return call()
    x = torch.cat([t for t in (prepend, input, append) if t is not None], dim)
    for _ in range(n):
        length = x.shape[dim] - 1
        x = sum_of_two(torch.sub, call, x.narrow(dim, 1, length), x.narrow(dim, 0, length))
    return x


def lerp(call: Call, input: Tensor, end: Any, weight: Any) -> Tensor:
    """`a + w (b - a)`: linear in both ends, with the weight as a gate."""
    return call(input, end, weight.detach() if isinstance(weight, Tensor) else weight)


register(torch.add, torch.rsub, family="sum", handler=add, traits={ADDS})
register(torch.sub, torch.subtract, family="sum", handler=sub, traits={ADDS}, gives={SQUARES: False})
register(torch.lerp, family="sum", handler=lerp, traits={AFFINE})
register(torch.diff, family="structure", handler=diff)
