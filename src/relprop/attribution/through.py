"""The conditions of a call: with the paths of their layers, paired with targets, cut into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from relprop.attribution.conditions import Condition
from relprop.attribution.layers import SplicedPart
from relprop.attribution.points import Watch, modules_of, named
from relprop.errors import InputError

Through = Any
"""A condition, a list with one per sample, or None."""


@dataclass(frozen=True)
class Conditions:
    """The conditions of several results.

    Attributes:
        each: for each result the number of its target, and its condition.
        modules: the modules whose units the conditions name, by path and side.
    """

    each: list[tuple[int, Through]]
    modules: dict[Any, Any]

    @classmethod
    def of(
        cls, model: Any, each: Sequence[tuple[int, Through]], parts: Mapping[str, SplicedPart] | None = None
    ) -> Conditions:
        """The conditions with the paths of their layers.

        Raises:
            InputError: a condition is none, or the model has no such layer.
        """
        found = [(number, _named(model, through, parts)) for number, through in each]
        flat = [one for _, t in found for one in (t if isinstance(t, list) else [t])]
        return cls(found, modules_of(model, flat, parts))

    def part(self, rows: slice, count: int) -> Conditions:
        """The conditions for some of `count` samples."""
        return replace(self, each=[(number, _part(through, rows, count)) for number, through in self.each])

    def watch(self, layers: dict[str, Any], at: str) -> Watch:
        """Catches the layers of the conditions, and those whose relevance is wanted."""
        return Watch({**self.modules, **{(path, at): module for path, module in layers.items()}})


def _named(model: Any, through: Through, parts: Mapping[str, SplicedPart] | None) -> Through:
    if isinstance(through, (list, tuple)):
        if not through:
            raise InputError("through is an empty list: give one condition per sample, or one for all.")
        return [_named(model, one, parts) for one in through if not isinstance(one, (list, tuple)) or _refuse(one)]
    if through is not None and not isinstance(through, Condition):
        raise _refuse(through)
    return named(model, through, parts)


def _refuse(given: Any) -> InputError:
    raise InputError(
        f"through must be a condition, such as relprop.units('layer')[3], or a list with one per sample; got {given!r}."
    )


def _part(through: Through, rows: slice, count: int) -> Through:
    if isinstance(through, list):
        return through[rows]
    return None if through is None else through.part(rows, count)


def paired(targets: Any, through: Any) -> tuple[list[Any], list[tuple[int, Through]]]:
    """The targets of `attribute_each`, and for each result the number of its target and its condition.

    Raises:
        InputError: `through` is not a list, or its length is not that of the targets.
    """
    if not isinstance(through, (list, tuple)) or not through:
        raise InputError(
            f"attribute_each takes a list of conditions, through=[...], one per result; got {through!r}. One condition is "
            "relprop.attribute(model, inputs, target, through=...)."
        )
    many = list(targets) if isinstance(targets, (list, tuple, range)) else [targets]
    if len(many) == 1:
        return many, [(0, one) for one in through]
    if len(many) != len(through):
        raise InputError(
            f"{len(many)} targets and {len(through)} conditions: give one target for all conditions, or one per condition."
        )
    return many, list(enumerate(through))
