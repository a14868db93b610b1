"""Elementwise functions: the secant from zero, `G_x = G_y (f(x) - f(0)) / x`, and `f'(0)` at 0.

An activation is one activation however it is spelled. Each tensor remembers its *origin*: the live tensor `s` it is an
elementwise function `h` of, through scalars only. A product or quotient whose operands share one origin is again
`h(s)`, and gets the secant of the whole chain, straight to `s`; so `x * sigmoid(x)` equals `F.silu(x)`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import custom, grafted, scaled
from relprop.engine.notes import note_of
from relprop.engine.origins import SOURCE, Origin, Step, beyond, chain, origin, picked, proportional, remembered
from relprop.engine.registry import register
from relprop.engine.roles import role
from relprop.engine.spelling import named
from relprop.engine.traits import ADDS, MOVES, SAME, SCALES
from relprop.engine.traits import BOUNDS as BOUNDS_TRAIT
from relprop.numerics import aside, carrying, kept_here, nonzero, own
from relprop.operations.gates import GATE
from relprop.operations.weighted import Capped
from relprop.rules.base import Way
from relprop.torch_private.recorded import recording

STATISTIC = role(
    "statistic", MOVES, SAME, SCALES, ADDS,
    given_by="sums, means, variances and lengths",
    asked_by="elementwise functions, which start anew from a statistic, and divisions",
)  # fmt: skip
"""What is computed from it elementwise may be a normaliser."""
_NEAR = 1e-5  # below this a difference quotient in float64 has fewer digits than the first two Taylor terms


def is_scalar(value: Any) -> bool:
    return not isinstance(value, Tensor) or value.ndim == 0


def secant(step: Step, s: Tensor, nz: bool) -> Tensor:
    """`(h(s) - h(0)) / s`, with the slope at 0 where `s` is 0; with `nz`, a zero output passes on what it received."""
    exact = s if s.dtype == torch.float64 or s.device.type == "mps" else None
    if exact is None and s.dtype == torch.float32 and _taylor(step, s).null:
        exact = s  # h(0) = 0: no digits are lost to a difference
    x = s.double() if exact is None else exact
    slope, curve, at_zero, _, null = _taylor(step, x)
    y = step(x)
    if null:
        fresh = not torch.is_grad_enabled() and y is not x
        factor = y.div_(x) if fresh and not nz else y / x
        factor = (factor.nan_to_num_ if fresh else factor.nan_to_num)(nan=slope, posinf=0.0, neginf=0.0)
    else:
        near = x.abs() < _NEAR
        factor = torch.where(near, slope + curve * x / 2, (y - at_zero) / torch.where(near, torch.ones_like(x), x))
    if nz:
        factor = torch.where(y == 0, nonzero(y) / nonzero(x), factor)
    return factor.to(s.dtype)


class Expansion(NamedTuple):
    """`h'(0)`, `h''(0)` and `h(0)`, and whether the last is finite, and 0."""

    slope: float
    curve: float
    value: Tensor
    finite: bool
    null: bool


def _taylor(step: Step, x: Tensor) -> Expansion:
    """The expansion of a chain at 0, remembered for functions with plain numbers as parameters."""
    try:
        return _remembered(step.function, step.args, tuple(step.kwargs.items()), x.dtype, x.device)
    except TypeError:  # a parameter that cannot be a key
        return _expand(step, x.dtype, x.device)


@lru_cache(maxsize=512)
def _remembered(
    function: Callable[..., Any], args: tuple, kwargs: tuple, dtype: torch.dtype, device: torch.device
) -> Expansion:
    if any(isinstance(a, (Tensor, Step)) for a in (*args, *(v for _, v in kwargs))):
        raise TypeError("tensors and chains are not remembered")
    return _expand(Step(function, args, dict(kwargs)), dtype, device)


def _expand(step: Step, dtype: torch.dtype, device: torch.device) -> Expansion:
    """Derivatives that do not exist or are infinite count as 0."""
    with aside(), torch.enable_grad(), kept_here():
        zero = torch.zeros(1, dtype=dtype, device=device, requires_grad=True)
        y = step(zero)
        slope = curve = torch.zeros(())
        try:
            if y.requires_grad:
                (slope,) = torch.autograd.grad(y.sum(), zero, create_graph=True)
                if slope.requires_grad:
                    (curve,) = torch.autograd.grad(slope, zero)
        except RuntimeError:
            pass
        s, c = (v if isfinite(v) else 0.0 for v in (float(slope.detach()), float(curve.detach())))
        value = y.detach() if y.numel() > 1 else y.detach().reshape(())
        return Expansion(s, c, value, bool(torch.isfinite(value).all()), bool((value == 0).all()))


def finite_at_zero(step: Step, s: Tensor) -> bool:
    return _taylor(step, s if s.device.type == "mps" or not s.is_floating_point() else s.new_empty(0).double()).finite


def along(call: Call, found: Origin, compute: Callable[[], Tensor]) -> Tensor:
    """The result of a chain: value of the operation itself, secant straight to the source."""
    step, nz, first = found.step, call.zeros_carry, call.zeros_carry_first
    y = custom(found(), compute, lambda s, g: g * secant(step, s, nz and first()))
    call.zeros = True
    return remembered(call, y, found)


def alone(call: Call, x: Tensor, step: Step, compute: Callable[[], Tensor]) -> Tensor:
    """As `along`, with the secant to the operand itself, whatever the operand is a function of."""
    whole = chain(step.function, tuple(x if a is SOURCE else a for a in step.args), step.kwargs)
    y = along(call, Origin(x, step), compute)
    return y if whole is None else remembered(call, y, whole)


def detached(call: Call) -> Callable[[], Tensor]:
    """The operation on operands that carry nothing: its value alone."""
    args = tuple(a.detach() if isinstance(a, Tensor) else a for a in call.args)
    return lambda: call(*args, **call.kwargs)


def elementwise(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """The default of family "activation"."""
    x = args[0] if args else next(iter(kwargs.values()))
    if not isinstance(x, Tensor) or not x.requires_grad:
        return call()
    if call.formula is not None:
        return ruled(call, x)
    if x.is_complex():
        return call()
    found = chain(call.function, args, kwargs)
    if found is None:
        return call()
    if found.source is x and found.note is not None and found.note.source is not None and jumps(found.step, x):
        # no secant stands for a jump at 0, as a threshold's: it is taken of what was shifted
        far = beyond(x)
        found = far._replace(step=Step(call.function, (far.step, *args[1:]), kwargs))
    if not finite_at_zero(found.step, x):
        return remembered(call, call(), found)
    return along(call, found, detached(call))


def jumps(step: Step, x: Tensor) -> bool:
    """Whether a function has two values at 0, one on either side."""
    with aside(), torch.no_grad():
        before, after = (step(x.new_full((1,), near, dtype=torch.float64)) for near in (-1e-6, 1e-6))
        return bool(((after - before).abs() > 1e-3 * (1 + before.abs())).any())


def ruled(call: Call, x: Tensor) -> Tensor:
    """An activation with a rule of its own (guided backpropagation and the like)."""
    rule = call.formula

    def propagate(s: Tensor, g: Tensor) -> Tensor:
        def gradient(v: Tensor) -> Tensor:
            with torch.enable_grad():
                inner = s.detach().requires_grad_()
                return torch.autograd.grad(call(inner, *call.args[1:], **call.kwargs), inner, v)[0]

        return rule.activation(s, lambda: call(s, *call.args[1:], **call.kwargs), g, gradient)

    return custom(x, detached(call), propagate)


def homogeneous(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """Functions with `f(c x) = c f(x)` for `c > 0`: the secant is the native gradient."""
    x = args[0]
    if (plain := _ruled_or_zero(call, x)) is not None:
        return plain
    if call.inplace and (layer := maker(x)) is not None:
        layer.preserve()
    before = origin(x)
    y: Tensor = call()
    return y if y is x else _kept_on(call, before, y, call.function, args[1:], kwargs)


def relu(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`max(x, 0)`, by whatever name: homogeneous, and the layer before may keep its output as the relu's."""
    if (plain := _ruled_or_zero(call, input, torch.relu)) is not None:
        return plain
    layer, before = maker(input), origin(input)
    y = torch.relu_(input) if call.inplace else torch.relu(input)
    if layer is not None:
        layer.rectify(y, inplace=call.inplace)
    return y if call.inplace else _kept_on(call, before, y, torch.relu, (), {})


