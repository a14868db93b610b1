"""Quotients that are a softmax: an exponential, or a product with one, over a sum of the exponentials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import Share, grafted
from relprop.engine.notes import note_of, role_of
from relprop.engine.reruns import Rerun
from relprop.engine.tensors import exchanged
from relprop.operations.exponential_chains import Anew, Exponential, Product, Read, joined
from relprop.operations.exponentials import EXPONENTIAL, RECIPROCAL, SOFTMAX, WEIGHING, ruled
from relprop.rules.base import Way


def quotient(call: Call, numerator: Any, denominator: Any) -> Tensor | None:
    """The softmax that a quotient, or a product with a reciprocal, stands for; None if it is not a softmax."""
    above = role_of(numerator, EXPONENTIAL) or role_of(numerator, WEIGHING)
    below = None if above is None else known_below(denominator)
    if above is None or below is None or not above.of <= below.of:
        return None
    if above.shares is not None:  # of a lone entry as well, as at the first step of a running mean
        return _weighed_mean(call, above, below)
    if above.summed or not below.summed:
        return None
    call.relocate("softmax")

    def history(temperature: float) -> Tensor:
        anew = Anew(temperature)
        return above.again(anew) / below.again(anew)

    result = ruled(call, grafted(_value(call), history(1.0)), history)
    return as_softmax(call, result, lambda: history(1.0).log())


def _value(call: Call) -> Tensor:
    made: Tensor = call(*(a.detach() if isinstance(a, Tensor) else a for a in call.args))
    return made


def _weighed_mean(call: Call, above: Exponential, below: Exponential) -> Tensor:
    """A product with an exponential over the sum of the exponentials: a product with a softmax."""
    assert above.shares is not None
    share = above.shares[0]
    call.relocate("softmax")

    def mean(anew: Anew) -> Tensor:
        return above.again(anew) / below.again(anew._replace(other=None))

    if call.formula is None:
        call.keeps_zeros()
        constant = call.way is Way.CONSTANT
        fixed = constant or call.way is Way.BLOCKED
        return grafted(_value(call), mean(Anew(1.0, None if fixed else share, fixed, 1.0 if constant else None)))

    def history(temperature: float) -> Tensor:
        return mean(Anew(temperature, share, other=0.0))

    value = _value(call)
    of_softmax = ruled(call, grafted(value, history(1.0)), history)
    return grafted(value, of_softmax + mean(Anew(constant=True)))


def weighing(call: Call, result: Tensor, shares: Callable[[Tensor], tuple[Share, Share]]) -> Tensor:
    """Notes a product of an exponential and another live tensor, which may be a numerator.

    Args:
        call: the call of the product.
        result: its result.
        shares: what a softmax and the other factor get.
    """
    if len(call.live) != 2 or not result.requires_grad:
        return result
    known = [role_of(t, EXPONENTIAL) for t in call.live]
    if known == [None, None]:
        return result
    at = 1 if known[0] is None else 0
    e, other, function = call.live[at], call.live[1 - at], call.function
    given = exchanged(exchanged((call.args, call.kwargs), e, _E), other, _OTHER)

    def product(e: Tensor, other: Tensor) -> Tensor:
        args, kwargs = exchanged(exchanged(given, _E, e), _OTHER, other)
        made: Tensor = function(*args, **kwargs)
        return made

    factors = role_of(other, WEIGHING) or known[1 - at]
    if factors is not None:  # a running sum is scaled anew where a larger score is met
        if (
            call.entry.function is torch.mul
            and (value := joined((known[at], factors), lambda t: product(*t))) is not None
        ):
            call.give(result, EXPONENTIAL if value.shares is None else WEIGHING, value)
    else:
        call.give(result, WEIGHING, Product(known[at], Read.by(call, other), product, shares(other)))
    return result


_E, _OTHER = object(), object()


def known_below(denominator: Any) -> Exponential | None:
    """The sum of exponentials that a denominator is, or whose reciprocal it is."""
    found: Exponential | None = role_of(denominator, EXPONENTIAL)
    if found is None and isinstance(denominator, Tensor) and not denominator.requires_grad:
        note = note_of(denominator)
        found = None if note is None else note.role(RECIPROCAL)
    return found


def reciprocal_of(call: Call, result: Tensor, sum_of: Tensor, times: Any = 1) -> Tensor:
    """Notes that a constant is the reciprocal of a sum of exponentials, `times` a constant."""
    below = role_of(sum_of, EXPONENTIAL)
    if below is not None and below.summed:
        call.give(result, RECIPROCAL, below.then(lambda t: t / times))
    return result


def as_softmax(call: Call, result: Tensor, logs: Callable[[], Tensor | None]) -> Tensor:
    """Notes that a result is a softmax, and a function that gives its logarithm."""
    if result.requires_grad:
        call.give(result, SOFTMAX, Rerun(lambda _: logs()))
    return result
