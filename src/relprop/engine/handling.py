"""How a call is answered: by a rule that treats all operations alike, else by the operation's or family's handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import custom, scaled
from relprop.engine.zeros import preserved
from relprop.rules.base import WEIGHTED, Way

_OF_ANY = (Way.NATIVE, Way.BLOCKED, Way.CONSTANT)


def handle(call: Call) -> Any:
    """The operation's result, with the backward pass that its rule or its handler gives it."""
    return call.settle(_handled(call))


def _handled(call: Call) -> Any:
    rule = call.rule
    way = Way.DEFAULT if rule is None else rule.way
    if way in _OF_ANY:
        softmax = call.entry.family == "softmax"  # a softmax may be a score: the handler decides
        native = way is Way.NATIVE and not ((call.run.sites.nz_hidden or call.weighs) and call.entry.family in WEIGHTED)
        if native or way is Way.BLOCKED or (way is Way.CONSTANT and not softmax):
            return decided(way, call())
    zeros, place = call.run.sites.nz, call.place  # before the handler reaches the next place
    result = call.entry.handler(call, *call.args, **call.kwargs)
    if zeros or (call.place is not place and call.run.sites.nz_after(place)):
        result = preserved(call, result)
    rule = call.rule  # the handler may have moved the call to another family
    if rule is not None and "output" in rule.formulas:
        return _map(lambda t: custom(t, lambda: t.detach().clone(), rule.output) if t.requires_grad else t, result)
    return result


def decided(way: Way, result: Any) -> Any:
    """The result of an operation whose rule treats all operations alike, from its native result."""
    if way is Way.BLOCKED:
        return _map(lambda t: scaled(t, 0.0).clone(), result)
    if way is Way.CONSTANT:
        return _map(lambda t: t.detach(), result)
    return result


def _map(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_map(change, item) for item in value)
    return value
