"""Products and quotients.

A product of two live operands gives half to each (the uniform rule). A quotient gives all to the numerator: the divisor
is a normaliser, a constant. Operands that share an origin make one elementwise function (`activations`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import Share, grafted, halved, scaled
from relprop.engine.notes import role_of
from relprop.engine.origins import Origin, chain, remembered
from relprop.engine.registry import register
from relprop.engine.roles import moves
from relprop.engine.tensors import is_live, without_history
from relprop.engine.traits import AFFINE, FIRST, SCALES
from relprop.engine.zeros import product_of_two
from relprop.operations.activations import STATISTIC, along, detached
from relprop.operations.affine import with_constant
from relprop.operations.biases import positioned, scored
from relprop.operations.exponentials import quotient, reciprocal_of
from relprop.operations.gates import gating, sigmoidal
from relprop.operations.maps import Contraction, Dense
from relprop.operations.scan import certain, multiplied, scaled_by_model
from relprop.operations.secants import finite_at_zero, is_scalar
from relprop.operations.weighted import weighted
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
    if call.formula is not None:
        return call.formula.product((gating(a), gating(b)))
    gates = (gating(a), gating(b)) if call.way is Way.UNDECIDED else (0, 0)
    if gates[0] == gates[1]:
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
        if found is not None:
            return along(call, found, detached(call))
        multiplied(call, (input, other))
        call.trait("gated")
        a, b = shares(call, [input, other])
        if call.zeros_carry:
            return product_of_two(call, input, other, [a, b])
        return halved(call()) if a == b == 0.5 else call(scaled(input, a), scaled(other, b))
    for a, b in ((input, other), (other, input)):
        if (softmax := quotient(call, a, b)) is not None:
            return softmax
    return with_constant(call, input, other)


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
    return call(input, other.detach()) if softmax is None else softmax


def reciprocal(call: Call, input: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
    """1 / x as part of an activation, such as 1 / (1 + exp(-x)); else a normaliser, a constant."""
    found = chain(call.function, call.args, kwargs)
    if found is not None and finite_at_zero(found.step, input) and _activates(found):
        return along(call, found, detached(call))
    return reciprocal_of(call, call().detach(), input)


def _activates(found: Origin) -> bool:
    """Whether a chain that ends in a reciprocal is an activation. Of a statistic, only a sigmoid is one."""
    return not role_of(found.source, STATISTIC) or sigmoidal(found.step)


def power(call: Call, input: Any, exponent: Any, **kwargs: Any) -> Tensor:
    from relprop.operations.activations import elementwise

    if not is_live(input):
        return elementwise_exponent(call, input, exponent)
    if is_live(exponent):
        return call(input, exponent.detach())
    if not isinstance(exponent, Tensor) and exponent < 0:
        return reciprocal(call, input, exponent)
    return elementwise(call, input, exponent, **kwargs)


def elementwise_exponent(call: Call, base: Any, exponent: Tensor) -> Tensor:
    """`c ** x`: an elementwise function of the exponent."""
    found = chain(call.function, (base, exponent), {})
    if found is None or not is_scalar(base):
        return call()
    return along(call, found, detached(call))


def matmul(call: Call, input: Any, other: Any, **kwargs: Any) -> Tensor:
    """`x @ w` with a constant matrix is a weighted layer; with two live operands it is a product."""
    if is_live(input) and is_live(other):
        call.trait("matrix product")
        a, b = shares(call, [input, other])
        return scored(call, halved(call()) if a == b == 0.5 else call(scaled(input, a), scaled(other, b)))
    if is_live(input) and other.ndim == 2 and input.ndim >= 2:
        return weighted(call, input, Dense(), other.transpose(0, 1), None)
    return call()


def addmm(call: Call, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    if is_live(mat1) and is_live(mat2):
        return call(input, scaled(mat1, 0.5), scaled(mat2, 0.5), beta=beta, alpha=alpha)
    if is_live(mat1) and not is_live(input) and input.ndim == 1 and beta == 1 and alpha == 1 and mat2.ndim == 2:
        return weighted(call, mat1, Dense(), mat2.transpose(0, 1), input)
    return call()


def factors(first: int) -> Callable[..., Tensor]:
    """A product of the operands from position `first` on, with equal shares; those before it are summands."""

    def product(call: Call, *args: Any, **kwargs: Any) -> Tensor:
        args, kwargs = _positional(args, kwargs)
        live = [i for i, a in enumerate(args) if i >= first and is_live(a)]
        if len(live) < 2:
            return call()
        call.trait("matrix product")
        given = dict(zip(live, shares(call, [args[i] for i in live]), strict=True))
        shared = tuple(scaled(a, given[i]) if i in live else a for i, a in enumerate(args))
        if first and call.entry.function is torch.baddbmm and not is_live(args[0]):
            shape = torch.Size([*args[1].shape[:-1], args[2].shape[-1]])
            shared = positioned(call, args[0], shape), *shared[1:]
        return scored(call, call(*shared, **kwargs))

    return product


_OPERANDS = (
    "input",
    "a",
    "mat",
    "mat1",
    "batch1",
    "vec1",
    "tensor1",
    "other",
    "b",
    "mat2",
    "batch2",
    "vec2",
    "vec",
    "tensor2",
)
"""The names of operands, in the order of their positions."""


def _positional(args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Moves operands given by name to their positions."""
    named = tuple(kwargs[name] for name in _OPERANDS if isinstance(kwargs.get(name), Tensor))
    return args + named, {k: v for k, v in kwargs.items() if not (k in _OPERANDS and isinstance(v, Tensor))}


