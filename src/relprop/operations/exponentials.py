"""A softmax written out: `exp(s) / sum(exp(s))` over axes or groups, `exp(s - logsumexp(s))`, `exp(log_softmax)`.

An exponential is an activation with its secant, unless it turns out to be in the numerator or the denominator of a
softmax. So the linear steps after an exponential are remembered. If two such chains meet in a quotient, or one ends in
a logarithm, their steps are rerun on an exponential with torch's gradient, and this result is used. A softmax written
out thus has the family, and the rule, of `torch.softmax`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import custom, grafted
from relprop.engine.handling import decided
from relprop.engine.moves import equal, first_held
from relprop.engine.notes import Note, note_of, role_of
from relprop.engine.registry import register
from relprop.engine.reruns import NO_STEPS, Rerun
from relprop.engine.roles import Together, role
from relprop.engine.traits import ADDS, BOUNDS, MOVES, REDUCES, SAME, SCALES
from relprop.errors import RuleError
from relprop.operations.activations import elementwise
from relprop.operations.exponential_chains import Anew, Exponential, Read, added, added_products, after, joined_parts
from relprop.operations.sample_axes import along_axis
from relprop.operations.scan import decaying
from relprop.torch_private.weak import strong


def _one(known: list[Any]) -> Any:
    return next((value for value in known if value is not None), None)


def _joined_softmaxes(known: list[Any], join: Callable[[Any], Tensor]) -> Any:
    return Rerun(join, parts=known)


def _joined_logs(known: list[Any], join: Callable[[Any], Tensor]) -> Any:
    """Of one log-softmax, a step of it; of several it is known that they are some."""
    first = next(a for a in known if not isinstance(a, Tensor))
    if any(not isinstance(a, Tensor) and (a[0] is not first[0] or a[1] != first[1]) for a in known):
        return None, None, NO_STEPS
    return *first[:2], Rerun(join, parts=[a if isinstance(a, Tensor) else a[2] for a in known])


EXPONENTIAL = role(
    "exponential", MOVES, SAME, SCALES, ADDS, REDUCES, BOUNDS,
    given_by="exp",
    asked_by="quotients and logarithms, which may make a softmax of it",
    then=after, together=Together(added, joined_parts),
)  # fmt: skip
WEIGHING = role(
    "weighed by an exponential", MOVES, SAME, SCALES, ADDS, REDUCES,
    given_by="products of an exponential and another live tensor",
    asked_by="quotients: divided by the sum of the exponentials, it is a mean weighed by a softmax",
    then=after, together=Together(added_products, joined_parts, EXPONENTIAL),
)  # fmt: skip
RECIPROCAL = role(
    "reciprocal of a sum", MOVES, SAME,
    given_by="reciprocals of sums of exponentials",
    asked_by="products, which are a softmax if the other factor is one of the exponentials",
    then=after,
)  # fmt: skip
SHIFTED = role(
    "shifted", MOVES, SAME,
    given_by="differences of tensors, as of scores and their maximum",
    asked_by="differences: from which scores a logarithm of a sum was taken",
)  # fmt: skip
LOG_SUM = role(
    "log of a sum", MOVES, SAME, ADDS,
    given_by="logsumexp, and the logarithm of a sum of exponentials",
    asked_by="differences, which may make logarithms of a softmax",
    join=_one, joined_by=(MOVES, ADDS),
)  # fmt: skip
LOG_SOFTMAX = role(
    "log-softmax", MOVES, SAME,
    given_by="log_softmax, and scores less the logarithm of their sum",
    asked_by="exp, which makes a softmax of it",
    then=lambda known, step, traits: (*known[:2], known[2].then(step)), together=Together(joined=_joined_logs),
)  # fmt: skip
SOFTMAX = role(
    "softmax", MOVES, SAME,
    given_by="softmax",
    asked_by="log, which makes a log-softmax of it",
    then=lambda known, step, traits: known.then(step), together=Together(joined=_joined_softmaxes),
)  # fmt: skip


def scores_of(t: Tensor) -> Note | None:
    """The note of the scores that a tensor was shifted from, or whose entries it has. A part of a tensor is one of its own."""
    shifted = role_of(t, SHIFTED)
    if shifted is not None:
        found: Note = shifted
        return found
    note, count = note_of(t), t.numel()
    while note is not None and note.move is not None and note.move.shape.numel() == count:
        note = note.move.note
    return note


def _one_part(a: Note | None, b: Note | None) -> bool:
    """Whether two notes are of the same scores: one tensor, or the same part of one."""
    if a is None or b is None or a is b:
        return a is b and a is not None
    (first, _, ways), (other, _, others) = first_held(a), first_held(b)
    return first is other and len(ways) == len(others) and all(equal(m, n) for m, n in zip(ways, others, strict=True))


def exp(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """An activation; of the logarithms of a softmax, that softmax."""
    decaying(call, input)
    logs = role_of(input, LOG_SOFTMAX)
    if logs is not None:
        call.relocate("softmax")
        return ruled(call, call(), lambda t: _tempered(call, logs, t))
    y = elementwise(call, input, *args, **kwargs)
    if y.requires_grad and y.is_floating_point():
        call.give(y, EXPONENTIAL, Exponential(Read.by(call, input)))
    return y


def ruled(call: Call, y: Tensor, history: Callable[[float], Tensor] | None) -> Tensor:
    """A softmax under the rule of its place. `y` has the native gradient; `history` gives it at a temperature."""
    call.keeps_zeros()
    if call.formula is not None and history is not None:
        temperature = getattr(call.formula, "temperature", None)
        if temperature is None:
            raise call.error(
                f"{call.rule!r} cannot act on a softmax that is written by exponentials: write torch.softmax(s, dim)."
            )
        return grafted(y, history(temperature))
    return decided(call.way, y)


def _tempered(call: Call, logs: Any, temperature: float) -> Tensor:
    reference, dim, steps = logs
    scores = None if reference is None else strong(reference)
    if scores is None:
        raise RuleError(
            f"{call.rule!r} cannot act on a softmax that is written by logarithms in {call.where()}: write "
            "torch.softmax(s, dim), or leave the rule out."
        )
    y = custom(scores, lambda: torch.softmax(scores.detach(), dim), lambda s, g: call.rule.softmax(s, g, dim))
    if not steps:
        return y
    made: Tensor = steps(y.clamp_min(torch.finfo(y.dtype).tiny).log()).exp()
    return made


def log(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """An activation; of a softmax, its log-softmax; of a sum of exponentials, a score."""
    if (known := role_of(input, SOFTMAX)) is not None:
        call.keeps_zeros()
        way = known(None)
        if way is None:  # the scores are gone: go through the softmax itself
            return call()
        return grafted(call(input.detach()), way)
    below = role_of(input, EXPONENTIAL)
    if below is not None and below.summed:
        call.keeps_zeros()
        y = grafted(call(input.detach()), below.again(Anew()).log())
        if len(below.of) == 1:
            call.give(y, LOG_SUM, scores_of(below.exponent().again()))
        return y
    return elementwise(call, input, *args, **kwargs)


def log_softmax(call: Call, input: Tensor, dim: Any = None, *args: Any, **kwargs: Any) -> Tensor:
    """A score, not a weight: it keeps the native Jacobian under any composite."""
    y: Tensor = call()
    if y.requires_grad:
        call.give(y, LOG_SOFTMAX, (weakref.ref(input), dim, NO_STEPS))
    return y


def logsumexp(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    y: Tensor = call()
    if y.requires_grad:
        call.give(y, LOG_SUM, scores_of(input))
    return y


def difference(call: Call, result: Tensor, a: Any, b: Any) -> Tensor:
    """Notes the scores that a difference shifts, and whether it is the logarithm of their softmax."""
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.requires_grad and result.requires_grad:
        whole, scores = role_of(b, LOG_SUM), scores_of(a)
        note = call.note(result)
        if whole is not None and _one_part(whole, scores):
            note.give(LOG_SOFTMAX, (None, None, NO_STEPS))
        elif scores is not None:
            note.give(SHIFTED, scores)
    return result


register(torch.exp, family="activation", handler=exp)
register(torch.log, family="activation", handler=log)
register(
    torch.log_softmax,
    F.log_softmax,
    torch.special.log_softmax,
    family="softmax",
    handler=log_softmax,
    apart=along_axis(1, "dim", "axis"),
)
register(
    torch.logsumexp, torch.special.logsumexp, family="softmax", handler=logsumexp, apart=along_axis(1, "dim", "axis")
)
