"""What a result must say of itself: inputs that were cut off, rows that are no samples, numbers that were drawn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.trees import leaves
from relprop.engine import Run
from relprop.engine.chance import undisturbed
from relprop.engine.cuts import Cut, part
from relprop.errors import RelpropWarning
from relprop.torch_private.parts import outside

EXCHANGED = (
    "the rows of the inputs are no independent samples: the relevance of a row comes from the scores of other rows, too. "
    "values is the sum of the explanations of all scores; score and residual are of each score alone. To explain one, "
    "make it the only one, as with target=lambda output: output[3, 1]."
)


def drawn(again: Callable[[], Any], output: Any, run: Run, devices: set[torch.device]) -> list[str]:
    """Whether a model that drew random numbers answers otherwise the second time; the generators are left where they were.

    Args:
        again: runs the model once more, and returns what `output` is.
        output: what it returned the first time.
        run: the run, with the generators that were seen.
        devices: where the inputs are.
    """
    with undisturbed(devices, run.generators.values()), torch.no_grad():
        try:
            second = again()
        except Exception:  # such as a cache that is full: nothing can be said
            return []
    pairs = [
        (a, b)
        for (_, a), (_, b) in zip(leaves(output), leaves(second), strict=False)
        if isinstance(a, Tensor) and isinstance(b, Tensor)
    ]
    if all(a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs):
        return []
    return [
        "the model draws random numbers, and a second forward pass gave another output: this explains the one draw that "
        "was made. Call torch.manual_seed before it for the same draw again, or average over several calls."
    ]


def unreached(
    inputs: Any, numbers: Sequence[int], cuts: list[tuple[Cut, list[Tensor | None]]], gradients: Sequence[Tensor | None],
    values: Sequence[Tensor],
) -> list[str]:  # fmt: skip
    """The inputs and parts of inputs that are cut off from the score.

    Args:
        inputs: of the model.
        numbers: which of them, flattened, carry relevance.
        cuts: the cuts behind which nothing leads to the scores, and the entries of these inputs before them.
        gradients: of these inputs.
        values: the relevance of all inputs, flattened.
    """
    paths = [path for path, _ in leaves(inputs)]
    said: dict[str, list[str]] = {}
    for place, number in enumerate(numbers):
        g, value = gradients[place], values[number]
        for cut, entries in cuts:
            before = entries[place]
            if before is None or not bool(before.any()):
                continue
            silent = (g is None or not bool(g[before].any())) and not bool(value[before].any())
            if silent:
                what = said.setdefault(part(paths[number], before), [])
                what += [cut.what] if cut.what not in what else []
    return [
        f"{what} has relevance 0, and may matter all the same: {' and '.join(where[:3])} cut it off from the score. "
        "Ids that are looked up belong into an input of integers; without the cut, or explained from behind it, it gets a "
        "share."
        for what, where in said.items()
    ]


def warn(notices: list[str]) -> None:
    """Says it to whom calls: outside of this package."""
    for notice in notices:
        warnings.warn(notice, RelpropWarning, stacklevel=outside("relprop"))
