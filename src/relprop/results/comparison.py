"""One input explained for several targets by several composites, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from relprop.results.columns import recorded, restored_composites, split_rules
from relprop.results.files.checks import check_feature_names, check_scores, check_seen, require
from relprop.results.ledger import Ledger
from relprop.results.protocol import loadable
from relprop.results.relevance import Relevance
from relprop.results.side_by_side import SideBySide

if TYPE_CHECKING:
    from relprop.rendering.view import Options, View

_KEPT = ("values", "score", "residual", "targets", "columns", "tables", "rules_each", "output", "labels", "inputs")


@loadable
@dataclass(kw_only=True)
class Comparison(SideBySide[Relevance]):
    """Results for the same inputs: a row for each target and a column for each composite.

    `C[1, 0]` is the result of the second target by the first composite, a `Relevance`. `C.save` also takes
    `width="170mm"` (or pixels) and `dpi=`. With `shared=True` all maps are on one scale.

    Attributes:
        results: the results, by target and then by composite.
        columns: the names of the composites.
    """

    kind: ClassVar[str] = "comparison"

    results: list[list[Relevance]]

    def __len__(self) -> int:
        return len(self.results[0][0])

    @property
    def samples(self) -> int:
        """The number of samples, as `len`."""
        return len(self)

    def alone(self, sample: int) -> Comparison:
        """The comparison of one sample."""
        return Comparison.of([[result[sample] for result in line] for line in self.results], self.columns)

    def views(self, options: Options) -> list[View]:
        """One drawing for each sample."""
        from relprop.results import comparison_views

        return comparison_views.views(self, options)

    def subject(self, n: int) -> str:
        """What the n-th score is, and the composite."""
        cell, sample = divmod(n, len(self))
        row, column = divmod(cell, len(self.columns))
        return f"{self.results[row][column].subject(sample)} by {self.columns[column]}"

    def given(self) -> Any:
        """The inputs."""
        return self.results[0][0].inputs

    def kept(self) -> dict[str, Any]:
        """What a folder stores."""
        first = self.results[0]
        every = [result for line in self.results for result in line]
        seen = {"names": first[0].names, "pictures": first[0].pictures}
        return {name: part for name, part in seen.items() if part is not None} | {
            "values": [result.values for result in every],
            "score": torch.cat([result.score.float() for result in every]),
            "residual": torch.cat([result.residual.float() for result in every]),
            "targets": [line[0].target for line in self.results],
            "columns": self.columns,
            "tables": recorded(first),
            "rules_each": [len(result.rules) for result in first],
            "output": first[0].output,
            "labels": first[0].labels,
            "inputs": first[0].inputs,
        }

    @classmethod
    def restored(cls, content: dict[str, Any], made: dict[str, Any], ledger: Callable[[int], Ledger]) -> Comparison:
        """Rebuilds the comparison from the content of a folder."""
        require(content, _KEPT)
        columns, targets, values = content["columns"], content["targets"], content["values"]
        tables, counts = content["tables"], content["rules_each"]
        if not all(isinstance(part, list) and part for part in (columns, targets, values)):
            raise ValueError("it has no rows or columns")
        if len(values) != len(targets) * len(columns) or not all(isinstance(name, str) for name in columns):
            raise ValueError("its values do not fit its rows and columns")
        composites, rules = restored_composites(tables, len(columns)), split_rules(made["rules"], counts, len(columns))
        scores, rest = content["score"], content["residual"]
        if not all(isinstance(part, Tensor) and part.ndim == 1 for part in (scores, rest)):
            raise ValueError("its scores are not rows of numbers")
        samples, left = divmod(len(scores), len(values))
        if left or not samples or scores.shape != rest.shape:
            raise ValueError("its scores do not fit its values")
        whole = ledger(len(scores))
        names, (pictures, _) = check_feature_names(content), check_seen(content, samples)
        cells = []
        for place, value in enumerate(values):
            part = slice(place * samples, (place + 1) * samples)
            own = {
                "values": value, "score": scores[part], "residual": rest[part], "inputs": content["inputs"],
                "labels": content["labels"], "layers": {}, "positions": {},
            }  # fmt: skip
            check_scores(own)
            row, column = divmod(place, len(columns))
            cells.append(
                Relevance(
                    **own,
                    output=content["output"],
                    target=targets[row],
                    composite=composites[column],
                    rules=rules[column],
                    ledger=whole.sample(part),
                    model=made["model"],
                    names=names,
                    pictures=pictures,
                )
            )
        lines = [cells[start : start + len(columns)] for start in range(0, len(cells), len(columns))]
        return cls(results=lines, columns=columns, **made, ledger=whole)

    def __repr__(self) -> str:
        shown = [f"Comparison of {len(self.columns)} composites: {', '.join(self.columns)}"]
        shown += [f"  {line[0].subject(n)}" for line in self.results for n in range(min(len(self), 3))]
        return "\n".join([*shown, *(f"  {notice}" for notice in self.notices)])
