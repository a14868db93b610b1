"""How a call is answered: by a rule that treats all operations alike, else by the operation's or family's handler."""

from __future__ import annotations

from typing import Any

from relprop.engine.call import Call
from relprop.engine.functions import custom, scaled
from relprop.engine.tensors import each_tensor, without_history
from relprop.engine.zeros import preserved
from relprop.rules.base import WEIGHTED, Way

_OF_ANY = (Way.NATIVE, Way.BLOCKED, Way.CONSTANT)


def handle(call: Call) -> Any:
    """The operation's result, with the backward pass that its rule or its handler gives it."""
    entry, rule = call.entry, call.rule
    if rule is not None and rule.way in _OF_ANY and _alike(call, rule.way):
        result = decided(rule.way, call())
    else:
        sites = call.run.sites
        if not sites.asked.nz_first and sites.journal.latest is None:
            result = entry.handler(call, *call.args, **call.kwargs)
        else:
            zeros, place = sites.nz, call.place  # before the handler reaches the next place
            result = entry.handler(call, *call.args, **call.kwargs)
            if zeros or (call.place is not place and sites.nz_after(place)):
                result = preserved(call, result)
        rule = call.rule  # the handler may have moved the call to another family
        if rule is not None and "output" in rule.formulas:
            result = _through(rule, result)
    differs = entry.tests.other_kernel
    return call.settle(result) if differs is not None and differs(call) else result


def _alike(call: Call, way: Way) -> bool:
    """Whether a rule that treats all operations alike answers this one, too. A softmax may be a score: its handler decides."""
    family = call.entry.family
    if way is Way.NATIVE:
        return not ((call.run.sites.nz_hidden or call.weighs) and family in WEIGHTED)
    return way is Way.BLOCKED or family != "softmax"


def _through(rule: Any, result: Any) -> Any:
    """The result, with the rule's `output` behind it."""
    return each_tensor(lambda t: custom(t, lambda: t.detach().clone(), rule.output) if t.requires_grad else t, result)


def decided(way: Way, result: Any) -> Any:
    """The result of an operation whose rule treats all operations alike, from its native result."""
    if way is Way.BLOCKED:
        return each_tensor(lambda t: scaled(t, 0.0).clone(), result)
    if way is Way.CONSTANT:
        return without_history(result)
    return result
