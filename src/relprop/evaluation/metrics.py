"""The metrics by name."""

from __future__ import annotations

from typing import Any

from relprop.errors import InputError
from relprop.evaluation.erasing import Erasure, SoftErasure
from relprop.evaluation.flipping import Flipping
from relprop.evaluation.localising import Localisation
from relprop.evaluation.looking import ClassContrast, Complexity, Conservation
from relprop.evaluation.metric import Metric
from relprop.evaluation.normalised import NormalisedFlipping
from relprop.evaluation.randomising import Randomisation
from relprop.evaluation.reliability import Reliability
from relprop.evaluation.sizes import Infidelity, SensitivityN
from relprop.evaluation.stability import Stability

METRICS: dict[str, type[Metric]] = {
    made.name: made
    for made in (
        Flipping,
        NormalisedFlipping,
        SensitivityN,
        Infidelity,
        Erasure,
        SoftErasure,
        Stability,
        Randomisation,
        Localisation,
        Complexity,
        ClassContrast,
        Conservation,
        Reliability,
    )
}


def metrics_of(given: Any) -> list[Metric]:
    """The metrics that are asked for, by name or as they are.

    Raises:
        InputError: there is no such metric, or one comes twice.
    """
    found = [_metric(each) for each in (given if isinstance(given, (list, tuple)) else [given])]
    if not found:
        raise InputError(f"metrics is empty; there are: {', '.join(METRICS)}.")
    if len({each.fingerprint() for each in found}) < len(found):
        raise InputError("metrics holds a metric twice.")
    return found


def _metric(each: Any) -> Metric:
    if isinstance(each, Metric):
        return each
    if isinstance(each, str) and each in METRICS:
        return METRICS[each]()
    raise InputError(f"there is no metric {each!r}; there are: {', '.join(METRICS)}.")
