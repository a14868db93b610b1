"""Activations with bounds: clamps, caps, thresholds, and the maximum or minimum of two operands."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import custom, written
from relprop.engine.moves import picked
from relprop.engine.notes import continues
from relprop.engine.origins import SOURCE, ChainStep, Origin, chain, origin, proportional, remembered
from relprop.engine.registry import register
from relprop.engine.roles import selects
from relprop.engine.rows import by_entry
from relprop.engine.sign_masks import at_least, at_most
from relprop.engine.spelling import named
from relprop.engine.traits import BOUNDS as BOUNDS_TRAIT
from relprop.engine.traits import MOVES
from relprop.numerics import nonzero, own, where_positive
from relprop.operations.activations import alone, detached, elementwise, kept_on, negative_part, relu
from relprop.operations.gates import gated
from relprop.operations.sample_axes import along_axis
from relprop.operations.stacks import elementwise_extreme
from relprop.rules.base import Way
from relprop.torch_private.recorded import recording


def bounded(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Clipped to bounds."""
    low, high = (as_number(v) for v in BOUNDS[call.entry.function](*args, **kwargs))
    function = call.entry.function if call.entry.function in (at_least, at_most) else call.function
    return within(call, input, low, high, (function, args, kwargs))


def within(call: Call, input: Tensor, low: Any, high: Any, how: tuple[Any, tuple, dict]) -> Any:
    """`y = min(max(x, low), high)`, where `how` gives the function of `x` that computes it and its other arguments.

    With 0 between the bounds it is an activation that saturates, such as relu6: `G_x = G_y y / x`, the secant from zero. A
    bound that is not 0, and lies on the way from 0 to x, is another operand: where it wins it takes all, as in a maximum.
    So `max(x, 0.3)` is `relu(x - 0.3) + 0.3`. So are bounds that differ from entry to entry.
    """
    if call.way is Way.DEFAULT and any(isinstance(v, Tensor) and v.numel() > 1 for v in (low, high)):
        return NotImplemented if call.inplace else call()
    numbers = all(v is None or isinstance(v, (int, float)) for v in (low, high))
    rectifies = isinstance(low, (int, float)) and low == 0 and input.is_floating_point()
    if rectifies and (high is None or high == float("inf")):
        return relu(call, input)
    function, args, kwargs = how
    step = ChainStep(function, (SOURCE, *args), kwargs)
    if numbers and 0 in (low, high):
        # the slope at a bound of 0 is 0, as of a relu; that of torch.clamp is 1
        ends = -math.inf if low is None else low, math.inf if high is None else high
        step = ChainStep(F.hardtanh, (SOURCE, *ends), {}) if ends[0] < ends[1] else step
    if call.inplace:
        return NotImplemented
    if call.way is not Way.DEFAULT:
        return elementwise(call, *call.args, **call.kwargs)
    if numbers and high == 0 and low in (None, -math.inf):
        return negative_part(call, input)
    proper = numbers and input.is_floating_point() and (low is None or high is None or low < high)
    if proper and ((low or 0) > 0 or (high or 0) < 0):
        return _beyond(call, input, low, high)
    if rectifies and isinstance(high, (int, float)) and high > 0 and not call.zeros_carry:
        return _capped(call, input, high, step)
    return alone(call, input, step, detached(call))


def _beyond(call: Call, input: Tensor, low: Any, high: Any) -> Tensor:
    """Bounds that leave 0 out: the nearer one selects, the other saturates what is left."""
    low, high = (v if v is not None and math.isfinite(v) else None for v in (low, high))
    near, far = ({"min": low}, {"max": high}) if (low or 0) > 0 else ({"max": high}, {"min": low})
    selecting = ChainStep(torch.clamp, (SOURCE,), near)
    call.keeps_zeros()  # the result has none
    if None in far.values():
        return kept_on(call, origin(input), call(), input, selecting)
    chosen = kept_on(call, origin(input), torch.clamp(input, **near), input, selecting)
    call.absorbs(chosen)
    return alone(call, chosen, ChainStep(torch.clamp, (SOURCE,), far), detached(call))