def _ruled_or_zero(call: Call, x: Tensor, function: Callable[..., Tensor] | None = None) -> Tensor | None:
    """Where a rule acts on the activation, or zeros carry relevance: no native gradient."""
    if call.formula is not None:
        return ruled(call, x)
    if not call.zeros_carry:
        return None
    first = call.zeros_carry_first
    rest, kwargs = ((), {}) if function is not None else (call.args[1:], call.kwargs)
    apply = call.function if function is None else function
    slanted = call.entry.function not in (torch.abs, torch.absolute)
    call.zeros = True

    def propagate(s: Tensor, g: Tensor) -> Tensor:
        ratio = nonzero(apply(s, *rest, **kwargs)) / nonzero(s)
        # what torch's own gradient is at 0: the slope on the left, and none of abs
        slope = -apply(-torch.ones_like(s), *rest, **kwargs) if slanted else torch.zeros_like(s)
        at_zero = torch.where(carrying(g), 1.0, slope) if first() else slope
        return g * torch.where(s == 0, at_zero.to(s.dtype), ratio)

    before, value = origin(x), detached(call)
    return _kept_on(call, before, custom(x, value, propagate), apply, rest, kwargs)


def _kept_on(call: Call, before: Origin, y: Tensor, function: Any, args: tuple, kwargs: dict) -> Tensor:
    """Notes the chain that a piecewise linear function continues; one that starts here is not worth the memory."""
    note = note_of(before.source)
    if before.step is not SOURCE or (note is not None and note.source is not None):
        remembered(call, y, before._replace(step=Step(function, (before.step, *args), kwargs)))
    return y


