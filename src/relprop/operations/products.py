"""Products, quotients and sums.

A product of two operands that both carry relevance gives half to each (the uniform rule). A quotient gives all to the
numerator: the divisor is a normaliser, a constant. Operands of one origin make one elementwise function (`activations`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from relprop.composites.composite import UNDECIDED
from relprop.engine.functions import Share, scaled
from relprop.engine.mode import Call, begin
from relprop.engine.registry import DEFAULTS, register
from relprop.engine.run import Note, note_of, replaying
from relprop.numerics import aside
from relprop.operations.activations import (
    along,
    chain,
    detached,
    finite_at_zero,
    is_scalar,
    remember,
)
from relprop.operations.maps import Contraction, Dense
from relprop.operations.weighted import weighted
from relprop.rules import Gate


def _live(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


_LINEAR = frozenset({"add", "sub", "rsub", "subtract", "mul", "multiply", "div", "divide", "true_divide", "neg"})
_SIGMOIDS = frozenset({"sigmoid", "hardsigmoid", "expit"})


def gating(t: Tensor) -> int:
    """How much of a gate a factor is: 2 out of a sigmoid, 1 out of another activation, else 0."""
    note = note_of(t)
    if note is None or note.step is None:
        return 0 if note is None else note.gate
    squared = any(step.name in ("mul", "multiply") and step.inner > 1 for step in note.step.steps())
    names = {step.name for step in note.step.steps()}
    if names & _SIGMOIDS and not squared:
        return 2
    before = 0 if note.source is None or note.source is t else gating(note.source)
    return max(before, int(bool(names - _LINEAR)))


def still_gating(call: Call, before: Tensor, result: Any) -> Any:
    """Notes on what was made of a gate, by moving or scaling its entries, that it gates as the gate did."""
    gate = gating(before)
    for t in result if isinstance(result, (tuple, list)) else (result,):
        if gate and isinstance(t, Tensor) and t.requires_grad:
            note = note_of(t)
            if note is None or note.run is not call.run:
                note = t._relprop = Note(call.run)  # type: ignore[attr-defined]
            if note.step is None:
                note.gate = gate
    return result


def moving(call: Call, *args: Any, **kwargs: Any) -> Any:
    """A gate that is viewed, cast, gathered or expanded, also as another tensor is, is a gate still."""
    lone = len(call.live) == 1 or call.entry.function.__name__.endswith("_as")
    return still_gating(call, call.live[0], call()) if lone else call()


def _shares(call: Call, a: Tensor, b: Tensor) -> tuple[Share, Share]:
    """Of two factors, half each; all to the one that the other gates, where the composite says so."""
    more = gating(a) - gating(b)
    if more == 0 or not (call.rule is UNDECIDED or isinstance(call.rule, Gate)):
        return 0.5, 0.5
    shares = (0.0, 1.0) if more > 0 else (1.0, 0.0)
    if call.rule is not UNDECIDED:
        return shares
    run, place = call.run, call.place  # not the call, which would keep its operands
    assert place is not None  # products have one
    gated = cache(lambda: isinstance(run.decide(place), Gate))
    return tuple((lambda share=share: share if gated() else 0.5) for share in shares)  # type: ignore[return-value]


def mul(call: Call, input: Any, other: Any, **kwargs: Any) -> Tensor:
    if _live(input) and _live(other):
        found = chain(call.function, (input, other), {})
        if found is not None and found[0].shape == input.shape == other.shape:
            return along(call, *found, detached(call))
        call.run.traits.add("gated")
        a, b = _shares(call, input, other)
        return call(scaled(input, a), scaled(other, b))
    return _with_constant(call, input, other)


def _with_constant(call: Call, input: Any, other: Any) -> Tensor:
    """Native; a scalar keeps the origin, a tensor per channel merges into the weighted layer before."""
    live, constant = (input, other) if _live(input) else (other, input)
    if is_scalar(constant):
        result = call()
        found = chain(call.function, (input, other), {k: v for k, v in call.kwargs.items() if k == "alpha"})
        if found is not None and result.shape == live.shape:
            remember(result, call.run, *found)
            note = note_of(result)
            before = note_of(live)
            if note is not None and before is not None:
                note.statistic = before.statistic
        return still_gating(call, live, result)
    return still_gating(call, live, _per_channel(call, live, constant, input is live))


def _per_channel(call: Call, live: Tensor, constant: Tensor, first: bool) -> Tensor:
    """A bias written by hand, or a scale and then a shift as a BatchNorm's: one map with the weighted layer before."""
    note = note_of(live)
    layer, scale = (None, None) if note is None else (note.scaled or (note.layer, None))
    if layer is None or not (constant.ndim < live.ndim or call.run.owns(constant)):
        return call()  # it may be one sample's own
    if 1 < len(constant) == len(live) and constant.ndim == live.ndim:
        with aside():  # repeated per sample, it is what it is for one
            constant = constant[:1] if bool((constant == constant[:1]).all()) else constant
    if call.rule not in (None, UNDECIDED) or not layer.per_channel(constant, live.ndim):
        return call()
    v = constant.detach().reshape(-1)

    def apply(x: Tensor, c: Tensor) -> Tensor:
        return call(x, c, **call.kwargs) if first else call(c, x, **call.kwargs)

    if call.entry.family != "sum":
        result = call()
        note = result._relprop = Note(call.run)
        factor = apply(torch.ones_like(v), v)
        note.scaled = layer, factor if scale is None else scale * factor
        return result
    with aside():
        sign = apply(torch.ones_like(v), torch.zeros_like(v))
        turned = bool((sign != 1).any())
    if turned:
        scale = sign if scale is None else scale * sign
    if call.place is not None:
        call.place.merged = True
    return layer.merged(scale, apply(torch.zeros_like(v), v)).apply(detached(call))


