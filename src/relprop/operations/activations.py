"""Elementwise functions: the secant from zero, `G_x = G_y (f(x) - f(0)) / x`, and `f'(0)` at 0.

An activation is the same activation in every spelling. Each tensor remembers its *origin*: the live tensor `s` of which
it is an elementwise function `h`, with scalars alone as other operands. A product or quotient whose operands share an
origin is again such an `h(s)`. It gets the secant of the whole chain, straight to `s`; so `x * sigmoid(x)` equals
`F.silu(x)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.again import as_function_of
from relprop.engine.call import Call
from relprop.engine.functions import custom, written
from relprop.engine.notes import continues, note_of
from relprop.engine.origins import SOURCE, ChainStep, Origin, beyond, chain, origin, remembered
from relprop.engine.recorder import memory_of
from relprop.engine.registry import register
from relprop.engine.roles import role
from relprop.engine.sign_masks import keeps_above, keeps_below
from relprop.engine.traits import ADDS, MOVES, SAME, SCALES
from relprop.numerics import aside, carrying, known, nonzero, times
from relprop.operations.gates import GATE, Gating, gated
from relprop.operations.secants import finite_at_zero, is_scalar, secant, secant_of

STATISTIC = role(
    "statistic", MOVES, SAME, SCALES, ADDS,
    given_by="sums, means, variances and lengths",
    asked_by="elementwise functions, which start anew from a statistic, and divisions",
)  # fmt: skip
"""An elementwise function of a statistic may be a normaliser."""


def along(call: Call, found: Origin, compute: Callable[[], Tensor]) -> Tensor:
    """The result of a chain: the operation's own value, with the secant straight to the source."""
    step, nz, first, source = found.step, call.zeros_carry, call.zeros_carry_first, found()

    def propagate(s: Tensor, g: Tensor) -> Tensor:
        return times(secant(step, s, nz and first()), g)

    if call.into is not None and memory_of(source) != memory_of(call.into.target):
        y = written(call.into.target, source, call.into.write, propagate)
        call.renew(y)
    else:
        y = custom(source, compute, propagate)
    call.keeps_zeros()
    return remembered(call, y, found)


def alone(call: Call, x: Tensor, step: ChainStep, compute: Callable[[], Tensor]) -> Tensor:
    """Like `along`, but with the secant to the operand itself, even if the operand has an origin."""
    whole = chain(step.function, tuple(x if a is SOURCE else a for a in step.args), step.kwargs)
    y = along(call, Origin(x, step), compute)
    return y if whole is None else remembered(call, y, whole)


def detached(call: Call) -> Callable[[], Tensor]:
    """The operation on detached operands: its value alone."""
    args = [a.detach() if isinstance(a, Tensor) else a for a in call.args]
    return lambda: call(*args, **call.kwargs)


