"""A target: the number behind a probability, which the final softmax or sigmoid is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from relprop.errors import TargetError
from relprop.results.contrast import Contrast
from relprop.results.forms import Called, Find, Form, each, form
from relprop.signatures import public_class


@public_class("relprop.Logit")
@form
@dataclass(frozen=True, repr=False)
class Logit(Form):
    """The number behind a probability: what the model's final softmax or sigmoid is given.

    A probability near 1 hardly changes with the inputs, so nearly all of it ends in the residual. The number behind it
    has no such limit. The model is not changed: its last softmax, log-softmax or sigmoid returns its operand while this
    target is explained, and `Relevance.output` holds these numbers. Finding it takes one more forward pass.

    Args:
        target: any other target, as `relprop.attribute` takes it, within the classes of the output.

    Raises:
        TargetError: the model does not end in one, or the output has no such target.
    """

    target: Any = None

    def __post_init__(self) -> None:
        many = isinstance(self.target, list) or (isinstance(self.target, Tensor) and self.target.numel() != 1)
        if many or any(logits_in(self.target)):
            raise TargetError(
                f"Logit takes one target that is not a Logit, as in Logit(3) or Logit(Contrast(3, 5)); got {self.target!r}. For one "
                "per sample write a list, [Logit(3), Logit(5)]."
            )

    def score(self, output: Any, find: Find) -> tuple[Tensor, Any]:
        """Raises TargetError: a logit is read where the softmax is left out."""
        raise TargetError("a Logit is explained by attribute and attribute_each; it is not a part of another target.")

    def in_words(self, called: Called) -> str:
        """The target, and that it is the number behind its probability."""
        inner = self.target.in_words(called) if isinstance(self.target, Form) else called(self.target)
        return f"{inner}, before the final softmax or sigmoid"


def logits_in(target: Any) -> list[bool]:
    """Of each part of a target, whether it is a Logit."""
    if isinstance(target, Contrast):
        return logits_in(target.positive) + logits_in(target.negative)
    if isinstance(target, list) and target:
        return [found for one in target for found in logits_in(one)]
    return [isinstance(target, Logit)]


def without_logits(target: Any) -> Any:
    """The target with what each Logit in it holds."""
    if isinstance(target, Contrast):
        return Contrast(without_logits(target.positive), without_logits(target.negative))
    if isinstance(target, list):
        return [without_logits(one) for one in target]
    return target.target if isinstance(target, Logit) else target


def as_logits(target: Any) -> Any:
    """The target, as it was understood, with a Logit around each of its parts."""
    if isinstance(target, Contrast):
        return Contrast(as_logits(target.positive), as_logits(target.negative))
    return each(target, lambda one: as_logits(one) if isinstance(one, Contrast) else Logit(one))