def add(call: Call, input: Any, other: Any = None, **kwargs: Any) -> Tensor:
    """Sums are linear: the native gradient gives `a / (a + b)`, sign included."""
    if call.run.positions and not replaying():
        input, other = _positioned(call, input, other), _positioned(call, other, input)
        if _live(input) and _live(other):
            return call(input, other, **kwargs)
    if _live(input) and _live(other):
        y = call()
        found = chain(call.function, (input, other), kwargs)
        if found is not None and found[0].shape == y.shape:
            remember(y, call.run, *found)
        if call.run.nz:
            y = y + 0
            _share_zeros(y, input.detach(), other.detach())
        return y
    if not isinstance(other, (Tensor, int, float)):
        return call()
    return _with_constant(call, input, other)


def _positioned(call: Call, constant: Any, live: Any) -> Any:
    """A constant that is added along the steps of a sequence as well as along its features, ready to report."""
    if not isinstance(constant, Tensor) or _live(constant) or not _live(live):
        return constant
    along_steps = min(constant.ndim, live.ndim) > 1 and constant.shape[-2:] == live.shape[-2:] and live.shape[-2] > 1
    finite = along_steps and constant.is_floating_point() and bool((constant > torch.finfo(constant.dtype).min).all())
    return begin(call.run, call.run.sink(constant)) if finite and bool(constant.any()) else constant


def _share_zeros(y: Tensor, a: Tensor, b: Tensor) -> None:
    """Where 0 = 0 + 0 carries relevance, each operand gets half; where it is 1 - 1, none can be told apart."""
    dead = (y.detach() == 0).to(y.dtype)
    weight = 1 - dead * (1 - 0.5 * ((a == 0) & (b == 0)).to(y.dtype))
    y.register_hook(lambda g: g * weight)


def div(call: Call, input: Any, other: Any, *, rounding_mode: Any = None, **kwargs: Any) -> Tensor:
    if rounding_mode is not None:
        return call().detach()
    if not _live(other):
        return _with_constant(call, input, other)
    found = chain(call.function, (input, other), {})
    if found is not None and found[0].shape == torch.broadcast_shapes(
        *(t.shape for t in (input, other) if isinstance(t, Tensor))
    ):
        note = note_of(found[0])
        if not (note is not None and note.statistic) and finite_at_zero(found[1], found[0]):
            return along(call, *found, detached(call))
        if _live(input) and finite_at_zero(found[1], found[0]):
            return along(call, *found, detached(call))
    return still_gating(call, input, call(input, other.detach()))


