"""Prototypes: typical ways in which hidden units decide for a class, and samples that are like none of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from relprop.concepts.index import Index
from relprop.concepts.indexing import index as make
from relprop.concepts.mixtures import Mixture, fit
from relprop.concepts.prototypes_drawn import drawing
from relprop.errors import InputError
from relprop.results.files.drawings import save_drawing
from relprop.signatures import public

EACH = 10
"""How many samples a prototype needs."""


@dataclass(frozen=True)
class Deviation:
    """A unit that has another share in a sample than in its prototype.

    Attributes:
        unit: its number.
        share: its share in the sample.
        usual: its share in the prototype.
        deviations: by how many standard deviations they differ.
    """

    unit: int
    share: float
    usual: float
    deviations: float


@dataclass(frozen=True)
class Judged:
    """A sample as the prototypes of its class see it.

    Attributes:
        sample: its number.
        label: its class.
        prototype: the number of the prototype that is nearest.
        log_likelihood: how usual the sample is; the lower, the stranger.
        units: the units that deviate most from the prototype.
    """

    sample: int
    label: int
    prototype: int
    log_likelihood: float
    units: list[Deviation] = field(default_factory=list)


@dataclass(frozen=True)
class Prototype:
    """A typical way to decide for a class.

    Attributes:
        label: the class.
        number: its number in the class.
        weight: its share of the samples.
        samples: the samples that are nearest, the nearest first.
        units: the units with the largest share, and that share.
    """

    label: int
    number: int
    weight: float
    samples: list[int]
    units: list[tuple[int, float]]


@dataclass(frozen=True)
class Prototypes:
    """Mixtures of Gaussians of the units' shares, one for each class (Dreyer et al. 2024).

    A sample's vector holds the share of each unit in the sum of the sizes of relevance, or of activation, in one layer.

    Attributes:
        index: the index that they were made of.
        layer: the path of the layer.
        of: "relevance" or "activation".
        mixtures: the mixture of each class.
    """

    index: Index = field(repr=False)
    layer: str
    of: str
    mixtures: dict[int, Mixture] = field(repr=False)

    @public(".of_class")
    def of_class(self, label: int, samples: int = 4, units: int = 4) -> list[Prototype]:
        """The prototypes of a class, the most frequent first.

        Raises:
            InputError: there are none of that class.
        """
        mixture, vectors, rows = self._mixture(label), *self._vectors(label)
        logs = mixture.components(vectors)
        near = logs.argmax(1)
        found = []
        for k in mixture.weights.argsort(descending=True, stable=True).tolist():
            distance = (
                torch.linalg.solve_triangular(mixture.factors[k], (vectors - mixture.means[k]).T, upper=False)
                .square()
                .sum(0)
            )
            distance = torch.where(near == k, distance, torch.inf)
            order = [n for n in distance.argsort(stable=True).tolist() if bool(torch.isfinite(distance[n]))]
            mean = mixture.means[k]
            best = mean.abs().argsort(descending=True, stable=True)[:units].tolist()
            found.append(
                Prototype(
                    label,
                    k,
                    float(mixture.weights[k]),
                    rows[order[:samples]].tolist(),
                    [(u, float(mean[u])) for u in best],
                )
            )
        return found

    @public(".judge")
    def judge(self, inputs: Tensor, labels: Sequence[int] | None = None, units: int = 4) -> list[Judged]:
        """How usual new samples are. The index must have its model at hand.

        Args:
            inputs: samples, (N, ...).
            labels: their classes; None for those that the model predicts.
            units: how many units that deviate are named.

        Raises:
            InputError: the index has no model, or there are no prototypes of a class.
        """
        if self.index.model is None:
            raise InputError("judging new samples needs the model: relprop.load_index(folder, model).")
        data = list(inputs) if labels is None else list(zip(inputs, labels, strict=True))
        made = make(
            self.index.model, data, layers=[self.layer], keep=1, vectors=True, **self.index.options,
            axes={self.layer: self.index.layers[self.layer].axis}, splices=list(self.index.splices.values()),
        )  # fmt: skip
        vectors, layer = shares(made.layers[self.layer], self.of), made.layers[self.layer]
        return [self._judged(n, int(label), vectors[n], units) for n, label in enumerate(_labels(layer)[0].tolist())]

    @public(".outliers")
    def outliers(self, most: int = 10, label: int | None = None, units: int = 4) -> list[Judged]:
        """The samples of the index that are least like the prototypes of their class, the strangest first.

        Log-likelihoods of classes differ in scale, so they are compared as deviations from the median of the class.

        Raises:
            InputError: there are no prototypes of that class.
        """
        chosen = list(self.mixtures) if label is None else [label]
        scored: list[tuple[float, int, int, Tensor]] = []
        for one in chosen:
            mixture = self._mixture(one)
            vectors, rows = self._vectors(one, every=True)
            logs = mixture.log_likelihood(vectors)
            median = logs.median()
            scale = float((logs - median).abs().median()) or 1.0
            scored += [(float((logs[n] - median) / scale), int(rows[n]), one, vectors[n]) for n in range(len(rows))]
        scored.sort(key=lambda entry: entry[:2])
        return [self._judged(row, one, vector, units) for _, row, one, vector in scored[:most]]

    def log_likelihoods(self) -> Tensor:
        """The log-likelihood of each sample of the index under the mixture of its class, (N,); NaN without one."""
        layer = self.index.layers[self.layer]
        found = torch.full((len(_labels(layer)[0]),), torch.nan, dtype=torch.float64)
        for label, mixture in self.mixtures.items():
            vectors, rows = self._vectors(label, every=True)
            found[self._places(rows)] = mixture.log_likelihood(vectors)
        return found

    def _places(self, rows: Tensor) -> Tensor:
        """Where samples stand in what the index keeps of each."""
        every = _numbers(self.index)
        return torch.searchsorted(every, rows)

    def _judged(self, sample: int, label: int, vector: Tensor, most: int) -> Judged:
        mixture = self._mixture(label)
        logs = mixture.components(vector[None])[0]
        k = int(logs.argmax())
        spread = mixture.covariances()[k].diagonal().sqrt()
        z = (vector - mixture.means[k]) / spread
        best = z.abs().argsort(descending=True, stable=True)[:most].tolist()
        units = [Deviation(u, float(vector[u]), float(mixture.means[k, u]), float(z[u])) for u in best]
        return Judged(sample, label, k, float(logs.logsumexp(0)), units)

    def _mixture(self, label: int) -> Mixture:
        if label not in self.mixtures:
            raise InputError(
                f"there are no prototypes of class {label!r}; there are of: {', '.join(map(str, self.mixtures))}."
            )
        return self.mixtures[label]

    def _vectors(self, label: int, every: bool = False) -> tuple[Tensor, Tensor]:
        """The vectors of a class and the numbers of their samples: those that were learned from, or all."""
        layer = self.index.layers[self.layer]
        classes, predicted = _labels(layer)
        chosen = classes == label
        if not every and bool((chosen & (predicted == label)).any()):
            chosen = chosen & (predicted == label)
        return shares(layer, self.of)[chosen], _numbers(self.index)[chosen]

    def drawing(self, label: int, outliers: int = 3) -> Any:
        """The prototypes of a class with their nearest samples, and below them its outliers.

        Raises:
            InputError: the index has no data at hand, or the samples are no pictures.
        """
        return drawing(self, label, outliers)

    def show(self, label: int) -> None:
        """Opens a picture of the prototypes of a class."""
        self.drawing(label).to_image(2.0).show()

    @public(".save")
    def save(self, path: str | PathLike[str], label: int) -> None:
        """Writes the drawing of a class as `.svg`, `.png` or `.pdf`.

        Raises:
            InputError: the suffix is none of these.
        """
        save_drawing(self.drawing(label), path, "prototypes are")


def shares(layer: Any, of: str) -> Tensor:
    """The share of each unit in the sum of the sizes, (N, U), float64."""
    kept = (layer.vectors if of == "relevance" else layer.activations).double()
    share: Tensor = kept / kept.abs().sum(1, keepdim=True).clamp(min=1e-300)
    return share


def _labels(layer: Any) -> tuple[Tensor, Tensor]:
    """The class that was explained and the one that is predicted, for each sample."""
    return layer.classes, layer.predicted


def _numbers(index: Any) -> Tensor:
    """The numbers of the samples that the index has seen, in order."""
    return torch.cat([torch.arange(start, stop) for start, stop in index.about["rows"]])


@public("relprop.prototypes")
def prototypes(
    index: Index, layer: str, *, count: int = 4, of: str = "relevance", correct: bool = True, seed: int = 0
) -> Prototypes:
    """Typical ways in which the units of a layer decide for each class, and the samples that are like none of them.

    Args:
        index: an index that was made with `vectors=True`.
        layer: the path of one of its layers.
        count: the most prototypes of a class; fewer where a class has less than ten samples for each.
        of: "relevance" or "activation" of the units.
        correct: whether to learn from samples alone whose class the model predicts.
        seed: where the search begins.

    Raises:
        InputError: there is no such layer, the index has no vectors, or no class has two samples.

    References:
        Dreyer et al. 2024, "Understanding the (extra-)ordinary: validating deep model decisions with prototypical
        concept-based explanations".
    """
    if not isinstance(index, Index):
        raise InputError(
            f"prototypes are made of an index, relprop.index(..., vectors=True); got {type(index).__name__}."
        )
    if layer not in index.layers:
        raise InputError(f"the index has no layer {layer!r}. It has: {', '.join(index.layers)}.")
    if of not in ("relevance", "activation"):
        raise InputError(f"of must be 'relevance' or 'activation'; got {of!r}.")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise InputError(f"count must be a positive int; got {count!r}.")
    kept = index.layers[layer]
    if kept.vectors is None or kept.activations is None:
        raise InputError("the index keeps no vectors of single samples: make it with relprop.index(..., vectors=True).")
    vectors = shares(kept, of)
    if not bool(torch.isfinite(vectors).all()):
        raise InputError("a vector is not finite: relevance was too large for float16.")
    mixtures: dict[int, Mixture] = {}
    classes, predicted = _labels(kept)
    for label in sorted(set(classes.tolist())):
        chosen = classes == label
        chosen = chosen & (predicted == label) if correct else chosen
        some = vectors[chosen]
        if len(some) >= 2:
            mixtures[label] = fit(some, max(1, min(count, len(some) // EACH)), seed)[0]
    if not mixtures:
        raise InputError("no class has two samples that the model gets right; correct=False takes all.")
    return Prototypes(index, layer, of, mixtures)