def elementwise(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """The default of family "activation"."""
    x = args[0] if args else next(iter(kwargs.values()))
    if not isinstance(x, Tensor) or not x.requires_grad:
        x = call.live[0]  # another operand, such as the exponent of a number
        numbers = all(a is x or is_scalar(a) for a in args) and any(a is x for a in args)
        if not numbers or call.formula is not None or x.is_complex():
            return call()
    if x.is_complex():
        return of_complex(call, x)
    if call.formula is not None:
        return ruled(call, x)
    found = chain(call.function, args, kwargs)
    if found is None:
        return call()
    if found.source is x and found.note is not None and continues(found.note) and jumps(found.step, x):
        # no secant describes a jump at 0, as a threshold's: it starts at the tensor before the shift
        far = beyond(x)
        found = far._replace(step=ChainStep(call.function, (far.step, *args[1:]), kwargs))
    if not finite_at_zero(found.step, x):
        return remembered(call, call(), found)
    return along(call, found, detached(call))


def of_complex(call: Call, z: Tensor) -> Tensor:
    """A function of complex numbers: `G_z = G_y conj((f(z) - f(0)) / z)`, with its own gradient at 0.

    The relevance of a complex number is that of both its parts, `Re(z conj(G))`. So what arrives for `f(z) - f(0)` goes on.
    """
    _refuse_rule(call)
    function = as_function_of(call.function, z, call.args, call.kwargs)
    with torch.no_grad():
        at_zero = function(torch.zeros_like(z))
    if not known(torch.isfinite(at_zero).all(), False):
        return call()

    def propagate(z: Tensor, g: Tensor) -> Tensor:
        with torch.enable_grad():
            inner = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(function(inner), inner, g)
        return torch.where(z == 0, slope, g * ((function(z) - at_zero) / z).conj())

    return custom(z, detached(call), propagate)


def _refuse_rule(call: Call) -> None:
    """Refuses a rule for activations on complex numbers."""
    if call.formula is not None:
        raise call.error(
            f"{call.rule!r} acts on real numbers, and this operand is complex. Take its parts by torch.view_as_real, or except the "
            "operation: Composite({relprop.operation(...): relprop.Native()}) | the composite."
        )


def as_length(call: Call, y: Tensor) -> Tensor:
    """Notes that a result is a length, such as a modulus: a statistic, and no gate, as what `torch.norm` returns."""
    call.give(y, STATISTIC, True)
    call.give(y, GATE, 0)
    return y


def jumps(step: ChainStep, x: Tensor) -> bool:
    """Whether a function has different limits on the two sides of 0."""
    with aside(), torch.no_grad():
        before, after = (step(x.new_full((1,), near, dtype=torch.float64)) for near in (-1e-6, 1e-6))
        return bool(((after - before).abs() > 1e-3 * (1 + before.abs())).any())


def ruled(call: Call, x: Tensor) -> Tensor:
    """An activation with its own rule, such as guided backpropagation."""
    rule = call.formula

    def propagate(s: Tensor, g: Tensor) -> Tensor:
        def gradient(v: Tensor) -> Tensor:
            with torch.enable_grad():
                inner = s.detach().requires_grad_()
                return torch.autograd.grad(call(inner, *call.args[1:], **call.kwargs), inner, v)[0]

        return rule.activation(s, lambda: call(s, *call.args[1:], **call.kwargs), g, gradient)

    if not rule.proportional:
        call.keeps_zeros()  # as `Pass` does: what arrives at a zero goes on
    return custom(x, detached(call), propagate)


def homogeneous(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """Functions with `f(c x) = c f(x)` for `c > 0`: the secant is the native gradient."""
    x = args[0]
    if (plain := _ruled_or_zero(call, x)) is not None:
        return plain
    if x.is_complex():
        return as_length(call, call())
    if call.inplace and (layer := call.note(x).layer) is not None:
        layer.saved.preserve()
    before = origin(x)
    y: Tensor = call()
    return y if y is x else kept_on(call, before, y, x, ChainStep(call.function, (SOURCE, *args[1:]), kwargs))


def relu(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """`max(x, 0)`, in any spelling. It is homogeneous, and the layer before it may save its output as the relu's."""
    if (call.rule is not None or call.zeros_carry) and (y := _ruled_or_zero(call, input, torch.relu)) is not None:
        return y
    known = call.note(input)
    y = torch.relu_(input) if call.inplace else torch.relu(input)
    if known.layer is not None:
        known.layer.saved.rectify(y, inplace=call.inplace)
    if call.inplace:
        return y
    if known.chain is not None or known.move is not None:
        return kept_on(call, origin(input), y, input, _RELU)
    call.note(y).give(GATE, Gating(_RELU, known.role(GATE)))
    return y


def _ruled_or_zero(call: Call, x: Tensor, function: Callable[..., Tensor] | None = None) -> Tensor | None:
    """The result if a rule acts on the activation or zeros carry relevance; None if the native gradient is right."""
    if x.is_complex():
        _refuse_rule(call)
    if call.rule is not None and call.formula is not None:
        return ruled(call, x)
    if not call.zeros_carry:
        return None
    first = call.zeros_carry_first
    rest, kwargs = ((), {}) if function is not None else (call.args[1:], call.kwargs)
    apply = call.function if function is None else function
    slanted = call.entry.function not in (torch.abs, torch.absolute) and apply is not keeps_below
    call.keeps_zeros()

    def propagate(s: Tensor, g: Tensor) -> Tensor:
        ratio = nonzero(apply(s, *rest, **kwargs)) / nonzero(s)
        # torch's own gradient at 0: the slope on the left, and 0 for abs
        slope = -apply(-torch.ones_like(s), *rest, **kwargs) if slanted else torch.zeros_like(s)
        at_zero = torch.where(carrying(g), 1.0, slope) if first() else slope
        return g * torch.where(s == 0, at_zero.to(s.dtype), ratio)

    before, value = origin(x), detached(call)
    return kept_on(call, before, custom(x, value, propagate), x, ChainStep(apply, (SOURCE, *rest), kwargs))


def kept_on(call: Call, before: Origin, y: Tensor, x: Tensor, step: ChainStep) -> Tensor:
    """Notes the chain that a relu or its like continues. One that starts here is not worth the memory.

    An activation behind it, also behind a further shift, starts anew: so no map hangs on which chains were noted.
    """
    note = note_of(before.source)
    call.note(y)
    if any(isinstance(a, Tensor) and a.numel() > 1 for a in step.args):
        return gated(y, x, step)  # such as a slope for each channel: no function of a single number
    if before.step is not SOURCE or (note is not None and continues(note)):
        whole = ChainStep(step.function, (before.step, *step.args[1:]), step.kwargs)
        return remembered(call, y, before._replace(step=whole.anew()))
    return gated(y, x, step)


_RELU = ChainStep(torch.relu, (SOURCE,), {})
_NEGATIVE = ChainStep(F.hardtanh, (SOURCE, -math.inf, 0.0), {})


def rrelu(
    call: Call, input: Tensor, lower: Any = None, upper: Any = None, training: bool = False, *a: Any, **k: Any
) -> Tensor:
    """In eval mode a leaky relu, whose slope the operation itself makes of its bounds."""
    if training:
        raise call.training("rrelu")
    return homogeneous(call, *call.args, **call.kwargs)


def of_several(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    """A function of several variables: the secant from zero along its live operand, with the others as constants.

    The second operand of `atan2(y, x)`, which is `atan(y / x)`, is a divisor: a constant, as in any quotient.
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
        secant_of(at, x.detach())
    except (RuntimeError, NotImplementedError) as error:
        raise call.error(f"torch has no derivative along the variable that carries relevance ({error}).") from error
    if value.shape != x.shape:
        wide_x = x.expand(value.shape).contiguous()
        return custom(wide_x, lambda: value.clone(), lambda s, g: g * secant_of(at, s))
    return custom(x, lambda: value.clone(), lambda s, g: g * secant_of(at, s))


def by_mask(call: Call, x: Tensor) -> Tensor:
    """`x * (x > 0)`, in any spelling: a relu. The operation gives the numbers, and where x is 0 the slope."""
    function = call.entry.function
    if (y := _ruled_or_zero(call, x, function)) is not None:
        return y
    return kept_on(call, origin(x), call(), x, _RELU if function is keeps_above else _NEGATIVE)


def negative_part(call: Call, x: Tensor) -> Tensor:
    """`min(x, 0)`, which is `-relu(-x)`: the slope at 0 is 0, that of torch.clamp is 1."""
    if (y := _ruled_or_zero(call, x, keeps_below)) is not None:
        return y
    y = custom(x, detached(call), lambda x, g: torch.where(x < 0, g, 0.0))
    return kept_on(call, origin(x), y, x, _NEGATIVE)


register(keeps_above, keeps_below, family="activation", handler=by_mask, only=True, gives={GATE: 1})
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
register(
    F.gelu, F.silu, F.mish, F.elu, F.celu, F.selu, F.hardswish,
    F.logsigmoid, F.softsign, F.tanhshrink, F.softshrink, F.hardshrink, F.tanh, F.sigmoid,
    torch.special.expit, torch.exp2, torch.expm1, torch.log2, torch.log10, torch.log1p,
    torch.sin, torch.cos, torch.tan, torch.asin, torch.acos, torch.atan, torch.sinh,
    torch.cosh, torch.asinh, torch.acosh, torch.atanh, torch.erf, torch.erfc, torch.erfinv, torch.lgamma,
    torch.digamma, torch.sinc, torch.logit, torch.arcsin, torch.arccos, torch.arctan, torch.arcsinh, torch.arccosh,
    torch.arctanh, torch.special.ndtr, torch.special.log_ndtr, torch.special.ndtri, torch.special.erfcx, torch.special.entr,
    torch.special.gammaln, torch.special.psi, torch.special.i0, torch.special.i0e, torch.special.i1, torch.special.i1e,
    torch.i0, torch.special.bessel_j0, torch.special.bessel_j1,
    torch.frac, torch.nan_to_num, torch.mvlgamma, torch.polygamma, torch.special.multigammaln, torch.ldexp,
    torch.float_power,
    family="activation",
)  # fmt: skip
