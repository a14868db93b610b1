"""Composites for other toolkits, and metrics of Quantus here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from relprop.attribution.attribute import attribute
from relprop.composites import Composite
from relprop.errors import InputError
from relprop.evaluation.metric import Metric, Running, SampleWork
from relprop.evaluation.score_columns import Column


def as_quantus(composite: Composite | str = "auto", **options: Any) -> Callable[..., Any]:
    """An `explain_func` for Quantus: arrays in, arrays of relevance out.

    Args:
        composite: the rules.
        **options: keyword arguments of `relprop.attribute`.
    """

    def explain(model: Any, inputs: Any, targets: Any, **kwargs: Any) -> Any:
        """Relevance of `inputs`, an array; Quantus also passes options, which are not used."""
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        x = torch.as_tensor(inputs, dtype=dtype, device=device)
        classes = torch.as_tensor(targets).reshape(-1).tolist()
        return attribute(model, x, classes, composite=composite, **options).values.cpu().numpy()

    return explain


@dataclass(frozen=True)
class Attributor:
    """A composite with the interface of captum's attribution methods."""

    model: Any
    composite: Composite | str = "auto"

    def attribute(self, inputs: Any, target: Any = None, additional_forward_args: Any = None, **options: Any) -> Any:
        """The relevance of the inputs, in their structure.

        Args:
            inputs: as `relprop.attribute` takes them.
            target: an int, a tensor or list with one per sample, or a tuple.
            additional_forward_args: what the model takes behind its inputs, one value or a tuple of them.
            **options: keyword arguments of `relprop.attribute`.
        """
        if additional_forward_args is not None:
            several = isinstance(additional_forward_args, tuple)
            options["forward_args"] = additional_forward_args if several else (additional_forward_args,)
        return attribute(self.model, inputs, target, composite=self.composite, **options).values


def attributor(model: Any, composite: Composite | str = "auto") -> Attributor:
    """An object with captum's `.attribute(inputs, target=)` for any composite."""
    return Attributor(model, composite)


@dataclass(frozen=True)
class FromQuantus(Metric):
    """A metric of Quantus: its numbers for each method's finished maps.

    Args:
        metric: an instance of one of Quantus' metrics.
        better: 1 if more is better, -1 if less is, 0 if it ranks nothing.
        options: keyword arguments of its call.
    """

    name: ClassVar[str] = "quantus"

    metric: Any
    better: int = 0
    options: tuple[tuple[str, Any], ...] = ()

    def check(self, work: SampleWork) -> None:
        """Refuses what Quantus cannot take: several inputs, and targets that are not classes."""
        targets = work.subject.targets(range(work.samples))
        if not isinstance(work.subject.inputs, Tensor) or not (
            isinstance(targets, int) or (isinstance(targets, list) and all(isinstance(t, int) for t in targets))
        ):
            raise InputError("metrics of Quantus take a single input and one class per sample.")

    def run(self, work: SampleWork) -> Running:
        """One number per method and sample."""
        yield []
        subject, values = work.subject, work.empty()
        targets = subject.targets(range(work.samples))
        classes = torch.tensor(targets if isinstance(targets, list) else [targets] * work.samples)
        for row, found in enumerate(work.maps):
            answer = self.metric(
                model=subject.model, x_batch=subject.main.cpu().numpy(), y_batch=classes.numpy(),
                a_batch=found.cpu().numpy(), **dict(self.options),
            )  # fmt: skip
            numbers = torch.as_tensor(answer, dtype=torch.float64)
            values[row] = numbers if numbers.ndim == 1 else numbers.reshape(work.samples, -1).mean(1)
        return [Column("quantus", type(self.metric).__name__, values, self.better)]


def from_quantus(metric: Any, better: int = 0, **options: Any) -> FromQuantus:
    """A metric of Quantus as a metric here.

    Args:
        metric: an instance of one of Quantus' metrics.
        better: 1 if more is better, -1 if less is, 0 if it ranks nothing.
        **options: keyword arguments of its call, such as `softmax=False`.
    """
    return FromQuantus(metric, better, tuple(options.items()))
