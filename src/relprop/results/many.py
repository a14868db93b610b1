"""The results of many texts as one result: a list that can be shown, saved, summarised and turned into a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, SupportsIndex, overload

import torch

from relprop.composites import Composite, Place
from relprop.errors import InputError
from relprop.results.files.checks import require
from relprop.results.identity import Identity
from relprop.results.ledger import Ledger
from relprop.results.outputs import Outputs
from relprop.results.protocol import Exported, loadable
from relprop.results.summary import Summary, labelled
from relprop.results.texts import TextRelevance
from relprop.rules import Rule
from relprop.signatures import public

if TYPE_CHECKING:
    import pandas

    from relprop.rendering.view import Options, Row, View

_COLUMNS = ["sample", "target", "score", "residual", "position", "name", "special", "relevance"]
_MOST_CLASSES = 50


@loadable
class TextResults(list[Any], Outputs):  # type: ignore[type-var]  # what a dataclass holds are properties here
    """The results of many texts, or of several targets of a text: a list, and one result.

    It is the list that `explain_text` returns. It can be iterated, indexed and compared like any list; a slice is such a result
    again. Its entries are `TextRelevance`, or lists of them where each text has several targets.
    """

    kind: ClassVar[str] = "texts"

    @property
    def flat(self) -> list[TextRelevance]:
        """The results of all texts and targets, one after the other."""
        return [one for each in self for one in (each if isinstance(each, list) else [each])]

    def _at(self, n: int) -> TextRelevance:
        """The n-th result of all texts and targets."""
        nested = isinstance(list.__getitem__(self, 0), list) if len(self) else False
        return self.flat[n] if nested else list.__getitem__(self, n)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> TextResults: ...
    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return TextResults(found) if isinstance(index, slice) else found

    @property
    def composite(self) -> Composite:
        """The composite that acted."""
        return self._first.composite

    @property
    def rules(self) -> list[tuple[Place, Rule | None]]:
        """Each place for which a rule was looked up in the first text, and the rule that acted."""
        return self._first.rules

    @property
    def unknown(self) -> dict[str, int]:
        """Operations whose native gradient was used, with their number of calls in all texts."""
        found: dict[str, int] = {}
        for one in self.flat:
            for name, count in one.unknown.items():
                found[name] = found.get(name, 0) + count
        return found

    @property
    def model(self) -> Identity | None:
        """The name of the model that was explained."""
        return self._first.model

    @property
    def ledger(self) -> Ledger:
        """What absorbed the residuals, where all texts have a ledger."""
        ledgers = [one.ledger for one in self.flat]
        same = len({tuple((e.family, e.name, e.where) for e in ledger.entries) for ledger in ledgers}) == 1
        return Ledger.joined(ledgers) if same and ledgers[0].entries else Ledger([])

    @property
    def notices(self) -> list[str]:
        """What the reader should know, of all texts."""
        return list(dict.fromkeys(notice for one in self.flat for notice in one.notices))

    @property
    def _first(self) -> TextRelevance:
        flat = self.flat
        if not flat:
            raise InputError("there is no text in this list of results.")
        return flat[0]

    @property
    def samples(self) -> int:
        """The number of texts and targets. Each is drawn by itself."""
        return len(self.flat)

    def alone(self, sample: int) -> Any:
        """The result of one text and target."""
        return self._at(sample)

    def views(self, options: Options) -> list[View]:
        """The drawings of at most `options.most` of them."""
        return [
            replace(view, sample=n, title=f"{n}: {view.title}" if self.samples > 1 else view.title)
            for n, one in enumerate(self.flat[: options.most])
            for view in one.views(options)
        ]

    def to_html(self, title: str = "Relevance", **options: Any) -> str:
        """A page about all of them, each under its own heading, however many there are."""
        from relprop.rendering.view import Options
        from relprop.results.report import report_page

        self._check(options, "title")
        return report_page(self.flat, title=title, options=Options(**options))

    def rows(self) -> list[Row]:
        """The numbers of each score."""
        return [row for one in self.flat for row in one.rows()]

    def subject(self, n: int) -> str:
        """What was explained of the n-th, in words."""
        return self._at(n).subject(0)

    def heading(self) -> str:
        """The name of the kind, for file names."""
        return "texts"

    def facts(self, n: int) -> dict[str, Any]:
        """Plain data about the n-th, for programs."""
        return self._at(n).facts(0)

    @public(".to_pandas")
    def to_pandas(self, *, merge: bool = True, groups: Any = None) -> pandas.DataFrame:
        """A row for each word of each text: sample, target, score, residual, position, name, special, relevance.

        With groups, a row for each text: what was explained, score, residual, and the relevance of each span.

        Args:
            merge: whether tokens are merged into words. Their relevance is added up.
            groups: spans by name, as in `TextRelevance.grouped`: for all texts, or a list with those of each.

        Raises:
            InputError: the groups do not fit.
        """
        from relprop.results.data_frames import pandas_library
        from relprop.results.spans import columns

        pandas = pandas_library()
        if groups is None:
            return pandas.DataFrame(list(self._lines(merge)), columns=_COLUMNS)
        flat = self.flat
        found = {
            "explained": [one.subject(0) for one in flat],
            "score": [float(one.score) for one in flat],
            "residual": [float(one.residual) for one in flat],
        }
        return pandas.concat([pandas.DataFrame(found), pandas.DataFrame(columns(flat, groups))], axis=1)

    def records(self, options: dict[str, Any]) -> tuple[list[str], Iterable[list[Any]]]:
        """The columns and rows of a CSV file."""
        if strange := set(options) - {"merge"}:
            raise InputError(f"the CSV of many texts takes merge= alone; got {', '.join(sorted(strange))}.")
        return _COLUMNS, self._lines(bool(options.get("merge", True)))

    def _lines(self, merge: bool) -> Iterator[list[Any]]:
        for n, one in enumerate(self.flat):
            score, residual, target = float(one.score), float(one.residual), one.subject(0)
            if merge:
                parts = [(word.text, word.special, word.relevance) for word in one.words]
            else:
                parts = list(zip(one.pieces, one.special, one.relevance.tolist(), strict=True))
            for position, (name, special, value) in enumerate(parts):
                yield [n, target, score, residual, position, name, special, value]

    @public(".summary")
    def summary(
        self, *, groups: Callable[[str], str | None] | None = None, case: bool = False, least: int = 1
    ) -> Summary:
        """Relevance per word over all texts, and per class.

        A word that occurs several times in a text counts once there, with its sum. The means are over all texts, so that
        they add up to the mean score minus the residual; `count` says in how many texts a word occurs.

        Args:
            groups: a function from a word to the name of its group, such as a stem; None leaves the word out.
            case: whether words that differ in case alone are different.
            least: leave out words that occur in fewer texts.

        Raises:
            InputError: there is no text, or no word is left.
        """
        flat = self.flat
        if not flat:
            raise InputError("there is no text to summarise.")
        if not isinstance(least, int) or isinstance(least, bool) or least < 1:
            raise InputError(f"least is a number of texts, 1 or more; got {least!r}.")
        classes, label = labelled([one.subject(0) for one in flat])
        if len(classes) > _MOST_CLASSES:
            classes, label = ["all texts"], torch.zeros(len(flat), dtype=torch.int64)
        at: dict[str, int] = {}
        entries: list[tuple[int, int, float]] = []
        for one, k in zip(flat, label.tolist(), strict=True):
            inside: dict[int, float] = {}
            for word in one.words:
                name = word.text if case else word.text.lower()
                called = name if groups is None else groups(name)
                if word.special or called is None or not any(map(str.isalnum, called)):
                    continue
                f = at.setdefault(str(called), len(at))
                inside[f] = inside.get(f, 0.0) + word.relevance
            entries += [(k, f, value) for f, value in inside.items()]
        shape = (len(classes), len(at))
        where = torch.tensor([(k, f) for k, f, _ in entries], dtype=torch.int64).reshape(-1, 2)
        value = torch.tensor([v for *_, v in entries], dtype=torch.float64)
        flat_index = where[:, 0] * max(len(at), 1) + where[:, 1]

        def summed(t: torch.Tensor) -> torch.Tensor:
            return torch.zeros(shape[0] * shape[1], dtype=torch.float64).index_add_(0, flat_index, t).reshape(shape)

        count = summed(torch.ones_like(value))
        kept = (count.sum(0) >= least).nonzero().flatten()
        if not len(kept):
            raise InputError(f"no word occurs in {least} texts.")
        names = list(at)
        return Summary(
            names=[names[f] for f in kept.tolist()], classes=classes, sizes=torch.bincount(label, minlength=len(classes)).double(),
            count=count[:, kept], total=summed(value)[:, kept], total_abs=summed(value.abs())[:, kept], label=label,
            style="classes" if 1 < len(classes) <= 8 else "bars", unit="word", composite=self.composite, rules=self.rules,
            unknown=self.unknown, model=self.model, notices=self.notices,
        )  # fmt: skip

    def kept(self) -> dict[str, Any]:
        """What a folder stores."""
        lengths = [len(each) if isinstance(each, list) else -1 for each in self]
        return {"results": [one.kept() | {"notices": one.notices} for one in self.flat], "lengths": lengths}

    def exported(self) -> Exported:
        """The content of the files for other programs."""
        results = [one.exported().data for one in self.flat]
        arrays = {f"relevance[{n}]": one.relevance for n, one in enumerate(self.flat)}
        return Exported({"results": results}, arrays, {"targets": [one.target for one in self.flat]})

    @classmethod
    def restored(cls, content: dict[str, Any], made: dict[str, Any], ledger: Callable[[int], Ledger]) -> TextResults:
        """Rebuilds the results from the content of a folder."""
        require(content, ("results", "lengths"))
        results, lengths = content["results"], content["lengths"]
        if not isinstance(results, list) or not results or not all(isinstance(one, dict) for one in results):
            raise ValueError("results are not described")
        if not isinstance(lengths, list) or not all(type(n) is int and n >= -1 for n in lengths):
            raise ValueError("the numbers of targets are not described")
        whole = ledger(len(results))
        found = []
        for n, one in enumerate(results):
            notices = one.get("notices", [])
            if not isinstance(notices, list) or not all(isinstance(notice, str) for notice in notices):
                raise ValueError("notices are not texts")
            part = whole.sample(slice(n, n + 1))
            found.append(TextRelevance.restored(one, made | {"notices": notices}, lambda _, part=part: part))  # type: ignore[misc]
        if sum(max(n, 1) if n else 0 for n in lengths) != len(found):
            raise ValueError("the numbers of targets do not fit the results")
        rest = iter(found)
        return cls(next(rest) if n < 0 else cls(next(rest) for _ in range(n)) for n in lengths)

    def __repr__(self) -> str:
        flat = self.flat
        if len(flat) <= 3:
            return f"[{', '.join(map(repr, self))}]"
        lines = [f"{len(flat)} results of texts by composite {self.composite.name!r}"]
        for n, one in enumerate(flat[:3]):
            words = ", ".join(f"{word.text} {word.relevance:+.3g}" for word in one.top(3))
            lines.append(f"  {n}: {one.subject(0)}, score {float(one.score):.4g}: {words}")
        return "\n".join([*lines, f"  ... {len(flat) - 3} more"])

    def __reduce__(self) -> Any:
        return TextResults, (list(self),)


def together(results: Sequence[Any]) -> TextResults:
    """Results of texts as one, also where each text has several."""
    return TextResults(TextResults(one) if isinstance(one, list) else one for one in results)
