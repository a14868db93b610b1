"""The replacements of a call: those that are asked for, or two that suit the inputs."""

from __future__ import annotations

from typing import Any

from relprop.errors import InputError
from relprop.evaluation.replacements import (
    Blur,
    Conditional,
    ConstantValue,
    DataMean,
    Inpainting,
    Marginal,
    NoisyLinear,
    Replacement,
    SampleMean,
)
from relprop.evaluation.subject import Subject
from relprop.evaluation.token_replacements import ConstantToken, Delete, Unattended

__all__ = [
    "Blur",
    "Conditional",
    "ConstantToken",
    "ConstantValue",
    "DataMean",
    "Delete",
    "Inpainting",
    "Marginal",
    "NoisyLinear",
    "Replacement",
    "SampleMean",
    "Unattended",
    "replacements_of",
]


def replacements_of(given: Any, subject: Subject, inputs: Any) -> list[Replacement]:
    """The replacements.

    Raises:
        InputError: one of them is none, or none suits the inputs.
    """
    if given is None:
        return _usual(subject)
    found = list(given) if isinstance(given, (list, tuple)) else [given]
    if not found:
        raise InputError("replace is empty: give at least one replacement; two tell whether the choice matters.")
    made = [_number(each) for each in found]
    if len({str(each) for each in made}) < len(made):
        raise InputError("replace holds a replacement twice.")
    return made


def _number(each: Any) -> Replacement:
    if isinstance(each, (int, float)) and not isinstance(each, bool):
        return ConstantValue(float(each))
    if isinstance(each, Replacement):
        return each
    named = {"mean": SampleMean(), "blur": Blur(), "road": NoisyLinear()}
    if isinstance(each, str) and each in named:
        return named[each]
    if callable(each) and not isinstance(each, type):
        return Inpainting(each)
    names = ", ".join(name for name in __all__ if name not in ("Replacement", "replacements_of"))
    raise InputError(
        f"a replacement is a number, 'mean', 'blur', 'road', a function of rows and of what is gone, or one of {names} of "
        f"relprop.evaluation; got {each!r}."
    )


def _usual(subject: Subject) -> list[Replacement]:
    """Two for pictures, series and tables; for texts with an attention mask, deletion and hiding."""
    main = subject.main
    if not main.is_floating_point():
        try:
            Delete().check(subject)
        except InputError:
            raise InputError(
                "inputs are ids without an attention mask, for which no replacement is known: pass replace=, such as "
                "relprop.evaluation.ConstantToken(tokenizer.mask_token_id)."
            ) from None
        return [Delete(), Unattended()]
    if main.ndim >= 3:
        return [SampleMean(), Blur()]
    if len(main) > 1:
        return [DataMean(main.detach()), Marginal(main.detach())]
    return [ConstantValue(0.0)]
