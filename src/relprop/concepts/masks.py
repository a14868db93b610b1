"""The importance of the parts of a network as a value: a ranking, and masks for pruning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.signatures import public


@dataclass(frozen=True)
class UnitImportance:
    """One unit with its importance.

    Attributes:
        layer: the path of its layer, or the name of its parameter.
        unit: its number; for weights, the place of the entry.
        importance: how much it mattered.
    """

    layer: str
    unit: int | tuple[int, ...]
    importance: float


@dataclass(frozen=True)
class ParameterCut:
    """What is set to 0 with the units of a layer: along one axis of a parameter, `size` entries for each unit."""

    parameter: str
    shape: tuple[int, ...]
    axis: int
    size: int = 1


@dataclass(frozen=True)
class Importance:
    """The importance of the parts of a network over a data set. Made by `relprop.importance`.

    Attributes:
        of: "channels", "neurons", "heads" or "weights".
        scores: for each layer the importance of its units, (U,); of weights, for each parameter that of its entries.
        samples: over how many samples.
        composite: the name of the composite.
        reduce: "sum" or "size".
        cuts: the parameters that belong to the units of each layer.
    """

    of: str
    scores: dict[str, Tensor]
    samples: int
    composite: str
    reduce: str
    cuts: dict[str, list[ParameterCut]] = field(default_factory=dict, repr=False)

    def ranking(self, most: int | None = None) -> list[UnitImportance]:
        """The units, the most important first.

        Raises:
            InputError: `most` is not a positive int.
        """
        if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
            raise InputError(f"most must be a positive int; got {most!r}.")
        every = torch.cat([scores.flatten() for scores in self.scores.values()])
        order = every.argsort(descending=True, stable=True)[:most].tolist()
        starts, names = [0], list(self.scores)
        for name in names:
            starts.append(starts[-1] + self.scores[name].numel())
        found = []
        for n in order:
            at = next(k for k in range(len(names)) if n < starts[k + 1])
            inside, shape = n - starts[at], self.scores[names[at]].shape
            place: Any = (
                inside if len(shape) == 1 else tuple(int(i) for i in torch.unravel_index(torch.tensor(inside), shape))
            )
            found.append(UnitImportance(names[at], place, float(every[n])))
        return found

    @public(".mask")
    def mask(self, share: float, *, each_layer: bool = False) -> dict[str, Tensor]:
        """Masks that leave out the least important share of the units, as `torch.nn.utils.prune` takes them.

        Args:
            share: the share of all units that goes, between 0 and 1. A unit of each layer stays in any case.
            each_layer: whether that share goes in each layer, rather than in all layers together.

        Returns:
            For each parameter, by name, a tensor of its shape with 0 where it is pruned. For channels and neurons these
            are the weights and biases that make them, and those of a BatchNorm behind; for heads, the columns of the
            projection behind. The model itself is not changed.

        Raises:
            InputError: the share is not between 0 and 1, or the projection behind the heads is not known.
        """
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < 1:
            raise InputError(f"share must be a number from 0 to below 1; got {share!r}.")
        kept = self._kept(share, each_layer)
        if self.of == "weights":
            return {name: stay.to(torch.float32) for name, stay in kept.items()}
        masks: dict[str, Tensor] = {}
        for path, stay in kept.items():
            if not self.cuts.get(path):
                raise InputError(
                    f"the projection behind {path!r} is not known, so its heads have no mask. Their importance is in scores."
                )
            for cut in self.cuts[path]:
                view = [1] * len(cut.shape)
                view[cut.axis] = -1
                along = stay.repeat_interleave(cut.size).to(torch.float32).reshape(view)
                mask = masks.get(cut.parameter, torch.ones(cut.shape))
                masks[cut.parameter] = mask * along
        return masks

    def _kept(self, share: float, each_layer: bool) -> dict[str, Tensor]:
        """Which units stay, by layer."""
        kept = {path: torch.ones_like(scores, dtype=torch.bool) for path, scores in self.scores.items()}
        groups = [[path] for path in kept] if each_layer else [list(kept)]
        for group in groups:
            every = torch.cat([self.scores[path].flatten() for path in group])
            # The best unit of each layer stays: without any, nothing would pass the layer.
            best, start = [], 0
            for path in group:
                best.append(start + int(self.scores[path].argmax()))
                start += self.scores[path].numel()
            ranked = every.clone()
            ranked[best] = torch.inf
            stay = torch.ones(len(every), dtype=torch.bool)
            go = min(int(share * len(every)), len(every) - len(best))
            stay[ranked.argsort(stable=True)[:go]] = False
            for path, part in zip(group, stay.split([self.scores[p].numel() for p in group]), strict=True):
                kept[path] = part.reshape(self.scores[path].shape)
        return kept

    def __repr__(self) -> str:
        count = sum(scores.numel() for scores in self.scores.values())
        lines = [f"Importance of {count} {self.of} over {self.samples} samples; {self.composite}"]
        if self.of != "weights":
            lines += [f"  {one.layer}, {one.unit}: {one.importance:.4g}" for one in self.ranking(5)]
        return "\n".join(lines)
