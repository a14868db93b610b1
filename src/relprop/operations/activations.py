"""Elementwise functions: the secant from zero, `G_x = G_y (f(x) - f(0)) / x`, and `f'(0)` at 0.

An activation is one activation however it is spelled. Each tensor remembers its *origin*: the live tensor `s` it is an
elementwise function `h` of, through scalars only. A product or quotient whose operands share one origin is again
`h(s)`, and gets the secant of the whole chain, straight to `s`; so `x * sigmoid(x)` equals `F.silu(x)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from relprop.engine.call import Call
from relprop.engine.functions import custom, grafted, scaled
from relprop.engine.messages import refuse_training
from relprop.engine.notes import Note, note_of, noted
from relprop.engine.registry import DEFAULTS, register
from relprop.engine.run import Run
from relprop.numerics import aside, nonzero, own, recording
from relprop.operations.weighted import Capped
from relprop.rules import Gate, Pass
from relprop.rules.activation import ActivationRule

_NEAR = 1e-5  # below this a difference quotient in float64 has fewer digits than the first two Taylor terms


class Step:
    """One operation of an elementwise chain; `None` among its operands stands for the source."""

    __slots__ = ("args", "function", "kwargs")

    def __init__(self, function: Callable[..., Any], args: tuple, kwargs: dict) -> None:
        self.function, self.args, self.kwargs = function, args, kwargs

    def __call__(self, s: Tensor, memo: dict[int, Tensor] | None = None) -> Tensor:
        memo = {} if memo is None else memo
        if id(self) not in memo:
            memo[id(self)] = self.function(*(self._operand(a, s, memo) for a in self.args), **self.kwargs)
        return memo[id(self)]

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", "").strip("_")

    @property
    def inner(self) -> int:
        """How many operands depend on the source."""
        return sum(isinstance(a, Step) or a is SOURCE for a in self.args)

    def steps(self) -> Iterator[Step]:
        """Every operation of the chain."""
        yield self
        for a in self.args:
            if isinstance(a, Step):
                yield from a.steps()

    def _operand(self, a: Any, s: Tensor, memo: dict[int, Tensor]) -> Any:
        if a is SOURCE:
            return s
        if isinstance(a, Step):
            return a(s, memo)
        return a.to(s.dtype) if isinstance(a, Tensor) and a.is_floating_point() else a


SOURCE = object()


def origin(t: Tensor) -> tuple[Tensor, Any]:
    """The source a live tensor is an elementwise function of, and the chain; itself, if none is known."""
    note = note_of(t)
    if note is None or note.source is None or note.source._version != note.source_version:
        return t, SOURCE
    return note.source, note.step


def chain(function: Callable[..., Any], args: tuple, kwargs: dict) -> tuple[Tensor, Step] | None:
    """The common source of all live operands and the chain the result is, if there is one."""
    live = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
    source = origin(live[0])[0] if live else None
    if source is None or any(origin(a)[0] is not source for a in live):
        return None
    steps = tuple(origin(a)[1] if isinstance(a, Tensor) and a.requires_grad else a for a in args)
    return source, Step(function, steps, kwargs)


def remember(result: Tensor, run: Run, source: Tensor, step: Step) -> Tensor:
    """Notes on a result that it is an elementwise function of a source."""
    if result.shape == source.shape:
        note = noted(run, result)
        note.source, note.step, note.source_version = source, step, source._version
    return result


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
    # A graph of its own: a checkpoint that the operation runs in must not count what it saves.
    with aside(), torch.enable_grad(), saved_tensors_hooks(lambda t: t, lambda t: t):
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


def along(call: Call, source: Tensor, step: Step, compute: Callable[[], Tensor]) -> Tensor:
    """The result of a chain: value of the operation itself, secant straight to the source."""
    nz = call.run.nz
    y = custom(source, compute, lambda s, g: g * secant(step, s, nz))
    return remember(y, call.run, source, step)


def detached(call: Call) -> Callable[[], Tensor]:
    """The operation on operands that carry nothing: its value alone."""
    args = tuple(a.detach() if isinstance(a, Tensor) else a for a in call.args)
    return lambda: call(*args, **call.kwargs)


def elementwise(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """The default of family "activation"."""
    x = args[0] if args else next(iter(kwargs.values()))
    if not isinstance(x, Tensor) or not x.requires_grad:
        return call()
    if isinstance(call.rule, ActivationRule):
        return ruled(call, x)
    if isinstance(call.rule, Pass):
        value = detached(call)
        return custom(x, value, lambda s, g: g * (nonzero(call(s, *args[1:], **kwargs)) / nonzero(s)))
    if x.is_complex():
        return call()
    found = chain(call.function, args, kwargs)
    if found is None:
        return call()
    source, step = found
    note = note_of(source)
    if note is not None and note.statistic and source is not x:
        source, step = x, Step(call.function, (SOURCE, *args[1:]), kwargs)
    if source.shape != x.shape:
        return call()
    if not finite_at_zero(step, source):
        return remember(call(), call.run, source, step)
    return along(call, source, step, detached(call))


def ruled(call: Call, x: Tensor) -> Tensor:
    """An activation with a rule of its own (guided backpropagation and the like)."""
    rule: Any = call.rule

    def propagate(s: Tensor, g: Tensor) -> Tensor:
        def gradient(v: Tensor) -> Tensor:
            with torch.enable_grad():
                inner = s.detach().requires_grad_()
                return torch.autograd.grad(call(inner, *call.args[1:], **call.kwargs), inner, v)[0]

        return rule.propagate(s, g, gradient)

    return custom(x, detached(call), propagate)


def homogeneous(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """Relu and its like: the secant is the native gradient."""
    x = args[0]
    if call.rule is not None and not isinstance(call.rule, Pass) and isinstance(call.rule, ActivationRule):
        return ruled(call, x)
    if isinstance(call.rule, Pass) or call.run.nz:
        value = detached(call)
        return custom(x, value, lambda s, g: g * _passing(call(s, *args[1:], **kwargs), s, isinstance(call.rule, Pass)))
    layer = maker(x)
    rectifies = call.entry.function is torch.relu
    if layer is not None and call.inplace and not rectifies:
        layer.preserve()
    y = call()
    if layer is not None and rectifies:
        layer.rectify(y, inplace=y is x)
    if y is not x:
        y._relprop = Note(call.run)
        y._relprop.gate = 1
    return y


def capped(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """`min(max(x, 0), c)`, as relu6: a relu, but for the few entries that the cap cut, whose secant is `c / x`."""
    low, high = BOUNDS[call.entry.function](*args, **kwargs)
    plain = isinstance(low, (int, float)) and isinstance(high, (int, float)) and low == 0 < high < float("inf")
    alone = input.requires_grad and origin(input)[1] is SOURCE
    if not plain or not alone or call.rule is not None or call.run.nz or not input.is_floating_point():
        return NotImplemented if call.inplace else elementwise(call, *call.args, **call.kwargs)
    layer = maker(input)
    cut = Capped(input, high) if input.numel() and input.ndim and not recording() else None
    if cut is None or 8 * len(cut.index) > input.numel():
        return NotImplemented if call.inplace else elementwise(call, *call.args, **call.kwargs)
    cut = cut if len(cut.index) else None
    y = torch.relu_(input) if call.inplace else torch.relu(input)
    y.data.clamp_(max=high)  # where the relu is open does not change, so its saved result stays good
    if cut is not None:
        _slope_where_cut(y, cut, high)
    if layer is not None:
        layer.rectify(y, call.inplace, cut)
    return y if call.inplace else remember(y, call.run, input, Step(call.function, (SOURCE, *args), kwargs))


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
}
"""The interval to which a function clips its input, from its other arguments."""


def maker(x: Tensor) -> Any:
    """The weighted layer that made a tensor, if one did."""
    note = note_of(x)
    return note.layer if note is not None else None


def _passing(y: Tensor, s: Tensor, everywhere: bool) -> Tensor:
    ratio = nonzero(y) / nonzero(s)
    return ratio if everywhere else torch.where(s == 0, torch.ones_like(s), ratio)


homogeneous.inplace = True  # type: ignore[attr-defined]
capped.inplace = True  # type: ignore[attr-defined]


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
        raise refuse_training("rrelu", call.run)
    return homogeneous(call, *call.args, **call.kwargs)


def glu(call: Call, input: Tensor, dim: int = -1) -> Tensor:
    """`a * sigmoid(b)` of the two halves: a product of two live operands."""
    a, b = input.chunk(2, dim)
    for half in (a, b):
        half._relprop = Note(call.run)  # type: ignore[attr-defined]
    if isinstance(call.rule, Gate):
        return grafted(call(), a * b.detach().sigmoid())
    gate = along(call, b, Step(torch.sigmoid, (SOURCE,), {}), lambda: b.detach().sigmoid())
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
    with torch.enable_grad(), saved_tensors_hooks(lambda t: t, lambda t: t):
        zero = torch.zeros_like(s, requires_grad=True)
        at_zero = function(zero)
        (slope,) = torch.autograd.grad(at_zero.sum(), zero)
    near = s.abs() < _NEAR
    rise = (function(s) - at_zero.detach()) / torch.where(near, torch.ones_like(s), s)
    return torch.where(near, slope, rise).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


DEFAULTS["activation"] = elementwise
register(torch.atan2, torch.arctan2, torch.special.gammainc, torch.special.gammaincc, torch.igamma, torch.igammac,
         torch.special.zeta,         family="activation", handler=of_several)  # fmt: skip
register(torch.relu, torch.abs, F.leaky_relu, F.prelu, torch.absolute, family="activation", handler=homogeneous)
register(torch.rrelu, F.rrelu, family="activation", handler=rrelu)
register(F.glu, family="product", handler=glu)
register(*BOUNDS, family="activation", handler=capped)
register(
    F.gelu, F.silu, F.mish, F.elu, F.celu, F.selu, F.hardswish, F.hardsigmoid,
    F.logsigmoid, F.softsign, F.tanhshrink, F.softshrink, F.hardshrink, torch.threshold, F.threshold, F.tanh, F.sigmoid,
    torch.special.expit, torch.exp2, torch.expm1, torch.log, torch.log2, torch.log10, torch.log1p,
    torch.sqrt, torch.square, torch.sin, torch.cos, torch.tan, torch.asin, torch.acos, torch.atan, torch.sinh,
    torch.cosh, torch.asinh, torch.acosh, torch.atanh, torch.erf, torch.erfc, torch.erfinv, torch.lgamma,
    torch.digamma, torch.sinc, torch.logit, torch.arcsin, torch.arccos, torch.arctan, torch.arcsinh, torch.arccosh,
    torch.arctanh, torch.special.ndtr, torch.special.log_ndtr, torch.special.ndtri, torch.special.erfcx, torch.special.entr,
    torch.special.gammaln, torch.special.psi, torch.special.i0, torch.special.i0e, torch.special.i1, torch.special.i1e,
    torch.i0, torch.special.bessel_j0, torch.special.bessel_j1, torch.clamp_min, torch.clamp_max,
    torch.frac, torch.nan_to_num, torch.mvlgamma, torch.polygamma, torch.special.multigammaln, torch.ldexp,
    torch.float_power,
    family="activation",
)  # fmt: skip
