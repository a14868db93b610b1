"""Whether relevance lies where the target is. It measures the object, and not what the model used of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.evaluation.metric import Metric, Running, SampleWork
from relprop.evaluation.score_columns import Column


@dataclass(frozen=True)
class Localisation(Metric):
    """Pointing game, relevance mass and relevance rank, beside what chance gets: the share of the mask.

    Of pictures and series, channels are summed first. Mass counts positive relevance only. Where several places are
    equally relevant, the mean over their orders is taken. An empty mask gives NaN.

    References:
        Zhang et al. 2018, "Top-down neural attention by excitation backprop", IJCV 126.
        Arras et al. 2022, "CLEVR-XAI: a benchmark dataset for the ground truth evaluation of neural network
        explanations", Information Fusion 81.
    """

    name: ClassVar[str] = "localisation"

    def check(self, work: SampleWork) -> None:
        """Refuses samples without a mask."""
        if work.truth is None:
            raise InputError("localisation needs truth=, a boolean tensor that marks where the target lies.")

    def run(self, work: SampleWork) -> Running:
        """Three numbers for each method, and chance."""
        yield []
        assert work.truth is not None
        main = work.subject.main
        channels = main.ndim > 2 and main.is_floating_point()
        mask = work.truth.any(1, keepdim=True) if channels else work.truth
        mask = mask.expand(
            len(main), *(1 if channels and axis == 1 else n for axis, n in enumerate(main.shape) if axis)
        )
        flat = mask.flatten(1)
        columns = {score: work.empty() for score in ("pointing", "mass", "rank", "chance")}
        for row, found in enumerate(work.maps):
            values = (found.sum(1, keepdim=True) if channels else found).expand(mask.shape).flatten(1)
            columns["pointing"][row] = pointing(values, flat).cpu()
            columns["mass"][row] = mass(values, flat).cpu()
            columns["rank"][row] = rank(values, flat).cpu()
            columns["chance"][row] = _given(flat, flat.double().mean(1)).cpu()
        return [Column(self.name, score, values, 0 if score == "chance" else 1) for score, values in columns.items()]


def pointing(values: Tensor, mask: Tensor) -> Tensor:
    """Whether the most relevant place lies in the mask; the share of them that does, if there are several."""
    most = values == values.amax(1, keepdim=True)
    return _given(mask, (most & mask).sum(1).double() / most.sum(1))


def mass(values: Tensor, mask: Tensor) -> Tensor:
    """The share of positive relevance that lies in the mask; NaN where there is none."""
    positive = values.double().clamp(min=0)
    total = positive.sum(1)
    return _given(mask, torch.where(total > 0, (positive * mask).sum(1) / total, float("nan")))


def rank(values: Tensor, mask: Tensor) -> Tensor:
    """The share of the K most relevant places that lies in the mask of K places."""
    size = mask.sum(1)
    ordered = values.sort(dim=1, descending=True).values
    least = ordered.gather(1, (size - 1).clamp(min=0)[:, None])
    above, equal = values > least, values == least
    room = (size - above.sum(1)).double()  # places for those that are equal to the K-th
    share = (equal & mask).sum(1) / equal.sum(1)
    return _given(mask, ((above & mask).sum(1) + room * share) / size.clamp(min=1))


def _given(mask: Tensor, values: Tensor) -> Tensor:
    return torch.where(mask.any(1), values, float("nan"))