def bounded(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Kept within bounds: a relu; a relu with a cap, as relu6; else the secant from what was given to it."""
    low, high = (as_number(v) for v in BOUNDS[call.entry.function](*args, **kwargs))
    return within(call, input, low, high, (call.function, args, kwargs))


def within(call: Call, input: Tensor, low: Any, high: Any, how: tuple[Any, tuple, dict]) -> Any:
    """`min(max(x, low), high)`, where `how` is a function of `x` that does it, with its other arguments."""
    rectifies = isinstance(low, (int, float)) and low == 0 and input.is_floating_point()
    if rectifies and (high is None or high == float("inf")):
        return relu(call, input)
    function, args, kwargs = how
    step = Step(function, (SOURCE, *args), kwargs)
    if call.inplace:
        return NotImplemented
    if call.way is not Way.DEFAULT:
        return elementwise(call, *call.args, **call.kwargs)
    capped = rectifies and isinstance(high, (int, float)) and high > 0
    found = None if not capped or call.zeros_carry else _capped(call, input, high, step)
    return alone(call, input, step, detached(call)) if found is None else found


def capped_in_place(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """The same, written into the operand where that needs no copy."""
    low, high = (as_number(v) for v in BOUNDS[call.entry.function](*args, **kwargs))
    if not (isinstance(low, (int, float)) and low == 0 and input.is_floating_point()) or call.rule is not None:
        return NotImplemented
    if high is None or high == float("inf"):
        return relu(call, input)
    if not isinstance(high, (int, float)) or high < 0:
        return NotImplemented
    found = _capped(call, input, high, Step(call.function, (SOURCE, *args), kwargs))
    return NotImplemented if found is None else found


def _capped(call: Call, input: Tensor, high: float, step: Step) -> Tensor | None:
    """A relu, but for the few entries that the cap cut, whose secant is `high / x`; None where they are not few."""
    cut = Capped(input, high) if input.numel() and input.ndim and not recording() else None
    if cut is None or 8 * len(cut.index) > input.numel():
        return None
    cut = cut if len(cut.index) else None
    layer, before = maker(input), origin(input)
    y = torch.relu_(input) if call.inplace else torch.relu(input)
    y.data.clamp_(max=high)  # where the relu is open does not change, so its saved result stays good
    if cut is not None:
        _slope_where_cut(y, cut, high)
    if layer is not None:
        layer.rectify(y, call.inplace, cut)
    if call.inplace:
        return y
    chained = Step(step.function, (before.step, *step.args[1:]), step.kwargs)
    return remembered(call, y, before._replace(step=chained))


def as_number(value: Any) -> Any:
    """A bound as a number, where it is one for all entries."""
    if not isinstance(value, Tensor) or value.requires_grad or recording():
        return value
    if value.numel() == 1:
        return float(value)
    first = value.flatten()[:1]
    return float(first) if value.numel() and bool((value == first).all()) else value


def multiples(call: Call, result: Any, a: Tensor, b: Tensor) -> Any:
    """Notes that the larger or smaller of two multiples of one tensor is an activation of it: a leaky relu, or `|x|`."""
    if isinstance(result, Tensor) and result.requires_grad and proportional(a, b):
        found = chain(call.function, call.args, call.kwargs)
        if found is not None:
            remembered(call, result, found)
    return result


def selecting(call: Call, *args: Any, **kwargs: Any) -> Any:
    """`where(a > b, a, b)` is `maximum(a, b)`, a leaky relu say; another condition selects."""
    result = call()
    live = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor) and t.requires_grad]
    if len(live) != 2 or recording() or not isinstance(result, Tensor) or not proportional(*live):
        return result
    a, b = (t.detach() for t in live)
    for function in (torch.maximum, torch.minimum):
        if bool((function(a, b) == result.detach()).all()):
            found = chain(function, tuple(live), {})
            return result if found is None else remembered(call, result, found)
    return result


def extremum(largest: bool) -> Callable[..., Any]:
    """The larger or smaller of two: with a number, a bound; else the winner takes all."""

    def handler(call: Call, *args: Any, **kwargs: Any) -> Any:
        other = kwargs.get("other", args[1] if len(args) > 1 else None)
        pair: tuple[Any, Any] = (args[0] if args else kwargs.get("input"), other)
        live = [t for t in pair if isinstance(t, Tensor) and t.requires_grad]
        if live and not isinstance(other, Tensor):  # along an axis, which is the argument of that place
            return picked(call, live[0], call(), kwargs.get("dim", 0 if other is None else other))
        if len(live) == 2:
            return multiples(call, call(), *live)
        if not live:
            return call()
        x = live[0]
        constant = as_number(pair[1] if x is pair[0] else pair[0])
        if isinstance(constant, Tensor) or torch.broadcast_shapes(*(t.shape for t in pair)) != x.shape:
            return call()
        bounds = {"min": constant} if largest else {"max": constant}
        return within(call, x, bounds.get("min"), bounds.get("max"), (torch.clamp, (), bounds))

    return handler


def hardsigmoid(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """`relu6(x + 3) / 6`: the bound acts on `x + 3`, and the 3 is a bias that keeps its share."""
    if call.formula is not None:
        return elementwise(call, input, *args, **kwargs)
    first, shifted = call.zeros_carry_first, input + 3
    affine = chain(torch.add, (input, 3), {}, affine=True)
    if affine is not None:
        remembered(call, shifted, affine)
    call.absorbs(shifted)
    call.zeros = True

    def propagate(z: Tensor, g: Tensor) -> Tensor:
        y = _sixth(z)
        if first():
            y = torch.where(z == 0, y, nonzero(y))
        return g * (y / z).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)

    return remembered(call, custom(shifted, detached(call), propagate), Origin(shifted, Step(_sixth, (SOURCE,), {})))


def _sixth(z: Tensor) -> Tensor:
    return F.relu6(z) / 6


def threshold(call: Call, input: Tensor, threshold: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    """A relu where both numbers are 0."""
    if threshold == 0 and value == 0 and input.is_floating_point():
        return relu(call, input)
    if call.way is not Way.DEFAULT:
        return elementwise(call, *call.args, **call.kwargs)
    step = Step(torch.threshold, (SOURCE, threshold, value), {})
    return NotImplemented if call.inplace else alone(call, input, step, detached(call))


def _slope_where_cut(y: Tensor, cut: Capped, high: float) -> None:
    """Lets the relu that made `y` hand back `G c / x` where the cap cut."""
    slope = high / cut.values

    def scale(gradients: tuple[Tensor | None, ...], _: Any) -> tuple[Tensor] | None:
        g = gradients[0]
        if g is None:
            return None
        values = g.take(cut.index) * slope
        return (g.put_(cut.index, values) if own(g) else g.put(cut.index, values),)

    assert y.grad_fn is not None  # the input was live
    y.grad_fn.register_hook(scale)


BOUNDS: dict[Any, Callable[..., tuple[Any, Any]]] = {
    F.relu6: lambda *a, **k: (0, 6),
    F.hardtanh: lambda min_val=-1.0, max_val=1.0, *a, **k: (min_val, max_val),
    torch.clamp: lambda min=None, max=None, **k: (min, max),
    torch.clip: lambda min=None, max=None, **k: (min, max),
    torch.clamp_min: lambda min, **k: (min, None),
    torch.clamp_max: lambda max, **k: (None, max),
}
"""The interval to which a function clips its input, from its other arguments."""


def maker(x: Tensor) -> Any:
    """The weighted layer that made a tensor, if one did."""
    note = note_of(x)
    return note.layer if note is not None else None


def rrelu(
    call: Call,
    input: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    *a: Any,
    **k: Any,
) -> Tensor:
    if training:
        raise call.training("rrelu")
    return homogeneous(call, *call.args, **call.kwargs)


def glu(call: Call, input: Tensor, dim: int = -1) -> Tensor:
    """`a * sigmoid(b)` of the two halves: a product of two live operands."""
    a, b = input.chunk(2, dim)
    if call.formula is not None and call.formula.product((0, 2)) == (1.0, 0.0):
        return grafted(call(), a * b.detach().sigmoid())
    gate = along(call, Origin(b, Step(torch.sigmoid, (SOURCE,), {})), lambda: b.detach().sigmoid())
    return grafted(call(), scaled(a, 0.5) * scaled(gate, 0.5))


def of_several(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """A function of several variables: the secant from zero along the one that carries relevance, the others constants.

    Of `atan2(y, x)`, which is `atan(y / x)`, the second is a divisor: a constant, as in any quotient.
    """
    if not call.live[0].is_floating_point():
        return call()
    x = call.live[0]
    if len(call.live) > 1 and call.entry.function is not torch.atan2:
        raise call.error(
            "several of its variables carry relevance, and there is no rule that shares it. Detach all but one to take "
            "the others for constants."
        )
    along_one = [a if a is x else (a.detach() if isinstance(a, Tensor) else a) for a in args]
    named = {key: a if a is x else (a.detach() if isinstance(a, Tensor) else a) for key, a in kwargs.items()}

    def at(s: Tensor) -> Tensor:
        return call(*(s if a is x else a for a in along_one), **{k: s if a is x else a for k, a in named.items()})

    value = at(x.detach())
    try:
        _secant_of(at, x.detach())
    except (RuntimeError, NotImplementedError) as error:
        raise call.error(f"torch has no derivative along the variable that carries relevance ({error}).") from error
    if value.shape != x.shape:
        wide_x = x.expand(value.shape).contiguous()
        return custom(wide_x, lambda: value.clone(), lambda s, g: g * _secant_of(at, s))
    return custom(x, lambda: value.clone(), lambda s, g: g * _secant_of(at, s))


def _secant_of(function: Callable[[Tensor], Tensor], s: Tensor) -> Tensor:
    """`(f(s) - f(0)) / s`, with the slope at 0 where `s` is near it."""
    with torch.enable_grad(), kept_here():
        zero = torch.zeros_like(s, requires_grad=True)
        at_zero = function(zero)
        (slope,) = torch.autograd.grad(at_zero.sum(), zero)
    near = s.abs() < _NEAR
    rise = (function(s) - at_zero.detach()) / torch.where(near, torch.ones_like(s), s)
    return torch.where(near, slope, rise).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


register(torch.relu, family="activation", handler=relu, in_place=relu, gives={GATE: 1})
register(
    torch.atan2, torch.arctan2, torch.special.gammainc, torch.special.gammaincc, torch.igamma, torch.igammac,
    torch.special.zeta,
    family="activation", handler=of_several,
)  # fmt: skip
register(
    torch.abs, F.leaky_relu, F.prelu, torch.absolute,
    family="activation", handler=homogeneous, in_place=homogeneous, gives={GATE: 1},
)  # fmt: skip
register(torch.rrelu, F.rrelu, family="activation", handler=rrelu, gives={GATE: 1})
register(F.glu, family="product", handler=glu)
register(*BOUNDS, family="activation", handler=bounded, in_place=capped_in_place, traits={BOUNDS_TRAIT})
register(F.hardsigmoid, family="activation", handler=hardsigmoid)
register(torch.threshold, F.threshold, family="activation", handler=threshold, in_place=threshold)
register(*named("where"), family="structure", handler=selecting, traits={MOVES})
for _largest, _names in ((True, "max maximum fmax"), (False, "min minimum fmin")):
    register(*named(_names), family="selection", handler=extremum(_largest))
register(
    F.gelu, F.silu, F.mish, F.elu, F.celu, F.selu, F.hardswish,
    F.logsigmoid, F.softsign, F.tanhshrink, F.softshrink, F.hardshrink, F.tanh, F.sigmoid,
    torch.special.expit, torch.exp2, torch.expm1, torch.log2, torch.log10, torch.log1p,
    torch.sqrt, torch.square, torch.sin, torch.cos, torch.tan, torch.asin, torch.acos, torch.atan, torch.sinh,
    torch.cosh, torch.asinh, torch.acosh, torch.atanh, torch.erf, torch.erfc, torch.erfinv, torch.lgamma,
    torch.digamma, torch.sinc, torch.logit, torch.arcsin, torch.arccos, torch.arctan, torch.arcsinh, torch.arccosh,
    torch.arctanh, torch.special.ndtr, torch.special.log_ndtr, torch.special.ndtri, torch.special.erfcx, torch.special.entr,
    torch.special.gammaln, torch.special.psi, torch.special.i0, torch.special.i0e, torch.special.i1, torch.special.i1e,
    torch.i0, torch.special.bessel_j0, torch.special.bessel_j1,
    torch.frac, torch.nan_to_num, torch.mvlgamma, torch.polygamma, torch.special.multigammaln, torch.ldexp,
    torch.float_power,
    family="activation",
)  # fmt: skip
