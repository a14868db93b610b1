"""A summary of relevance over a data set: per feature or word, per class, with the numbers of each sample where they fit.

Index letters: n sample, k class, f feature or word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.results.files.checks import real, require
from relprop.results.ledger import Ledger
from relprop.results.made import Made
from relprop.results.protocol import Exported, loadable

if TYPE_CHECKING:
    import pandas

    from relprop.rendering.drawing import Drawing
    from relprop.rendering.view import Options, Row, View

_KEPT = (
    "names",
    "classes",
    "sizes",
    "count",
    "total",
    "total_abs",
    "label",
    "values",
    "features",
    "maps",
    "style",
    "unit",
)
STYLES = ("bars", "classes", "beeswarm", "heatmap", "maps")


@loadable
@dataclass(kw_only=True)
class Summary(Made):
    """Relevance over a data set.

    Attributes:
        names: the names of the features, or the words.
        classes: what was explained of the samples, in words: the classes.
        sizes: the number of samples of each class, (K,).
        count: in how many samples of a class each feature or word occurs, (K, F).
        total: the sum of its relevance over the samples of a class, (K, F).
        total_abs: the sum of absolute relevance, (K, F). Of a word it is that of its sum in a text.
        label: the class of each sample, (N,), as an index into `classes`.
        values: the relevance of each sample, (N, F); None for words, and for maps.
        features: the values of the features, (N, F), where they are known.
        maps: the average map of each class, (K, H, W), of pictures.
        style: what is drawn: "bars", "classes", "beeswarm", "heatmap" or "maps".
        unit: what the names are: "feature", "word" or "channel".

    How it was made is in `composite`, `rules`, `unknown`, `model` and `notices`, as in `Relevance`.
    """

    kind: ClassVar[str] = "summary"

    names: list[str]
    classes: list[str]
    sizes: Tensor
    count: Tensor
    total: Tensor
    total_abs: Tensor
    label: Tensor
    values: Tensor | None = None
    features: Tensor | None = None
    maps: Tensor | None = None
    style: str = "bars"
    unit: str = "feature"

    @property
    def mean(self) -> Tensor:
        """The mean relevance of each feature over all samples, (F,). Where a word does not occur, it has none."""
        return self.total.sum(0) / self.sizes.sum()

    @property
    def mean_abs(self) -> Tensor:
        """The mean absolute relevance of each feature over all samples, (F,)."""
        return self.total_abs.sum(0) / self.sizes.sum()

    @property
    def per_class(self) -> Tensor:
        """The mean relevance of each feature over the samples of each class, (K, F)."""
        return self.total / self.sizes[:, None]

    def bars(self) -> Summary:
        """The same, drawn as one chart of bars: the mean of `abs(R)` by length, the mean of R by a mark."""
        return replace(self, style="bars")

    def by_class(self) -> Summary:
        """The same, drawn as a chart of bars per class."""
        return replace(self, style="classes")

    def beeswarm(self) -> Summary:
        """The same, drawn as a dot for each sample and feature.

        Raises:
            InputError: there are no numbers of samples, as for words.
        """
        self._each("a beeswarm")
        return replace(self, style="beeswarm")

    def heatmap(self) -> Summary:
        """The same, drawn as a map of samples by features.

        Raises:
            InputError: there are no numbers of samples, as for words.
        """
        self._each("a map of samples")
        return replace(self, style="heatmap")

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each feature, or class and feature where there are several classes.

        The columns are the name, `count`, `mean`, `mean_abs`, and the class. Needs pandas.
        """
        from relprop.results.data_frames import pandas_library

        pandas = pandas_library()
        columns = ["class", self.unit, "count", "mean", "mean_abs"]
        frame = pandas.DataFrame(list(self._lines()), columns=columns)
        return frame if len(self.classes) > 1 else frame.drop(columns="class")

    def records(self, options: dict[str, Any]) -> tuple[list[str], Any]:
        """The columns and rows of a CSV file."""
        if options:
            raise InputError(f"CSV holds numbers and takes no options of drawing; got {', '.join(sorted(options))}.")
        return ["class", self.unit, "count", "mean", "mean_abs"], self._lines()

    def _lines(self) -> Any:
        for k, name in enumerate(self.classes):
            size = float(self.sizes[k])
            order = torch.argsort(self.total_abs[k], descending=True, stable=True).tolist()
            for f in order:
                if int(self.count[k, f]):
                    yield (
                        name, self.names[f], int(self.count[k, f]), float(self.total[k, f]) / size,
                        float(self.total_abs[k, f]) / size,
                    )  # fmt: skip

    def _each(self, what: str) -> Tensor:
        if self.values is None:
            raise InputError(
                f"{what} is drawn of the relevance of features, and this is about {self.unit}s: draw bars() or by_class()."
            )
        return self.values

    def views(self, options: Options) -> list[View]:
        """Its drawings."""
        from relprop.rendering.panels import Panel, strip
        from relprop.rendering.scale import number
        from relprop.rendering.summaries import beeswarm, importance, sample_map
        from relprop.rendering.view import View
        from relprop.rendering.visible import visible

        samples = int(self.sizes.sum())
        said = f"{samples:,} samples; {self.composite.name}"
        if self.maps is not None and self.style == "maps":
            return self._map_views(options, said, View, Panel, strip)
        if not self.names:
            raise InputError("a summary of pictures has maps alone; groups= makes features of their parts.")
        names = [visible(name, longest=60) for name in self.names]

        def view(
            title: str, entries: Sequence[tuple[str, float]], draw: Callable[[], Drawing], line: str = said
        ) -> View:
            return View("table", 0, title, (line,), draw, list(entries), unit=f"{self.unit}s")

        mean, mean_abs = self.mean, self.mean_abs
        order = torch.argsort(mean_abs, descending=True, stable=True).tolist()
        listed = [(names[f], float(mean[f])) for f in order[:200]]
        if self.style == "classes":
            per, sizes = self.per_class, self.total_abs / self.sizes[:, None]
            longest = float(sizes.max()) if sizes.numel() else None
            return [
                view(
                    f"{visible(name)}: {int(self.sizes[k]):,} samples",
                    [(names[f], float(per[k, f])) for f in torch.argsort(sizes[k], descending=True).tolist()[:200]],
                    partial(importance, names, sizes[k], per[k], most=15, palette=options.palette, longest=longest),
                    f"{self.composite.name}; the sum of mean |R| is {number(float(sizes[k].sum()))}",
                )
                for k, name in enumerate(self.classes[: options.most])
            ]
        if self.style == "beeswarm":
            draw = partial(beeswarm, self._each("a beeswarm"), self.features, names, palette=options.palette)
            return [view(f"Relevance of each {self.unit}, sample by sample", listed, draw)]
        if self.style == "heatmap":
            values = self._each("a map of samples")[torch.argsort(self.label, stable=True)]
            draw = partial(
                sample_map, values, names, percentile=options.percentile, palette=options.palette
            )  # fmt: skip
            return [
                view("Relevance of samples by feature", listed, draw, f"{said}; samples in the order of their classes")
            ]
        draw = partial(importance, names, mean_abs, mean, palette=options.palette)
        return [view(f"Mean relevance of each {self.unit}", listed, draw)]

    def _map_views(self, options: Options, said: str, view: Any, panel: Any, strip: Any) -> list[View]:
        from relprop.rendering.image import Heatmap

        assert self.maps is not None
        found = []
        for k, name in enumerate(self.classes[: options.most]):
            heatmap = Heatmap.of(
                self.maps[k], percentile=options.percentile, limit=options.limit, palette=options.palette
            )
            title = f"{name}: the average of {int(self.sizes[k]):,} maps"
            shown = [panel(heatmap, "average relevance")]
            found.append(view("image", k, title, (said,), partial(strip, shown), [], heatmap, panels=shown))
        return found

    @property
    def samples(self) -> int:
        """The number of its drawings."""
        return len(self.classes) if self.style in ("classes", "maps") else 1

    def rows(self) -> list[Row]:
        """A summary explains no score of its own."""
        return []

    def subject(self, n: int) -> str:
        """A summary is about all samples."""
        return f"{int(self.sizes.sum()):,} samples"

    def heading(self) -> str:
        """The name of the kind."""
        return "summary"

    def kept(self) -> dict[str, Any]:
        """What a folder stores."""
        return {name: getattr(self, name) for name in _KEPT}

    def exported(self) -> Exported:
        """The content of the files for other programs."""
        kept = {name: part for name, part in self.kept().items() if name not in ("style", "unit")}
        arrays = {name: part for name, part in kept.items() if isinstance(part, Tensor)}
        return Exported(kept, arrays, {"names": self.names, "classes": self.classes})

    @classmethod
    def restored(cls, content: dict[str, Any], made: dict[str, Any], ledger: Callable[[int], Ledger]) -> Summary:
        """Rebuilds the summary from the content of a folder."""
        require(content, _KEPT)
        own = {name: content[name] for name in _KEPT}
        for name in ("names", "classes"):
            if not isinstance(own[name], list) or not all(isinstance(one, str) for one in own[name]):
                raise ValueError(f"{name} are not texts")
        shape = (len(own["classes"]), len(own["names"]))
        if not all(real(own[name], shape) for name in ("count", "total", "total_abs")) or not real(
            own["sizes"], shape[:1]
        ):
            raise ValueError("the sums do not fit the names")
        label = own["label"]
        if not isinstance(label, Tensor) or label.dtype != torch.int64 or label.ndim != 1:
            raise ValueError("label is not a row of indices")
        for name in ("values", "features"):
            if own[name] is not None and not real(own[name], (len(label), shape[1])):
                raise ValueError(f"{name} do not fit the samples")
        if own["maps"] is not None and not (
            real(own["maps"]) and own["maps"].ndim == 3 and len(own["maps"]) == shape[0]
        ):
            raise ValueError("maps do not fit the classes")
        if own["style"] not in STYLES or not isinstance(own["unit"], str):
            raise ValueError("it is drawn in no known style")
        if not bool((own["sizes"] > 0).all()):
            raise ValueError("a class has no samples")
        return cls(**own, **made)

    def __repr__(self) -> str:
        order = torch.argsort(self.mean_abs, descending=True, stable=True).tolist()[:10] if self.names else []
        lines = [f"Summary of {int(self.sizes.sum()):,} samples by composite {self.composite.name!r}"]
        lines += [
            f"  {self.names[f]}: mean |R| {float(self.mean_abs[f]):.3g}, mean R {float(self.mean[f]):+.3g}"
            for f in order
        ]
        return "\n".join(lines)


def sums(values: Tensor, label: Tensor, classes: int) -> dict[str, Tensor]:
    """Sizes, counts and sums per class of relevance (N, F)."""
    values = values.double()
    sizes = torch.bincount(label, minlength=classes).double()

    def per_class(t: Tensor) -> Tensor:
        return torch.zeros(classes, t.shape[1], dtype=torch.float64).index_add_(0, label, t)

    return {
        "sizes": sizes,
        "count": per_class(torch.ones_like(values)),
        "total": per_class(values),
        "total_abs": per_class(values.abs()),
    }


def labelled(subjects: Sequence[str]) -> tuple[list[str], Tensor]:
    """The classes, the most frequent first, and the class of each sample."""
    counts: dict[str, int] = {}
    for subject in subjects:
        counts[subject] = counts.get(subject, 0) + 1
    classes = sorted(counts, key=lambda name: (-counts[name], name))
    at = {name: k for k, name in enumerate(classes)}
    return classes, torch.tensor([at[subject] for subject in subjects], dtype=torch.int64)