def bounded_in_place(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
    """A relu written into its operand; any other bound works on a copy."""
    low, high = (as_number(v) for v in BOUNDS[call.entry.function](*args, **kwargs))
    if not (isinstance(low, (int, float)) and low == 0 and input.is_floating_point()) or call.rule is not None:
        return NotImplemented
    return relu(call, input) if high is None or high == float("inf") else NotImplemented


def _capped(call: Call, input: Tensor, high: float, step: ChainStep) -> Tensor:
    """A relu with a cap, such as relu6: its secant is 1 up to the cap and `high / x` above it."""
    layer, before = call.note(input).layer, origin(input)
    if call.into is None:
        y = custom(input, detached(call), lambda x, g: _below(x, g, high))
    else:
        y = written(call.into.target, input, call.into.write, lambda x, g: _below(x, g, high))
        call.renew(y)
    if layer is not None:
        layer.saved.rectify(input, inplace=call.into is not None, whole=True)
    chained = ChainStep(step.function, (before.step, *step.args[1:]), step.kwargs)
    return remembered(call, y, before._replace(step=chained))


def _below(x: Tensor, g: Tensor, high: float) -> Tensor:
    """`G` through a relu with a cap."""
    passed, excess = where_positive(g, x), x / high
    return passed.div_(excess.clamp_(min=1)) if own(passed) else passed / excess.clamp(min=1)


def as_number(value: Any) -> Any:
    """A bound as a number, if all its entries are equal."""
    if not isinstance(value, Tensor) or value.requires_grad or recording():
        return value
    if value.numel() == 1:
        return float(value)
    first = value.flatten()[:1]
    return float(first) if value.numel() and bool((value == first).all()) else value


def multiples(call: Call, result: Any, a: Tensor, b: Tensor) -> Any:
    """Notes that the maximum or minimum of two multiples of a tensor is an activation of it: a leaky relu, or `|x|`."""
    if isinstance(result, Tensor) and result.requires_grad:
        found = chain(call.function, call.args, call.kwargs) if proportional(a, b) else None
        if found is not None:
            return _of_multiples(call, result, found)
        selects(call, [a, b], result)
    return result


def _of_multiples(call: Call, result: Tensor, found: Origin) -> Tensor:
    """Notes an activation that the extremum of two multiples is. As behind a relu, a chain that starts here is not noted."""
    if any(a is SOURCE for a in found.step.args) and not (found.note is not None and continues(found.note)):
        call.note(result)
        return gated(result, found.source, found.step)
    return remembered(call, result, found._replace(step=found.step.anew()))


def selecting(call: Call, *args: Any, **kwargs: Any) -> Any:
    """`where(a > b, a, b)` is `maximum(a, b)`, for example a leaky relu; any other condition selects."""
    result = call()
    live = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor) and t.requires_grad]
    if len(live) != 2 or recording() or not isinstance(result, Tensor) or not proportional(*live):
        return result
    a, b = (t.detach() for t in live)
    for function in (torch.maximum, torch.minimum):
        if bool((function(a, b) == result.detach()).all()):
            found = chain(function, tuple(live), {})
            return result if found is None else _of_multiples(call, result, found)
    return result


def extremum(largest: bool) -> Callable[..., Any]:
    """The maximum or minimum of two operands: a bound if one is a number; else the winner takes all."""

    def handler(call: Call, *args: Any, **kwargs: Any) -> Any:
        other = kwargs.get("other", args[1] if len(args) > 1 else None)
        pair: tuple[Any, Any] = (args[0] if args else kwargs.get("input"), other)
        live = [t for t in pair if isinstance(t, Tensor) and t.requires_grad]
        if live and not isinstance(other, Tensor):  # along the axis that the second argument gives
            axis = kwargs.get("dim", 0 if other is None else other)
            result = picked(call, live[0], call(), axis)
            if isinstance(result, tuple):
                elementwise_extreme(call, live[0], result[0], axis, largest)
            return result
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
    call.keeps_zeros()

    def propagate(z: Tensor, g: Tensor) -> Tensor:
        y = _sixth(z)
        if first():
            y = torch.where(z == 0, y, nonzero(y))
        return g * (y / z).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)

    whole = chain(_sixth, (shifted,), {})
    y = custom(shifted, detached(call), propagate)
    return remembered(call, y, Origin(shifted, ChainStep(_sixth, (SOURCE,), {})) if whole is None else whole)


def _sixth(z: Tensor) -> Tensor:
    return F.relu6(z) / 6


def threshold(call: Call, input: Tensor, threshold: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    """A relu if both numbers are 0, a bound if they are equal; else it selects."""
    if threshold == value:
        return within(call, input, value, None, (torch.threshold, (threshold, value), {}))
    if call.inplace:
        return NotImplemented
    if call.way is not Way.DEFAULT:
        return elementwise(call, *call.args, **call.kwargs)
    call.keeps_zeros()
    return kept_on(call, origin(input), call(), input, ChainStep(torch.threshold, (SOURCE, threshold, value), {}))


BOUNDS: dict[Any, Callable[..., tuple[Any, Any]]] = {
    F.relu6: lambda *a, **k: (0, 6),
    F.hardtanh: lambda min_val=-1.0, max_val=1.0, *a, **k: (min_val, max_val),
    torch.clamp: lambda min=None, max=None, **k: (min, max),
    torch.clip: lambda min=None, max=None, **k: (min, max),
    torch.clamp_min: lambda min, **k: (min, None),
    torch.clamp_max: lambda max, **k: (None, max),
    at_least: lambda bound: (bound, None),
    at_most: lambda bound: (None, bound),
}
"""The interval to which a function clips its input, as a function of its other arguments."""


register(
    *(f for f in BOUNDS if f not in (at_least, at_most)),
    family="activation", handler=bounded, in_place=bounded_in_place, traits={BOUNDS_TRAIT},
)  # fmt: skip
register(at_least, at_most, family="activation", handler=bounded, only=True, traits={BOUNDS_TRAIT})


register(F.hardsigmoid, family="activation", handler=hardsigmoid)


register(torch.threshold, F.threshold, family="activation", handler=threshold, in_place=threshold)


register(*named("where"), family="structure", handler=selecting, traits={MOVES}, apart=by_entry)


for _largest, _along_axis, _of_two in ((True, "max", "maximum fmax"), (False, "min", "minimum fmin")):
    register(*named(_along_axis), family="selection", handler=extremum(_largest), apart=along_axis(1, "dim", "axis"))
    register(*named(_of_two), family="selection", handler=extremum(_largest), apart=by_entry)
