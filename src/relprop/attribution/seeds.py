"""Where relevance starts: at the scores of a target, each of which is handed some relevance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.engine.recorder import Edge, edge_of
from relprop.errors import TargetError
from relprop.numerics import known, nonzero
from relprop.trees import leaves


@dataclass(frozen=True)
class Start:
    """Where the relevance of one target starts.

    Attributes:
        score: one score per sample, (N,), with its graph.
        target: the target as it was understood.
        edge: the place of the scores in the graph.
        handed: the relevance handed to each score, (N,).
        gradient: `G` at the scores, (N,): relevance divided by score.
    """

    score: Tensor
    target: Any
    edge: Edge
    handed: Tensor
    gradient: Tensor

    @classmethod
    def of(cls, score: Tensor, target: Any, seed: Any) -> Start:
        """The start of one target's relevance.

        Raises:
            TargetError: the seed is neither a number nor one number per sample.
        """
        flat = score.reshape(-1)
        handed = handed_out(flat, seed)
        gradient = torch.ones_like(flat) if seed is None else handed / nonzero(flat.detach())
        return cls(flat, target, edge_of(score), handed, gradient)


def handed_out(score: Tensor, seed: Any) -> Tensor:
    """The relevance that each score is handed.

    Raises:
        TargetError: the seed is neither a number nor one number per sample.
    """
    if seed is None:
        return score.detach()
    try:
        handed = torch.as_tensor(seed, dtype=score.dtype, device=score.device)
    except (TypeError, ValueError, RuntimeError):
        raise TargetError(f"seed must be a number, or a tensor with one per sample; got {seed!r}.") from None
    if not known(torch.isfinite(handed).all(), True):
        raise TargetError(f"seed must be finite; got {seed!r}.")
    if handed.ndim > 1 or (handed.ndim == 1 and handed.shape[0] != score.shape[0]):
        raise TargetError(
            f"seed must be a number or one per sample, shape ({score.shape[0]},); got {tuple(handed.shape)}."
        )
    return handed.expand_as(score).clone()


def check_batch(score: Tensor, inputs: Any, output: Any) -> None:
    """Refuses scores that are not one per sample.

    Raises:
        TargetError: the number of scores is another than that of samples.
    """
    sizes = {t.shape[0] for _, t in leaves(inputs) if isinstance(t, Tensor) and t.ndim}
    if score.ndim == 1 and sizes and score.shape[0] not in sizes and not (len(sizes) > 1 and score.shape[0] == 1):
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise TargetError(
            f"the output of shape {shape} gives {score.shape[0]} scores for a batch of {max(sizes)} samples: its first axis "
            "is not the batch. Pick one score per sample with a callable target, or a single number with "
            "target=lambda output: output[i, j]."
        )
