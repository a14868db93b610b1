"""Products and quotients.

A product of two live operands gives half to each (the uniform rule). A quotient gives all to the numerator: the divisor
is a normaliser, a constant. Operands that share an origin make one elementwise function (`activations`).
"""

from __future__ import annotations

import math
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import Share, custom, grafted, scaled
from relprop.engine.mode import steps_of
from relprop.engine.notes import role_of
from relprop.engine.origins import Origin, chain, remembered
from relprop.engine.registry import register
from relprop.engine.rows import by_entry
from relprop.engine.tensors import is_live, without_history
from relprop.engine.traits import AFFINE, FIRST, SCALES
from relprop.engine.zeros import product_of_two
from relprop.operations.activations import STATISTIC, along, detached
from relprop.operations.affine import with_constant
from relprop.operations.exponentials import exp
from relprop.operations.gates import gating, saturates, sigmoidal
from relprop.operations.lengths import of_conjugates, root, same_numbers, square, squared
from relprop.operations.sample_axes import along_axis
from relprop.operations.scan import certain, multiplied
from relprop.operations.secants import finite_at_zero, is_scalar, secant_of
from relprop.operations.softmax_quotients import quotient, reciprocal_of, weighing
from relprop.operations.stacks import parts_of, with_axis
from relprop.operations.steps import by_steps, with_history
from relprop.rules.base import Way


def shares(call: Call, operands: list[Tensor]) -> list[Share]:
    """Equal shares of a product. An operand that turns out to be a constant of a selective scan gets nothing."""
    count = len(operands)
    usual: list[Share] = list(_gated(call, *operands)) if count == 2 else [1 / count] * count
    constants = certain(operands)
    if constants is None:
        return usual

    def share(n: int) -> float:
        found = constants()
        if not any(found) or all(found):
            one = usual[n]
            return one() if callable(one) else one
        return 0.0 if found[n] else 1 / (count - sum(found))

    return [(lambda n=n: share(n)) for n in range(count)]  # type: ignore[misc]


def _gated(call: Call, a: Tensor, b: Tensor) -> tuple[Share, Share]:
    """The shares of two factors: half each, or those of a rule for products."""
    known = (gating(a), gating(b)) if call.formula is not None or call.way is Way.UNDECIDED else (0, 0)
    return _shares_by_gates(call, known)


def weighed(call: Call, result: Tensor) -> Tensor:
    """A product. If one factor is an exponential, it may turn out to be a softmax, which is no gate."""
    return weighing(call, result, lambda other: _shares_by_gates(call, (0, gating(other))))


def _shares_by_gates(call: Call, gates: tuple[int, int]) -> tuple[Share, Share]:
    if call.formula is not None:
        given: tuple[Share, Share] = call.formula.product(gates)
        return given
    if gates[0] == gates[1] or call.way is not Way.UNDECIDED:
        return 0.5, 0.5
    decided = call.deferred

    @cache
    def later() -> tuple[float, float]:
        rule = decided()
        return rule.product(gates) if rule is not None and "product" in rule.formulas else (0.5, 0.5)

    return (lambda: later()[0]), (lambda: later()[1])


def mul(call: Call, input: Any, other: Any, **kwargs: Any) -> Tensor:
    if is_live(input) and is_live(other):
        found = chain(call.function, (input, other), {})
        if found is None and same_numbers(input, other):
            found = chain(call.function, (input, input), {})
        if found is not None:
            if not finite_at_zero(found.step, found.source):
                return remembered(call, custom(found(), detached(call), partial(_slope, found.step)), found)
            y = weighed(call, along(call, found, detached(call)))
            return squared(call, y) if found.step.args[0] is found.step.args[1] else y
        multiplied(call, (input, other))
        call.trait("gated")
        a, b = shares(call, [input, other])
        if of_conjugates(input, other):
            return squared(call, call(scaled(input, a), scaled(other, b)))
        if call.zeros_carry:
            return weighed(call, product_of_two(call, input, other, [a, b]))
        return weighed(call, call(scaled(input, a), scaled(other, b)))
    for a, b in ((input, other), (other, input)):
        if (softmax := quotient(call, a, b)) is not None:
            return softmax
    return with_constant(call, input, other)


def _slope(step: Any, s: Tensor, g: Tensor) -> Tensor:
    """The plain gradient of a chain, for one that has no value at 0."""
    with torch.enable_grad():
        inner = s.detach().requires_grad_()
        (found,) = torch.autograd.grad(step(inner), inner, g)
    return found


