"""What was asked of a run, as a value: from the controls of a page or a link, and back into a link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from relprop.errors import InputError
from relprop.web.settings import LONGEST_LINK, fields_of

ORDERS = {
    "source": "order of the source",
    "high": "largest score first",
    "low": "smallest score first",
    "residual": "largest residual first, as a part of the score",
}
"""The orders in which samples are listed."""
STATUSES = {"explained": "explained", "quarantined": "put aside"}
BY = {"predicted": "class with the largest output", "target": "class that was explained"}
VIEWS = ("samples", "clusters", "units")
_CHOICES = {"order": ORDERS, "status": STATUSES, "by": BY, "view": VIEWS}
_NUMBERS = ("target", "sample", "start", "cluster_class", "unit", "neighbours", "size")


@dataclass(frozen=True)
class RunSettings:
    """What was asked of a run.

    Attributes:
        view: what is looked at, one of `VIEWS`.
        target: only samples for which this class was explained; None takes all.
        status: a key of `STATUSES`.
        order: a key of `ORDERS`.
        start: the first of the listed samples.
        sample: the number of the sample that is shown, in the order of the source; None shows none.
        by: a key of `BY`: the class by which clusters are sought.
        neighbours: with how many of its nearest neighbours each map is joined.
        size: blocks along each axis of a map.
        cluster_class: the class whose clusters are shown; None is the one that stands out most.
        layer: the layer of the unit that is shown; None is the first of the index.
        unit: the number of that unit.
        measure: "relevance" or "activation": what its references have most of.

    Raises:
        InputError: a value is none.
    """

    view: str = "samples"
    target: int | None = None
    status: str = "explained"
    order: str = "source"
    start: int = 0
    sample: int | None = None
    by: str = "predicted"
    neighbours: int = 10
    size: int = 14
    cluster_class: int | None = None
    layer: str | None = None
    unit: int = 0
    measure: str = "relevance"

    def __post_init__(self) -> None:
        for name, choices in {**_CHOICES, "measure": ("relevance", "activation")}.items():
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is {str(getattr(self, name))[:40]!r}; it is one of: {', '.join(choices)}.")
        for name, low, high in (("neighbours", 2, 100), ("size", 2, 64)):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} is {getattr(self, name)}; it lies from {low} to {high}.")
        for name in ("start", "sample", "unit"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 2**40:
                raise InputError(f"{name} is {value}; it is numbered from 0.")

    def link(self) -> str:
        """The part of a link that restores these settings: what differs from the defaults."""
        usual = RunSettings()
        given = {name: value for name, value in vars(self).items() if value != getattr(usual, name)}
        return f"?{urlencode({'view': self.view, **given})}"

    @classmethod
    def of_link(cls, query: str) -> RunSettings:
        """The settings of a link. Names that are none of ours are passed over.

        Raises:
            InputError: a value is none.
        """
        if len(query) > LONGEST_LINK:
            raise InputError(f"the link has {len(query):,} letters; settings have {LONGEST_LINK:,} at most.")
        given = dict(fields_of(query))
        return run_settings_of({name: given[name] for name in vars(cls()) if name in given})

    def changed(self, **values: Any) -> RunSettings:
        """The same with other values."""
        return replace(self, **values)


def run_settings_of(values: Mapping[str, Any]) -> RunSettings:
    """The settings of a page's controls, whose values come from anywhere.

    Raises:
        InputError: a value is none.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if value is None or value == "":
            continue
        found[name] = _whole(name, value) if name in _NUMBERS else str(value)[:1000]
    return RunSettings(**found)


def _whole(name: str, value: Any) -> int:
    try:
        if isinstance(value, bool) or len(str(value)) > 20 or (isinstance(value, float) and int(value) != value):
            raise ValueError
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name} is {str(value)[:40]!r}; it must be a whole number.") from None