def reciprocal(call: Call, input: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
    """1 / x as part of an activation, such as 1 / (1 + exp(-x)); else a normaliser, a constant."""
    found = chain(call.function, call.args, kwargs)
    if found is not None and found[0].shape == input.shape:
        note = note_of(found[0])
        if not (note is not None and note.statistic) and finite_at_zero(found[1], found[0]):
            return along(call, *found, detached(call))
        result = call().detach()
        if result.shape == found[0].shape and not (note is not None and note.statistic):
            return result
    return call().detach()


def power(call: Call, input: Any, exponent: Any, **kwargs: Any) -> Tensor:
    from relprop.operations.activations import elementwise

    if not _live(input):
        return elementwise_exponent(call, input, exponent)
    if _live(exponent):
        return call(input, exponent.detach())
    if not isinstance(exponent, Tensor) and exponent < 0:
        return reciprocal(call, input, exponent)
    return elementwise(call, input, exponent, **kwargs)


def elementwise_exponent(call: Call, base: Any, exponent: Tensor) -> Tensor:
    """`c ** x`: an elementwise function of the exponent."""
    found = chain(call.function, (base, exponent), {})
    if found is None or found[0].shape != exponent.shape or not is_scalar(base):
        return call()
    return along(call, *found, detached(call))


def matmul(call: Call, input: Any, other: Any, **kwargs: Any) -> Tensor:
    """`x @ w` with a constant matrix is a weighted layer; with two live operands a product."""
    if _live(input) and _live(other):
        call.run.traits.add("matrix product")
        return call(scaled(input, 0.5), scaled(other, 0.5))
    if _live(input) and other.ndim == 2 and input.ndim >= 2:
        return weighted(call, input, Dense(), other.transpose(0, 1), None)
    return call()


def addmm(call: Call, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    if _live(mat1) and _live(mat2):
        return call(input, scaled(mat1, 0.5), scaled(mat2, 0.5), beta=beta, alpha=alpha)
    if _live(mat1) and not _live(input) and input.ndim == 1 and beta == 1 and alpha == 1 and mat2.ndim == 2:
        return weighted(call, mat1, Dense(), mat2.transpose(0, 1), input)
    return call()


def factors(first: int) -> Callable[..., Tensor]:
    """A product of the operands from position `first` on: equal shares; those before are summands."""

    def product(call: Call, *args: Any, **kwargs: Any) -> Tensor:
        args, kwargs = _positional(args, kwargs)
        live = [i for i, a in enumerate(args) if i >= first and _live(a)]
        if len(live) < 2:
            return call()
        call.run.traits.add("matrix product")
        shared = tuple(scaled(a, 1 / len(live)) if i in live else a for i, a in enumerate(args))
        return call(*shared, **kwargs)

    return product


def _positional(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    tensors = {
        k: v
        for k, v in kwargs.items()
        if isinstance(v, Tensor) and k in ("other", "mat2", "vec2", "vec", "batch2", "tensor2")
    }
    return args + tuple(tensors.values()), {k: v for k, v in kwargs.items() if k not in tensors}


def einsum(call: Call, equation: Any, *operands: Any) -> Tensor:
    inner = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    live = sum(_live(t) for t in inner)
    if live == 1 and len(inner) == 2:
        position = 0 if _live(inner[0]) else 1
        linear = Contraction.parse(equation, position)
        if linear is not None:
            call.relocate("linear")
            return weighted(call, inner[position], linear, inner[1 - position], None)
    if live < 2:
        return call()
    call.run.traits.add("matrix product")
    return call(equation, *(scaled(t, 1 / live) if _live(t) else t for t in inner))


def multi_dot(call: Call, tensors: Any, *rest: Any, **kwargs: Any) -> Tensor:
    listed = isinstance(tensors, (list, tuple))
    inner = list(tensors) if listed else [tensors, *rest]
    live = sum(_live(t) for t in inner)
    inner = [scaled(t, 1 / live) if _live(t) and live > 1 else t for t in inner]
    return call(inner, **kwargs) if listed else call(*inner, **kwargs)


def prod(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A product of `n` elements gives each `1 / n`."""
    y = call()
    count = max(1, input.numel() // max(1, y.numel()))
    return call(scaled(input, 1 / count), *args, **kwargs) if count > 1 else y


def cumprod(call: Call, input: Tensor, dim: int, **kwargs: Any) -> Tensor:
    """The k-th result is a product of k elements: `1 / k` to each."""
    y = call()
    shape = [1] * input.ndim
    if input.ndim:
        shape[dim] = -1
    counts = torch.arange(1, (input.shape[dim] if input.ndim else 1) + 1, dtype=y.dtype, device=y.device).reshape(shape)
    y = y + 0
    y.register_hook(lambda g: g / counts)
    return y


def addcmul(call: Call, input: Tensor, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
    if _live(tensor1) and _live(tensor2):
        return call(input, scaled(tensor1, 0.5), scaled(tensor2, 0.5), value=value)
    return call()


def addcdiv(call: Call, input: Tensor, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
    return call(input, tensor1, tensor2.detach(), value=value)


def lerp(call: Call, input: Tensor, end: Any, weight: Any) -> Tensor:
    """`a + w (b - a)`: linear in both ends, the weight a gate."""
    return call(input, end, weight.detach() if isinstance(weight, Tensor) else weight)


def remainder(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    return call(args[0], args[1].detach() if isinstance(args[1], Tensor) else args[1], **kwargs)


def statistic(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """A mean or sum: linear. What is computed from it elementwise may be a normaliser."""
    y = call()
    if call.run.nz and y.requires_grad and call.place is not None and call.entry.function is torch.sum:
        x = args[0]
        if isinstance(x, Tensor):
            dead = (y.detach() == 0).to(y.dtype)
            count = max(1, x.numel() // max(1, y.numel()))
            y = y + 0
            y.register_hook(lambda g: g * (1 - dead * (1 - 1 / count)))
    for t in y if isinstance(y, tuple) else (y,):
        note = Note(call.run)
        note.statistic = True
        if isinstance(t, Tensor) and t.requires_grad:
            t._relprop = note  # type: ignore[attr-defined]
    return y


def degree(k: int) -> Callable[..., Any]:
    """Positively homogeneous of degree k, jointly in its live operands: the native gradient over k conserves (Euler)."""

    def handler(call: Call, *args: Any, **kwargs: Any) -> Any:
        args = tuple(scaled(a, 1 / k) if _live(a) and k > 1 else a for a in args)
        y = call(*args, **kwargs) if args else call()
        for t in y if isinstance(y, tuple) else (y,):
            if isinstance(t, Tensor) and t.requires_grad:
                # one of several results may be unused: nothing arrives there
                t.register_hook(lambda g: g if g is None else g.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))
                note = Note(call.run)
                note.statistic = True
                t._relprop = note  # type: ignore[attr-defined]
        return y

    return handler


def var_mean(call: Call, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Two degrees in one call: the mean gets back the half that the variance gives up."""
    var, mean = degree(2)(call, *args, **kwargs)
    return (var, scaled(mean, 2).clone()) if mean.requires_grad else (var, mean)


def rsqrt(call: Call, input: Tensor) -> Tensor:
    return call().detach()


def _summing(call: Call, *args: Any, **kwargs: Any) -> Any:
    return call()


DEFAULTS["structure"] = moving
DEFAULTS["product"] = factors(0)
DEFAULTS["sum"] = _summing
register(torch.mul, torch.multiply, family="product", handler=mul)
register(torch.add, torch.sub, torch.subtract, torch.rsub, family="sum", handler=add)
register(torch.div, torch.divide, torch.true_divide, family="division", handler=div)
register(torch.reciprocal, family="division", handler=reciprocal)
register(torch.rsqrt, family="division", handler=rsqrt)
register(torch.pow, family="activation", handler=power)
register(torch.matmul, torch.mm, torch.linalg.matmul, family="linear", handler=matmul)
register(torch.addmm, family="linear", handler=addmm)
register(
    torch.bmm, torch.mv, torch.dot, torch.outer, torch.ger, torch.inner, torch.vdot, torch.kron, torch.cross,
    torch.linalg.cross, torch.linalg.vecdot, torch.tensordot, torch.xlogy,
    family="product",
)  # fmt: skip
register(torch.baddbmm, torch.addbmm, torch.addmv, torch.addr, family="product", handler=factors(1))
register(torch.addcmul, family="product", handler=addcmul)
register(torch.addcdiv, family="division", handler=addcdiv)
register(torch.lerp, family="sum", handler=lerp)
register(
    torch.fmod,
    torch.remainder,
    torch.Tensor.__mod__,
    torch.Tensor.__rmod__,
    torch.Tensor.__imod__,
    family="division",
    handler=remainder,
)
register(torch.einsum, family="product", handler=einsum)
register(torch.chain_matmul, torch.linalg.multi_dot, family="product", handler=multi_dot)
register(torch.prod, family="product", handler=prod)
register(torch.cumprod, family="product", handler=cumprod)
register(torch.mean, torch.sum, torch.nansum, torch.nanmean, torch.trace, family="sum", handler=statistic)
register(torch.var, family="norm", handler=degree(2))
register(torch.var_mean, family="norm", handler=var_mean)
register(
    torch.std, torch.std_mean, torch.norm, torch.linalg.norm, torch.linalg.vector_norm, torch.linalg.matrix_norm,
    torch.cdist, torch.dist, torch.hypot, torch.pdist, torch.nn.functional.pairwise_distance,
    torch.renorm, torch.frobenius_norm, torch.nuclear_norm,
    family="norm", handler=degree(1),
)  # fmt: skip
