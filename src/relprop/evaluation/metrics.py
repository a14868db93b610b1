"""The metrics by name."""

from __future__ import annotations

from typing import Any

from relprop.errors import InputError
from relprop.evaluation.flipping import Flipping
from relprop.evaluation.work import Metric

METRICS: dict[str, type[Metric]] = {made.name: made for made in (Flipping,)}


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
