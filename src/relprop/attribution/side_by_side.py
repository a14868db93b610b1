"""The same inputs by several composites, for several targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relprop.attribution.attribute import attribute_each
from relprop.composites import Composite
from relprop.errors import CompositeError, InputError
from relprop.results.comparison import Comparison
from relprop.signatures import public


@public(
    "relprop.compare", {"target": "Targets are targets=, one or a list.", "composite": "It takes composites=[...]."}
)
def compare(
    model: Any,
    inputs: Any,
    targets: Any = None,
    composites: Sequence[Composite | str] | Mapping[str, Composite | str] = (),
    *,
    forward_args: Sequence[Any] = (),
    forward_kwargs: dict[str, Any] | None = None,
    select: Any = None,
    labels: Sequence[str] | None = None,
    strict: bool = True,
    batch_size: int | None = None,
    ledger: bool = True,
) -> Comparison:
    """Explains the same inputs by several composites, and for several targets, side by side.

    Args:
        model: as in `attribute`, like all arguments that are not listed here.
        inputs: as in `attribute`.
        targets: one target, or a list of targets, each of which is a row. A tensor with a class for each sample is one target;
            so is such a list inside the list, `[[3, 1]]`.
        composites: the composites or their names, each of which is a column. A mapping gives the columns other names.
        ledger: whether to record what absorbed the part of the score that did not arrive.

    Returns:
        A `Comparison`, which is shown, saved and put into reports as any result. `C[0, 1]` is the `Relevance` of the
        first target by the second composite.

    Raises:
        RelpropError: as in `attribute`. A `CompositeError` also where there is no composite, or two have one name.
    """
    if isinstance(inputs, str):
        raise InputError(
            "inputs is a text: relprop.compare_text(model, tokenizer, text, targets, composites=[...]) compares those."
        )
    named = columns_of(composites)
    asked = list(targets) if isinstance(targets, list) else [targets]
    found = [
        attribute_each(
            model, inputs, asked, composite=composite, forward_args=forward_args, forward_kwargs=forward_kwargs,
            select=select, labels=labels, strict=strict, batch_size=batch_size, ledger=ledger,
        )
        for _, composite in named
    ]  # fmt: skip
    return Comparison.of([list(line) for line in zip(*found, strict=True)], column_names(named, found))


def columns_of(composites: Any) -> list[tuple[str, Composite | str]]:
    """The name and the composite of each column.

    Raises:
        CompositeError: there is none, or two have one name.
    """
    named = list(composites.items()) if isinstance(composites, Mapping) else _named(composites)
    if not named:
        raise CompositeError("there is nothing to compare: give composites=['auto', 'epsilon'], one or more.")
    return named


def column_names(named: Sequence[tuple[str, Any]], found: Sequence[Sequence[Any]]) -> list[str]:
    """The names of the columns. That of "auto" says what it picked."""
    return [
        f"auto ({results[0].composite.name})" if name == "auto" else name
        for (name, _), results in zip(named, found, strict=True)
    ]


def _named(composites: Any) -> list[tuple[str, Composite | str]]:
    if isinstance(composites, (str, Composite)):
        composites = [composites]
    if not isinstance(composites, Sequence):
        raise CompositeError(f"composites is a list of composites or their names, or a mapping; got {composites!r}.")
    named = [(each if isinstance(each, str) else getattr(each, "name", str(each)), each) for each in composites]
    names = [name for name, _ in named]
    if twice := [name for name in names if names.count(name) > 1]:
        raise CompositeError(
            f"two columns are called {twice[0]!r}: give them names, as in composites={{'gamma 1': ..., 'gamma 2': ...}}."
        )
    return named
