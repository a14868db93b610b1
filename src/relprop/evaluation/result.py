"""The result of an evaluation: one number per metric, method and sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from relprop.composites import Composite
from relprop.errors import InputError
from relprop.evaluation.paired_statistics import Difference, best_of, differences, mean, spearman, standard_error
from relprop.evaluation.restoring import restored_columns, restored_cost
from relprop.evaluation.score_columns import Column, Cost
from relprop.results.files.checks import require
from relprop.results.ledger import Ledger
from relprop.results.made import Made
from relprop.results.protocol import loadable
from relprop.signatures import check_options, public

if TYPE_CHECKING:
    from relprop.rendering.view import Options, Row, View

FEW = 20
"""Below this number of samples, a comparison says little."""
_KEPT = ("methods", "free", "columns", "cost", "score", "relevance", "units", "of", "cautions", "layout")


@loadable
@dataclass(kw_only=True, eq=False)
class Evaluation(Made):
    """How far each method can be trusted, in numbers.

    Attributes:
        methods: the names of the methods, M.
        free: those of them that know nothing about the model.
        columns: the numbers of each metric.
        cost: what each method cost, by name.
        score: the scores of the samples as they are, (N,).
        relevance: the relevance of units, (M, N, U), float32; None if it would be very large.
        units: what was removed as one, and how relevance was gathered in it, in words.
        of: what was read off the output.
        cautions: what the reader should know.
        layout: of pictures whose samples share their units, the number of the unit of each pixel, (H, W); else None.
    """

    kind: ClassVar[str] = "evaluation"

    methods: list[str]
    free: list[str]
    columns: list[Column]
    cost: dict[str, Cost]
    score: Tensor
    units: str
    relevance: Tensor | None = None
    of: str = "logit"
    cautions: list[str] = field(default_factory=list)
    layout: Tensor | None = None

    def __len__(self) -> int:
        return len(self.score)

    @property
    def asked(self) -> list[str]:
        """The methods that were asked for."""
        return [name for name in self.methods if name not in self.free]

    def __getitem__(self, score: str) -> Tensor:
        """The numbers of a score, (M, N): the mean over replacements, if there are several.

        Raises:
            InputError: there is no such score.
        """
        return torch.stack([each.values for each in self.find(score)]).mean(0)

    def find(self, score: str) -> list[Column]:
        """All columns of a score, one per replacement; or the one of the full name.

        Raises:
            InputError: there is no such score.
        """
        found = [each for each in self.columns if score in (each.score, each.name)]
        if not found:
            known = ", ".join(dict.fromkeys(each.score for each in self.columns))
            raise InputError(f"there is no score {score!r}; there are: {known}.")
        return found

    def main(self) -> str:
        """The score that ranks methods first: that of the first metric that ranks."""
        return next((each.score for each in self.columns if each.better), self.columns[0].score)

    @public(".compare")
    def compare(self, reference: str = "auto", score: str | None = None) -> list[Difference]:
        """The paired differences of all methods to one, with standard errors and 95 % intervals. Needs SciPy.

        Args:
            reference: the method to compare with.
            score: the score, for all replacements; or a full name, such as "abpc [Blur(sigma=None)]", for one of them.
                None takes the main score.

        Raises:
            InputError: there is no such method or score, or the score ranks nothing.
        """
        if reference not in self.methods:
            raise InputError(f"there is no method {reference!r}; there are: {', '.join(self.methods)}.")
        found = []
        for each in self.find(score or self.main()):
            if not each.better:
                raise InputError(f"{each.score!r} ranks nothing: it is neither good nor bad to have more of it.")
            found += differences(each.values, self.methods, reference, each.name, each.better)
        return found

    @public(".best")
    def best(self, score: str | None = None) -> list[str]:
        """The methods that are best within error, by the mean over replacements.

        A method is among them unless it is two standard errors of the paired difference behind the leader.

        Raises:
            InputError: there is no such score.
        """
        columns = self.find(score or self.main())
        return best_of(self[score or self.main()], self.methods, columns[0].better)

    @public(".pareto")
    def pareto(self, score: str | None = None) -> list[str]:
        """The methods to which none is better at no more cost, cheapest first.

        Raises:
            InputError: there is no such score.
        """
        columns = self.find(score or self.main())
        sign = -1 if columns[0].better < 0 else 1
        values = self[score or self.main()]
        points = [
            (self.cost[name].passes, -sign * mean(row[~row.isnan()]), name)
            for name, row in zip(self.methods, values, strict=True)
            if name not in self.free
        ]
        found: list[str] = []
        least = math.inf
        for _, loss, name in sorted(points):
            if loss < least:
                found.append(name)
                least = loss
        return found

    @public(".agreement")
    def agreement(self, score: str | None = None) -> dict[tuple[str, str], float]:
        """The rank correlation of the methods' means between each two replacements.

        Raises:
            InputError: there is no such score.
        """
        columns = [each for each in self.find(score or self.main()) if each.replacement]
        means = [torch.stack([row[~row.isnan()].mean() for row in each.values]) for each in columns]
        return {
            (columns[a].replacement, columns[b].replacement): float(spearman(means[a], means[b]))
            for a in range(len(columns))
            for b in range(a + 1, len(columns))
        }

    def warnings(self) -> list[str]:
        """What speaks against trusting the numbers."""
        found = list(self.cautions)
        if len(self) < FEW:
            found.append(f"{len(self)} samples are few: below {FEW}, differences are rarely beyond error.")
        for (a, b), value in self.agreement().items():
            if value == value and value < 0.5:
                found.append(
                    f"the ranking of methods depends on the replacement: between {a} and {b} its rank correlation is "
                    f"{value:.2f}."
                )
        main = self.find(self.main())[0]
        if main.better and self.free:
            values = self[self.main()]
            for name in self.asked:
                beaten = [
                    free for free in self.free if not _beats(values, self.methods.index(name), self.methods.index(free), main.better)
                ]  # fmt: skip
                if beaten:
                    found.append(
                        f"{name!r} is not two standard errors better than {', '.join(map(repr, beaten))}, which "
                        f"know{'s' * (len(beaten) == 1)} nothing of the model."
                    )
        return found

    def rows_of_table(self) -> tuple[list[str], list[list[str]]]:
        """The columns and rows of the table, as text."""
        from relprop.evaluation.score_tables import rows

        return rows(self)

    @public(".table")
    def table(self, form: str = "text") -> Any:
        """The means with standard errors, a row per method; the best within error are marked.

        Args:
            form: "text", "rich", "latex", "csv" or "pandas" (a data frame with a row per method, score and sample).

        Raises:
            InputError: there is no such form.
        """
        from relprop.evaluation.score_tables import table

        return table(self, form)

    @public(".plot")
    def plot(self, ax: Any = None, sample: int = 0, score: str | None = None, **options: Any) -> Any:
        """Draws curves with bands of one standard error on matplotlib axes, and returns the axes. Needs matplotlib.

        Args:
            ax: the axes; None takes the current ones.
            sample: not used: a curve is the mean of all samples.
            score: a score with a curve, "morf" or "lerf", or its full name; None takes the first.
            **options: there are none.

        Raises:
            InputError: there is no curve, or an option is given.
        """
        from relprop.evaluation.charts import plot

        check_options(options, ["ax", "sample", "score"])
        return plot(self, ax, score)

    @public(".disagreements")
    def disagreements(self, count: int = 3) -> list[int]:
        """The samples on which the given methods' maps agree least, by the mean rank correlation of units.

        Raises:
            InputError: the maps were not kept, or there is only one method.
        """
        if self.relevance is None or len(self.asked) < 2:
            raise InputError("disagreements needs at least two methods, and maps small enough to be kept.")
        rows = [self.methods.index(name) for name in self.asked]
        maps = self.relevance[rows].double()
        agreed = torch.zeros(len(self), dtype=torch.float64)
        for a in range(len(rows)):
            for b in range(a + 1, len(rows)):
                agreed += spearman(maps[a], maps[b]).nan_to_num(1.0)
        return agreed.argsort(stable=True)[:count].tolist()

    def views(self, options: Options) -> list[View]:
        """Its drawings: a table, and the curves."""
        from relprop.evaluation.charts import views

        return views(self, options)

    def rows(self) -> list[Row]:
        """No scores are explained here."""
        return []

    def subject(self, n: int) -> str:
        """What it is, in words."""
        return "evaluation"

    def kept(self) -> dict[str, Any]:
        """What a folder stores."""
        columns = [
            {
                "metric": c.metric, "score": c.score, "replacement": c.replacement, "better": c.better,
                "values": c.values, "curve": c.curve, "at": c.at,
            }
            for c in self.columns
        ]  # fmt: skip
        cost = {name: [cost.forwards, cost.backwards] for name, cost in self.cost.items()}
        return {name: getattr(self, name) for name in _KEPT} | {"columns": columns, "cost": cost}

    @classmethod
    def restored(cls, content: dict[str, Any], made: dict[str, Any], ledger: Callable[[int], Ledger]) -> Evaluation:
        """Rebuilds the result from the content of a folder."""
        require(content, _KEPT)
        score = content["score"]
        if not (isinstance(score, Tensor) and score.ndim == 1 and len(score) and score.is_floating_point()):
            raise ValueError("score is not a row of numbers")
        for name in ("methods", "free", "cautions"):
            if not isinstance(content[name], list) or not all(isinstance(one, str) for one in content[name]):
                raise ValueError(f"{name} are not names")
        for name in ("units", "of"):
            if not isinstance(content[name], str):
                raise ValueError(f"{name} is not a text")
        shape = (len(content["methods"]), len(score))
        relevance = content["relevance"]
        if relevance is not None and not (isinstance(relevance, Tensor) and relevance.shape[:2] == shape):
            raise ValueError("relevance does not fit")
        layout = content["layout"]
        if layout is not None and not (
            isinstance(layout, Tensor) and layout.ndim == 2 and layout.dtype == torch.int64 and relevance is not None
            and layout.numel() and int(layout.min()) >= -1 and int(layout.max()) < relevance.shape[2]
        ):  # fmt: skip
            raise ValueError("its layout does not fit")
        columns, cost = restored_columns(content["columns"], shape), restored_cost(content["cost"], content["methods"])
        plain = {name: content[name] for name in _KEPT} | {"columns": columns, "cost": cost}
        return cls(**plain, **made, ledger=ledger(len(score)))

    def __repr__(self) -> str:
        return str(self.table())


def nothing() -> Composite:
    """Stands where a result says which composite acted: several did."""
    return Composite(name="evaluation")


def _beats(values: Tensor, one: int, other: int, better: int) -> bool:
    gaps = (values[one] - values[other]) * (1 if better > 0 else -1)
    gaps = gaps[~gaps.isnan()]
    error = standard_error(gaps)
    return mean(gaps) > 0 and not mean(gaps) < 2 * error
