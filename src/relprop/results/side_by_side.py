"""What comparisons of any kind share: results in rows, a target each, and columns, a composite each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from relprop.errors import InputError
from relprop.results.columns import composite_of, joined
from relprop.results.made import Made

if TYPE_CHECKING:
    from typing_extensions import Self

    from relprop.rendering.view import Row

R = TypeVar("R", bound=Any)


@dataclass(kw_only=True)
class SideBySide(Made, Generic[R]):
    """A row of results for each target, and a column for each composite.

    Attributes:
        results: the results, by target and then by composite.
        columns: the names of the composites.
    """

    results: list[list[R]]
    columns: list[str]

    @classmethod
    def of(cls, results: Sequence[Sequence[R]], columns: Sequence[str]) -> Self:
        """The comparison of results that have the same inputs."""
        first = results[0]
        every = [result for line in results for result in line]
        return cls(
            results=[list(line) for line in results],
            columns=list(columns),
            composite=composite_of(first, columns),
            rules=[pair for result in first for pair in result.rules],
            unknown={name: count for result in first for name, count in result.unknown.items()},
            model=first[0].model,
            ledger=joined(every),
            notices=list(dict.fromkeys(notice for result in every for notice in result.notices)),
        )

    def __getitem__(self, place: tuple[int, int]) -> R:
        """The result of a target by a composite, `C[row, column]`.

        Raises:
            InputError: this is not a pair of numbers.
            IndexError: there is no such row or column.
        """
        if not (isinstance(place, tuple) and len(place) == 2 and all(isinstance(i, int) for i in place)):
            raise InputError(f"a result of a comparison is C[row, column], as in C[0, 1]; got C[{place!r}].")
        return self.results[place[0]][place[1]]

    def rows(self) -> list[Row]:
        """The numbers of each score, by target, then composite, then sample."""
        return [
            replace(row, explained=f"{row.explained} by {column}")
            for line in self.results
            for column, result in zip(self.columns, line, strict=True)
            for row in result.rows()
        ]

    def heading(self) -> str:
        """The first target, for file names."""
        return f"{self.results[0][0].subject(0)} compared"
