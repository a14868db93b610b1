"""One text explained for several targets by several composites, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from relprop.results.columns import recorded, restored_composites, split_rules
from relprop.results.files.checks import require
from relprop.results.ledger import Ledger
from relprop.results.protocol import loadable
from relprop.results.side_by_side import SideBySide
from relprop.results.texts import TextRelevance

if TYPE_CHECKING:
    from relprop.rendering.view import Options, View


@loadable
@dataclass(kw_only=True)
class TextComparison(SideBySide[TextRelevance]):
    """Results for the same text: a row for each target and a column for each composite.

    `C[1, 0]` is the result of the second target by the first composite, a `TextRelevance`. With `shared=True` all are on
    one scale.

    Attributes:
        results: the results, by target and then by composite.
        columns: the names of the composites.
    """

    kind: ClassVar[str] = "text comparison"

    results: list[list[TextRelevance]]

    @property
    def _flat(self) -> list[TextRelevance]:
        return [result for line in self.results for result in line]

    def views(self, options: Options) -> list[View]:
        """One drawing of all."""
        from relprop.rendering.scale import scale_for
        from relprop.results.comparison_views import Cells, free_name, view_of

        if options.shared and options.limit is None:
            scale = scale_for([one.relevance for one in self._flat], percentile=options.percentile)
            options = replace(options, limit=scale, percentile=None)
        cells: Cells = {}
        for line in self.results:
            name = free_name(line[0].subject(0), cells)
            for column, each in zip(self.columns, line, strict=True):
                cells[name, column] = each.views(options)[0]
        return [view_of(cells, self.columns, options)]

    def subject(self, n: int) -> str:
        """What the n-th score is, and the composite."""
        row, column = divmod(n, len(self.columns))
        return f"{self.results[row][column].subject(0)} by {self.columns[column]}"

    def given(self) -> Any:
        """The tokens."""
        return self.results[0][0].given()

    def kept(self) -> dict[str, Any]:
        """What a folder stores."""
        first = self.results[0]
        return {
            "results": [[one.kept() for one in line] for line in self.results],
            "columns": self.columns,
            "tables": recorded(first),
            "rules_each": [len(result.rules) for result in first],
        }

    @classmethod
    def restored(cls, content: dict[str, Any], made: dict[str, Any], ledger: Callable[[int], Ledger]) -> TextComparison:
        """Rebuilds the comparison from the content of a folder."""
        require(content, ("results", "columns", "tables", "rules_each"))
        lines, columns = content["results"], content["columns"]
        if not all(isinstance(part, list) and part for part in (lines, columns)):
            raise ValueError("it has no rows or columns")
        fits = all(isinstance(line, list) and len(line) == len(columns) for line in lines)
        if not fits or not all(isinstance(name, str) for name in columns):
            raise ValueError("its results do not fit its rows and columns")
        if not all(isinstance(one, dict) for line in lines for one in line):
            raise ValueError("its results are not described")
        composites = restored_composites(content["tables"], len(columns))
        rules = split_rules(made["rules"], content["rules_each"], len(columns))
        whole = ledger(len(lines) * len(columns))
        found: list[list[TextRelevance]] = []
        for row, line in enumerate(lines):
            found.append([])
            for column, one in enumerate(line):
                n = row * len(columns) + column
                own = made | {"composite": composites[column], "rules": rules[column], "notices": []}
                part = whole.sample(slice(n, n + 1))
                found[-1].append(TextRelevance.restored(one, own, lambda _, part=part: part))  # type: ignore[misc]
        return cls(results=found, columns=columns, **made, ledger=whole)

    def __repr__(self) -> str:
        shown = [f"Comparison of {len(self.columns)} composites: {', '.join(self.columns)}"]
        for line in self.results:
            shown.append(f"  {line[0].subject(0)}, score {float(line[0].score):.4g}")
            for name, one in zip(self.columns, line, strict=True):
                words = ", ".join(f"{word.text} {word.relevance:+.3g}" for word in one.top(4))
                shown.append(f"    {name}: {words}")
        return "\n".join([*shown, *(f"  {notice}" for notice in self.notices)])