def div(call: Call, input: Any, other: Any, *, rounding_mode: Any = None, **kwargs: Any) -> Tensor:
    if rounding_mode is not None:
        return call().detach()
    if not is_live(other):
        return with_constant(call, input, other)
    found = chain(call.function, (input, other), {})
    if found is not None and finite_at_zero(found.step, other) and (is_live(input) or _activates(found)):
        return along(call, found, detached(call))
    if not is_live(input):
        return reciprocal_of(call, call(input, other.detach()), other, input)
    softmax = quotient(call, input, other)
    if softmax is not None:
        return softmax
    gate = chain(torch.reciprocal, (other,), {})
    if gate is not None and finite_at_zero(gate.step, other) and _shuts(gate) and _activates(gate):
        return _gated_by(call, input, other, gate)
    return call(input, other.detach())


def _gated_by(call: Call, input: Tensor, other: Tensor, gate: Origin) -> Tensor:
    """`a / (1 + exp(-b))`: a product with a sigmoid."""
    value = detached(call)()
    call.relocate("product")
    factor = along(call, gate, lambda: other.detach().reciprocal())
    parts = shares(call, [input, factor])
    if call.zeros_carry:
        call.becomes(torch.mul, input, factor)
        return grafted(value, product_of_two(call, input, factor, parts))
    return grafted(value, scaled(input, parts[0]) * scaled(factor, parts[1]))


def _shuts(gate: Origin) -> bool:
    """Whether a reciprocal is a sigmoid of what its source is a function of, of its source, or of what a step returns."""
    return saturates(gate.step, gate.note) or any(saturates(end, None) for end in gate.step.ends())


