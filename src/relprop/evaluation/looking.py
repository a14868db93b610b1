"""What can be said of maps by looking at them: how complex they are, how class-specific, and whether they add up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from relprop.attribution.attribute import attribute
from relprop.errors import InputError
from relprop.evaluation.metric import Metric, Running, SampleWork
from relprop.evaluation.paired_statistics import spearman
from relprop.evaluation.randomising import entropy
from relprop.evaluation.score_columns import Column
from relprop.trees import leaves


@dataclass(frozen=True)
class Complexity(Metric):
    """Entropy, Gini coefficient, and the number of units above a share of the largest (effective complexity).

    A map that is simple need not be faithful: these rank nothing.

    Args:
        share: of the largest relevance; units below it do not count.

    References:
        Bhatt et al. 2020, "Evaluating and aggregating feature-based model explanations", IJCAI.
        Chalasani et al. 2020, "Concise explanations of neural networks using adversarial training", ICML.
        Nguyen and Martínez 2020, "On quantitative aspects of model interpretability".
    """

    name: ClassVar[str] = "complexity"

    share: float = 0.01

    def check(self, work: SampleWork) -> None:
        """Refuses a share that is none."""
        if not 0 <= self.share < 1:
            raise InputError(f"share lies between 0 and 1; got {self.share!r}.")

    def run(self, work: SampleWork) -> Running:
        """Three numbers for each method."""
        yield []
        sizes = work.relevance.abs()
        largest = sizes.amax(2, keepdim=True)
        effective = ((sizes > self.share * largest) & work.units.present(work.samples)).sum(2).double()
        spread = torch.stack([gini(sizes[:, n, :count]) for n, count in enumerate(work.counts.tolist())], 1)
        found = {"entropy": entropy(sizes), "gini": spread, "effective_complexity": effective}
        return [Column(self.name, score, values.cpu(), 0) for score, values in found.items()]


def gini(sizes: Tensor) -> Tensor:
    """The Gini coefficient along the last axis; NaN where all are 0."""
    n = sizes.shape[-1]
    ordered = sizes.double().sort(dim=-1).values
    weights = 2 * torch.arange(1, n + 1, device=sizes.device, dtype=torch.float64) - n - 1
    total = ordered.sum(-1)
    return torch.where(total > 0, (ordered * weights).sum(-1) / (n * total), float("nan"))


@dataclass(frozen=True)
class ClassContrast(Metric):
    """The rank correlation of the maps of two classes, the target and the likeliest other one.

    Beside it is that of the gradients of the two logits: a method that is more alike than the gradients shows the picture
    rather than the class.
    """

    name: ClassVar[str] = "class_contrast"

    def check(self, work: SampleWork) -> None:
        """Refuses targets that are not classes."""
        targets = work.subject.targets(range(work.samples))
        listed = targets if isinstance(targets, list) else [targets]
        if not all(isinstance(one, int) for one in listed) or not work.subject.main.is_floating_point():
            raise InputError("class_contrast needs one class per sample, and inputs that are numbers.")

    def run(self, work: SampleWork) -> Running:
        """Two numbers for each method."""
        yield []
        subject, samples = work.subject, list(range(work.samples))
        targets = subject.targets(samples)
        own = torch.tensor(targets if isinstance(targets, list) else [targets] * work.samples)
        outputs = torch.cat(
            list(work.size.batches(work.samples, lambda a, b: subject.output(subject.rows(torch.arange(a, b, device=subject.main.device))).cpu()))
        )  # fmt: skip
        if outputs.ndim != 2 or outputs.shape[1] < 2:
            raise InputError("class_contrast needs an output of at least two classes, (N, classes).")
        other = outputs.double().scatter(1, own[:, None], float("-inf")).argmax(1).tolist()
        alike, gradients = work.empty(), work.empty()
        counts = work.counts.tolist()
        slopes = []
        for classes in (own.tolist(), other):
            found = [
                attribute(subject.model, subject.alone(n), classes[n], composite="gradient", select=subject.select,
                          forward_kwargs=subject.kwargs, strict=False)
                for n in samples
            ]  # fmt: skip
            rows = torch.cat([_leaf(one.values, subject.path) for one in found])
            slopes.append(work.units.gather(rows))
        for row, method in enumerate(work.methods):
            gradients[row] = torch.stack(
                [spearman(slopes[0][n, :c], slopes[1][n, :c]) for n, c in enumerate(counts)]
            ).cpu()
            if method.kind == "map":
                continue
            maps = work.units.gather(method.explain(subject, samples, work.seed, work.size, target=other))
            alike[row] = torch.stack(
                [spearman(work.relevance[row, n, :c], maps[n, :c]) for n, c in enumerate(counts)]
            ).cpu()
        return [
            Column(self.name, "class_correlation", alike, 0),
            Column(self.name, "class_correlation_of_gradients", gradients, 0),
        ]


def _leaf(tree: object, path: str) -> Tensor:
    return next(leaf for name, leaf in leaves(tree) if name == path)


@dataclass(frozen=True)
class Conservation(Metric):
    """Whether relevance adds up to the score, and, with a baseline, to the difference of the scores.

    `missing` is the share of the score that did not arrive at the inputs. `unexplained` is the share that the ledger
    does not account for either: 0 up to rounding for composites. `incompleteness` is the distance of the sum from the
    difference between the score and that of the method's baseline (its `baselines=`, else 0), as a share of it.

    References:
        Bach et al. 2015, PLoS ONE 10(7); Sundararajan et al. 2017, "Axiomatic attribution for deep networks", ICML.
    """

    name: ClassVar[str] = "conservation"

    def check(self, work: SampleWork) -> None:
        """Refuses scores that are not what is explained."""
        if work.subject.of != "logit":
            raise InputError("conservation compares relevance with the score that it explains: leave of= at 'logit'.")

    def run(self, work: SampleWork) -> Running:
        """Three numbers for each method; NaN where they have no meaning."""
        yield []
        score = work.subject.score
        missing, unexplained, incomplete = work.empty(), work.empty(), work.empty()
        for row, (method, found) in enumerate(zip(work.methods, work.maps, strict=True)):
            if method.free:
                continue
            total = found.flatten(1).sum(1).cpu()
            missing[row] = (score - total) / score
            if method.kind == "composite":
                unexplained[row] = self._unexplained(work, row)
            baseline = method.options.get("baselines", 0.0 if method.kind == "captum" else None)
            if baseline is not None and (ends := _scores_at(work, baseline)) is not None:
                gap = score - ends
                incomplete[row] = ((total - gap) / gap).abs()
        return [
            Column(self.name, "missing", missing, 0),
            Column(self.name, "unexplained", unexplained, 0),
            Column(self.name, "incompleteness", incomplete, -1),
        ]

    def _unexplained(self, work: SampleWork, row: int) -> Tensor:
        subject, method = work.subject, work.methods[row]
        values = []
        for n in range(work.samples):
            found = attribute(
                subject.model, subject.alone(n), subject.targets([n]), composite=method.given, select=subject.select,
                forward_kwargs=subject.kwargs, ledger=True, **method.options,
            )  # fmt: skip
            kept = sum(float(amount[0]) for amount in found.ledger.values())
            values.append((float(found.residual[0]) - kept) / float(found.score[0]))
        return torch.tensor(values, dtype=torch.float64).abs()


def _scores_at(work: SampleWork, baseline: object) -> Tensor | None:
    """The scores of a baseline, a number or one tensor for all or per sample; None for any other, such as several."""
    main, subject = work.subject.main, work.subject
    start = (
        baseline
        if isinstance(baseline, Tensor)
        else torch.tensor(baseline)
        if isinstance(baseline, (int, float))
        else None
    )
    if start is None or not main.is_floating_point() or (start.ndim and len(start) not in (1, len(main))):
        return None
    start = start.to(main).expand_as(main)

    def some(a: int, b: int) -> Tensor:
        rows = torch.arange(a, b, device=main.device)
        return subject.scores(subject.rows(rows, start[a:b]), rows).cpu()

    return torch.cat(list(work.size.batches(work.samples, some)))
