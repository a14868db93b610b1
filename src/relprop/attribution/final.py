"""A final softmax or sigmoid: a probability near 1 keeps nearly all relevance from the inputs. It is noticed, and left out on request.

Saturation is a property of the number that is explained. Near 1 (or 0) a probability hardly changes with the inputs, so that its
relevance ends on the way, whatever the rules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from relprop.engine.chance import undisturbed
from relprop.engine.messages import called
from relprop.engine.notes import role_of
from relprop.engine.origins import origin
from relprop.errors import InputError, TargetError
from relprop.operations.exponentials import LOG_SOFTMAX, SOFTMAX
from relprop.operations.gates import sigmoidal
from relprop.results.logit import logits_in
from relprop.results.relevance import Relevance
from relprop.torch_private.recorded import recording

_FINAL = {
    "softmax": "softmax",
    "log_softmax": "log-softmax",
    "sigmoid": "sigmoid",
    "special_expit": "sigmoid",
    "expit": "sigmoid",
}
_SURE, _ARRIVED = 0.95, 0.1
"""From which probability on, and with which share of it at the inputs at most, a softmax or sigmoid is saturated."""
_LATEST = 8
"""How many of the latest such calls are kept: the last of all may belong to another output."""


@dataclass(frozen=True)
class FinalCall:
    """A call of a softmax or sigmoid.

    Attributes:
        number: its number among these calls, from 0.
        name: what it is, in words.
        result: what it returned.
    """

    number: int
    name: str
    result: Tensor


class Finals(TorchFunctionMode):
    """Notes the calls of softmaxes and sigmoids. The call of number `without` returns its operand."""

    def __init__(self, without: int | None = None) -> None:
        super().__init__()
        self.without, self.count = without, 0
        self.latest: deque[FinalCall] = deque(maxlen=_LATEST)

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = _FINAL.get(called(func).strip("_"))
        if name is None:
            return func(*args, **kwargs)
        number, self.count = self.count, self.count + 1
        if number == self.without:
            return args[0] if args else kwargs["input"]
        result = func(*args, **kwargs)
        if self.without is None and isinstance(result, Tensor):
            self.latest.append(FinalCall(number, name, result))
        return result


def find(again: Callable[[], Any], devices: set[torch.device]) -> FinalCall | None:
    """The softmax or sigmoid whose result is the model's output, or of which the output is a view; None if there is none.

    Args:
        again: runs the model once more and returns its output.
        devices: the devices of the inputs.
    """
    watch = Finals()
    with undisturbed(devices), torch.no_grad(), watch:
        output = again()
    if not isinstance(output, Tensor):
        return None
    return next((call for call in reversed(watch.latest) if _shares(call.result, output)), None)


def _shares(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.numel() == b.numel() and a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr())


def left_out(targets: Sequence[Any], last: Callable[[], FinalCall | None], checkpointed: bool) -> Any:
    """The context in which the model's output is what its final softmax or sigmoid is given, if the targets are Logits.

    Raises:
        TargetError: some targets are Logits and others are not, or the model does not end in a softmax or sigmoid.
        InputError: blocks are computed again in the backward pass.
    """
    asked = [found for target in targets for found in logits_in(target)]
    if not any(asked):
        return nullcontext()
    if not all(asked):
        raise TargetError("a contrast, or a list with a target per sample, holds Logits alone or none.")
    if checkpointed:
        raise InputError("Logit and checkpoint= do not go together: leave checkpoint out.")
    call = None if recording() else last()
    if call is None:
        raise TargetError(
            "Logit is the number behind a final softmax or sigmoid, and the output is not the result of torch.softmax, "
            "torch.log_softmax or torch.sigmoid, in any spelling. If the model returns logits, explain the class itself; if it "
            "computes on, explain the part of the model before, or pass select=."
        )
    return Finals(call.number)


def saturated(result: Relevance, output: Any, last: Callable[[], FinalCall | None]) -> list[str]:
    """The notice on a probability whose relevance stays in the residual, because a softmax or sigmoid is saturated.

    Args:
        result: the explanation.
        output: the output that is explained, with its graph.
        last: finds the softmax or sigmoid in which the model ends.
    """
    score = result.score
    if recording() or not isinstance(output, Tensor) or not output.is_floating_point() or not _probable(output):
        return []
    logarithms = role_of(output, LOG_SOFTMAX) is not None
    probability = score.double().exp() if logarithms else score.double()
    arrived = score.double() - result.residual.double()
    lost = (probability > _SURE) & (probability <= 1.0 + 1e-6) & (arrived.abs() <= _ARRIVED * score.double().abs())
    if not bool(lost.any()):
        return []
    call = last()
    if call is None:
        return []
    n = int(lost.nonzero()[0])
    of = f" of sample {n}" if len(score) > 1 else ""
    return [
        f"the model ends in a {call.name}, which hardly changes where a probability is near 1: of the score{of}, "
        f"{float(score[n]):.7g}, only {float(arrived[n]):.2g} arrived at the inputs. target=relprop.Logit(...) explains the number "
        f"that the {call.name} is given, which has no such limit."
    ]


def _probable(output: Tensor) -> bool:
    """Whether an output is known to be the result of a softmax or a sigmoid. It still has its notes."""
    if any(role_of(output, role) is not None for role in (SOFTMAX, LOG_SOFTMAX)):
        return True
    found = origin(output)
    return found.source is not output and sigmoidal(found.step)
