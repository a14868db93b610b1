"""Whether maps change when weights are randomised. It is a red flag if they do not; it ranks nothing."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from relprop.errors import InputError
from relprop.evaluation.generators import seed_of, seeded
from relprop.evaluation.metric import Metric, Running, SampleWork, positive
from relprop.evaluation.paired_statistics import pearson, spearman
from relprop.evaluation.score_columns import Column


@dataclass(frozen=True)
class Randomisation(Metric):
    """The correlation of maps before and after layers are randomised, one after the other, in a copy of the model.

    `mprt` is the mean over stages; the untouched map, whose correlation is 1, is left out. `emprt` is the rise of the
    map's entropy when all layers are randomised, as a share of what it was. Each layer has a seed of its own. With
    `smooth`, maps are means over noisy inputs (sMPRT).

    Args:
        order: "top_down" or "bottom_up".
        similarity: "spearman" or "pearson", over units.
        smooth: how many noisy inputs a map is the mean of; 1 takes the input itself.
        noise: the standard deviation of their noise, as a share of the range of each sample.

    References:
        Adebayo et al. 2018, "Sanity checks for saliency maps", NeurIPS.
        Hedström et al. 2023, "Sanity checks revisited: an exploration to repair the model parameter randomisation test".
        Binder et al. 2023, "Shortcomings of top-down randomization-based sanity checks", CVPR.
    """

    name: ClassVar[str] = "randomisation"

    order: str = "top_down"
    similarity: str = "spearman"
    smooth: int = 1
    noise: float = 0.1

    def check(self, work: SampleWork) -> None:
        """Refuses models without layers, and options that do not exist."""
        positive("smooth", self.smooth)
        if self.order not in ("top_down", "bottom_up"):
            raise InputError(f"order must be 'top_down' or 'bottom_up'; got {self.order!r}.")
        if self.similarity not in ("spearman", "pearson"):
            raise InputError(f"similarity must be 'spearman' or 'pearson'; got {self.similarity!r}.")
        if not isinstance(work.subject.model, nn.Module) or not layers_of(work.subject.model):
            raise InputError("randomisation needs a module with weights.")
        if self.smooth > 1 and not work.subject.main.is_floating_point():
            raise InputError("smooth= adds noise to inputs, which ids cannot have.")

    def run(self, work: SampleWork) -> Running:
        """The mean correlation, its curve over stages, and the rise of entropy."""
        yield []
        names = layers_of(work.subject.model)
        names = names[::-1] if self.order == "top_down" else names
        whole = copy.deepcopy(work.subject.model)
        alike = torch.full((len(work.methods), work.samples, len(names)), float("nan"), dtype=torch.float64)
        before = [self._maps(work, m, None) for m in range(len(work.methods))]
        last: list[Tensor | None] = [None] * len(work.methods)
        compare = spearman if self.similarity == "spearman" else pearson
        for stage, name in enumerate(names):
            randomise(whole, name, work.seed)
            for m, own in enumerate(before):
                if own is None:
                    continue
                after = self._maps(work, m, whole)
                if after is not None:
                    alike[m, :, stage] = _alike(work, compare, own, after)
                    last[m] = after
        rise = work.empty()
        for m, (own, after) in enumerate(zip(before, last, strict=True)):
            if own is not None and after is not None:
                start = entropy(own)
                rise[m] = torch.where(start > 0, (entropy(after) - start) / start, float("nan")).cpu()
        smooth, order = "s" * (self.smooth > 1), "_bottom_up" * (self.order == "bottom_up")
        stages = torch.arange(1, len(names) + 1, dtype=torch.float64) / len(names)
        return [
            Column(self.name, f"{smooth}mprt{order}", alike.nanmean(2), 0, "", alike, stages),
            Column(self.name, f"e{smooth}mprt{order}", rise, 0),
        ]

    def _maps(self, work: SampleWork, m: int, model: Any) -> Tensor | None:
        """The relevance of units, (N, U), perhaps by another model; None where that cannot be had."""
        method = work.methods[m]
        if method.kind == "map":
            return None
        if model is not None and not method.free:
            method = method.of_model(model)
            if method is None:
                caution = f"{work.methods[m].name!r} is tied to its model, so that randomisation says nothing of it."
                if caution not in work.cautions:
                    work.cautions.append(caution)
                return None
        changed = {"model": model} if model is not None and not method.free else {}
        samples = list(range(work.samples))
        if self.smooth == 1:
            return work.units.gather(method.explain(work.subject, samples, work.seed, work.size, **changed))
        total = None
        for draw in range(self.smooth):
            main = torch.stack([self._noisy(work, n, draw) for n in samples])
            found = work.units.gather(method.explain(work.subject, samples, work.seed, work.size, main=main, **changed))
            total = found if total is None else total + found
        assert total is not None
        return total / self.smooth

    def _noisy(self, work: SampleWork, n: int, draw: int) -> Tensor:
        x = work.subject.main[n]
        chance = work.generator(f"{self.name} {draw}", n)
        scale = self.noise * float(x.max() - x.min())
        return x + (scale * torch.randn(x.shape, generator=chance, dtype=torch.float64)).to(x)


def layers_of(model: nn.Module) -> list[str]:
    """The modules that hold weights themselves, in the order in which the model names them."""
    return [name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))]


def randomise(model: nn.Module, name: str, seed: int) -> None:
    """Gives a layer new weights, as at its start: by its own `reset_parameters`, else normal with its own spread."""
    module = model.get_submodule(name)
    with seeded(seed_of(seed, f"randomise {name}")), torch.no_grad():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset) and not _normalises(module):
            reset()
            return
        for weight in module.parameters(recurse=False):
            spread = float(weight.std()) if weight.numel() > 1 else float(weight.abs().mean())
            weight.copy_(torch.randn_like(weight) * (spread or 1.0) + weight.mean())


def _normalises(module: nn.Module) -> bool:
    """Whether it would be reset to 1 and 0, which is not a randomisation."""
    return isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)) or hasattr(module, "running_mean")


def entropy(values: Tensor) -> Tensor:
    """The entropy of absolute values as shares, along the last axis; NaN where all are 0."""
    sizes = values.double().abs()
    total = sizes.sum(-1, keepdim=True)
    shares = sizes / total
    return torch.where(total[..., 0] > 0, -(torch.xlogy(shares, shares)).nan_to_num(0).sum(-1), float("nan"))


def _alike(work: SampleWork, compare: Any, a: Tensor, b: Tensor) -> Tensor:
    counts = work.counts.tolist()
    return torch.stack([compare(a[n, : counts[n]], b[n, : counts[n]]) for n in range(work.samples)]).cpu()