def reciprocal(call: Call, input: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
    """1 / x as part of an activation, such as 1 / (1 + exp(-x)); else a normaliser, a constant."""
    found = chain(call.function, call.args, kwargs)
    if found is not None and finite_at_zero(found.step, input) and _activates(found):
        return along(call, found, detached(call))
    return reciprocal_of(call, call().detach(), input)


def _activates(found: Origin) -> bool:
    """Whether a chain that ends in a reciprocal is an activation. Of a statistic, only a sigmoid is one,
    also that of an activation such as `sin(x.sum())`.
    """
    return not role_of(found.source, STATISTIC) or any(map(sigmoidal, found.step.ends()))


def power(call: Call, input: Any, exponent: Any, **kwargs: Any) -> Tensor:
    from relprop.operations.activations import elementwise

    if not is_live(input):
        return elementwise_exponent(call, input, exponent)
    if is_live(exponent):
        exponent = exponent.detach()
        call.becomes(call.function, input, exponent)
    if not isinstance(exponent, Tensor) and exponent < 0:
        return reciprocal(call, input, exponent)
    if not isinstance(exponent, Tensor) and exponent in (0.5, 2):
        return (root if exponent == 0.5 else square)(call, input, exponent, **kwargs)
    return elementwise(call, input, exponent, **kwargs)


def elementwise_exponent(call: Call, base: Any, exponent: Tensor) -> Tensor:
    """`c ** x`: an elementwise function of the exponent."""
    if not isinstance(base, Tensor) and base == math.e:  # a softmax, if the exponent is the logarithm of one
        call.becomes(_power_of_e, exponent)
        return exp(call, exponent)
    if not is_scalar(base):  # a function of its own for each entry
        wide = exponent.expand(torch.broadcast_shapes(base.shape, exponent.shape)).contiguous()
        return custom(wide, detached(call), lambda s, g: g * secant_of(lambda t: torch.pow(base, t), s))
    found = chain(call.function, (base, exponent), {})
    return call() if found is None else along(call, found, detached(call))


def _power_of_e(exponent: Tensor) -> Tensor:
    return torch.pow(math.e, exponent)


def prod(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A product of `n` elements gives `1 / n` to each. Along the axis of a stack, it is the product of the operands."""
    dim, keepdim = kwargs.get("dim", args[0] if args else None), kwargs.get("keepdim", args[1] if args[1:] else False)
    parts = None if "dtype" in kwargs else parts_of(call, input, dim)
    if parts is not None:
        y = _product_of(call, parts)
        return with_axis(call, y, input, dim) if keepdim else y
    y = call()
    count = max(1, input.numel() // max(1, y.numel()))
    return call(scaled(input, 1 / count), *args, **kwargs) if count > 1 else y


def _product_of(call: Call, parts: list[Tensor]) -> Tensor:
    """A product of the operands of a stack, of which some may be constants."""
    live = [t for t in parts if is_live(t)]
    if len(parts) == 2:
        call.becomes(torch.mul, *parts)
        return mul(call, *parts)
    call.becomes(lambda *factors: torch.stack(factors).prod(0), *parts)
    found = chain(call.function, tuple(parts), {}) if len(live) == len(parts) else None
    if found is not None and finite_at_zero(found.step, found.source):
        return along(call, found, detached(call))
    multiplied(call, parts)
    given = iter(shares(call, live))
    return call(*(scaled(t, next(given)) if is_live(t) else t for t in parts))


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
    both = is_live(tensor1) and is_live(tensor2)
    found = chain(torch.mul, (tensor1, tensor2), {}) if both else None
    alone = found is not None and not is_live(input) and input.ndim == 0  # one elementwise function, in any spelling
    if call.zeros_carry and len(call.live) > 1 and not alone:
        return _as_sum(call, torch.mul, input, tensor1, tensor2, value)
    if both:
        if found is not None:
            way = input + value * along(call, found, lambda: tensor1.detach() * tensor2.detach())
            y = grafted(call(*map(without_history, call.args), value=value), way)
            if alone:
                affine = chain(lambda a, b: torch.addcmul(input, a, b, value=value), (tensor1, tensor2), {})
                return y if affine is None else remembered(call, y, affine)
            return y
        multiplied(call, (tensor1, tensor2))
        a, b = shares(call, [tensor1, tensor2])
        return call(input, scaled(tensor1, a), scaled(tensor2, b), value=value)
    return call()


def _as_sum(call: Call, joined: Any, input: Tensor, a: Any, b: Any, value: float) -> Tensor:
    """`input + value * joined(a, b)`, whose steps know what exact zeros carry."""

    def steps(input: Tensor, a: Any, b: Any, **_: Any) -> Tensor:
        part = joined(a, b) if value == 1 else joined(a, b) * value
        nothing = not is_live(input) and not input.ndim and not input.any()
        return part if nothing else input + part

    call.keeps_zeros()
    result: Tensor = by_steps(steps)(call, input, a, b, value=value)
    return result


def addcdiv(call: Call, input: Tensor, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
    if call.zeros_carry and len(call.live) > 1:
        return _as_sum(call, torch.div, input, tensor1, tensor2, value)
    return call(input, tensor1, tensor2.detach(), value=value)


def glu(call: Call, input: Tensor, dim: int = -1) -> Tensor:
    """`a * sigmoid(b)` of the two halves: a product of two live operands."""
    value = detached(call)()
    with steps_of(call):
        a, b = input.chunk(2, dim)
        gate = b.sigmoid()
    call.becomes(torch.mul, a, gate)
    return with_history(value, mul(call, a, gate))


def sgn(call: Call, input: Tensor, **kwargs: Any) -> Tensor:
    """`z / |z|` of complex numbers, with the modulus as a constant, and 0 at 0; of real numbers, their sign: a cut."""
    if not input.is_complex():
        call.cut("sgn", "", input)
        return call().detach()
    size = input.detach().abs()
    below = torch.where(size == 0, torch.inf, size)
    return custom(input, detached(call), lambda z, g: g / below)


def remainder(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    return call(args[0], args[1].detach() if isinstance(args[1], Tensor) else args[1], **kwargs)


def rsqrt(call: Call, input: Tensor) -> Tensor:
    return call().detach()


register(torch.mul, torch.multiply, family="product", handler=mul, traits={SCALES})
register(torch.div, torch.divide, torch.true_divide, family="division", handler=div, traits={SCALES, FIRST})
register(torch.reciprocal, family="division", handler=reciprocal, apart=by_entry)
register(torch.sgn, family="division", handler=sgn, apart=by_entry)
register(torch.rsqrt, family="division", handler=rsqrt, apart=by_entry)
register(torch.pow, family="activation", handler=power)
register(F.glu, family="product", handler=glu, apart=along_axis(1, "dim", default=-1))
register(torch.addcmul, family="product", handler=addcmul, traits={AFFINE})
register(torch.addcdiv, family="division", handler=addcdiv, traits={AFFINE})
register(
    torch.fmod,
    torch.remainder,
    torch.Tensor.__mod__,
    torch.Tensor.__rmod__,
    torch.Tensor.__imod__,
    family="division",
    handler=remainder,
    apart=by_entry,
)
register(torch.kron, torch.cross, torch.linalg.cross, family="product")
register(torch.prod, family="product", handler=prod, apart=along_axis(1, "dim", "axis"))
register(torch.cumprod, family="product", handler=cumprod, apart=along_axis(1, "dim", "axis"))