def einsum(call: Call, equation: Any, *operands: Any) -> Tensor:
    inner = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    live = sum(is_live(t) for t in inner)
    if live == 1 and len(inner) == 1:
        return _rearranged(call, equation, inner[0])
    if live == 1 and len(inner) == 2:
        position = 0 if is_live(inner[0]) else 1
        linear = Contraction.parse(equation, position)
        if linear is not None:
            call.relocate("linear")
        y = call() if linear is None else weighted(call, inner[position], linear, inner[1 - position], None)
        scaled_by_model(call, y, inner[position], inner[1 - position])
        return y
    if live < 2:
        return call()
    if len(inner) == 2 and _by_entry(equation, *inner):
        call.becomes(torch.mul, *inner)
        return mul(call, *inner)
    multiplied(call, inner)
    call.trait("matrix product")
    given = iter(shares(call, [t for t in inner if is_live(t)]))
    return scored(call, call(equation, *(scaled(t, next(given)) if is_live(t) else t for t in inner)))


def _by_entry(equation: Any, a: Tensor, b: Tensor) -> bool:
    """Whether an einsum multiplies entry by entry, which torch then does by `mul`."""
    terms = equation.replace(" ", "").replace("->", ",").split(",") if isinstance(equation, str) else []
    aligned = a.ndim == b.ndim or (bool(terms) and terms[0].startswith("..."))
    return len(terms) == 3 and len(set(terms)) == 1 and _distinct(terms[0]) and aligned


def _rearranged(call: Call, equation: Any, x: Tensor) -> Tensor:
    """An einsum of one operand: axes moved, or summed."""
    y = call()
    left, _, right = equation.replace(" ", "").partition("->") if isinstance(equation, str) else ("", "", "")
    if right and _distinct(left) and sorted(left.replace("...", "")) == sorted(right.replace("...", "")):
        moves(call, lambda t: call.function(equation, t), x, y)
    return y


def _distinct(labels: str) -> bool:
    named = labels.replace("...", "")
    return len(set(named)) == len(named)


def multi_dot(call: Call, tensors: Any, *rest: Any, **kwargs: Any) -> Tensor:
    listed = isinstance(tensors, (list, tuple))
    inner = list(tensors) if listed else [tensors, *rest]
    live = sum(is_live(t) for t in inner)
    inner = [scaled(t, 1 / live) if is_live(t) and live > 1 else t for t in inner]
    return call(inner, **kwargs) if listed else call(*inner, **kwargs)


def prod(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """A product of `n` elements gives `1 / n` to each."""
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
    if is_live(tensor1) and is_live(tensor2):
        found = chain(torch.mul, (tensor1, tensor2), {})
        if found is not None:
            way = input + value * along(call, found, lambda: tensor1.detach() * tensor2.detach())
            y = grafted(call(*map(without_history, call.args), value=value), way)
            if not is_live(input) and input.ndim == 0:  # one elementwise function, in any spelling
                affine = chain(lambda a, b: torch.addcmul(input, a, b, value=value), (tensor1, tensor2), {})
                return y if affine is None else remembered(call, y, affine)
            return y
        multiplied(call, (tensor1, tensor2))
        a, b = shares(call, [tensor1, tensor2])
        return call(input, scaled(tensor1, a), scaled(tensor2, b), value=value)
    return call()


def addcdiv(call: Call, input: Tensor, tensor1: Any, tensor2: Any, *, value: float = 1) -> Tensor:
    return call(input, tensor1, tensor2.detach(), value=value)


def remainder(call: Call, *args: Any, **kwargs: Any) -> Tensor:
    return call(args[0], args[1].detach() if isinstance(args[1], Tensor) else args[1], **kwargs)


def rsqrt(call: Call, input: Tensor) -> Tensor:
    return call().detach()


register(torch.mul, torch.multiply, family="product", handler=mul, traits={SCALES})
register(torch.div, torch.divide, torch.true_divide, family="division", handler=div, traits={SCALES, FIRST})
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
)
register(torch.einsum, family="product", handler=einsum)
register(torch.chain_matmul, torch.linalg.multi_dot, family="product", handler=multi_dot)
register(torch.prod, family="product", handler=prod)
register(torch.cumprod, family="product", handler=cumprod)
