"""Notices that a result carries: on inputs that were cut off, rows that are not samples, and random numbers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from relprop.engine import Run
from relprop.engine.chance import undisturbed
from relprop.engine.cuts import Cut, part
from relprop.errors import RelpropWarning
from relprop.numerics import tiny
from relprop.torch_private.finding import outside
from relprop.trees import leaves

_TRIES = 4
"""How often a model that drew random numbers must repeat its output to count as deterministic.

A draw with few outcomes may repeat by chance.
"""
EXCHANGED = (
    "the rows of the inputs are not independent samples: the relevance of a row comes from the scores of other rows, too. "
    "values is the sum of the explanations of all scores; score and residual are of each score alone. To explain one, "
    "make it the only one, as with target=lambda output: output[3, 1]."
)


def drawn(again: Callable[[], Any], output: Any, run: Run, devices: set[torch.device]) -> list[str]:
    """The notice on a model that draws random numbers, if they change its output. The generators stay where they were.

    Args:
        again: runs the model once more and returns its output.
        output: the output of the first time.
        run: the run, which holds the generators that the model was seen to draw from.
        devices: the devices of the inputs.
    """
    with undisturbed(devices, run.chance.generators.values()), torch.no_grad():
        try:
            same = all(_alike(output, again()) for _ in range(_TRIES))
        except Exception:  # such as that of a full cache: then nothing is known
            return []
    if same:
        return []
    return [
        "the model draws random numbers, and a second forward pass gave another output: this explains the one draw that "
        "was made. Call torch.manual_seed before it for the same draw again, or average over several calls."
    ]


def _alike(first: Any, second: Any) -> bool:
    """Whether two outputs differ by rounding at most: operations that a rule replaces may sum in another order."""
    pairs = zip(leaves(first), leaves(second), strict=False)
    return all(_same(a, b) for (_, a), (_, b) in pairs if isinstance(a, Tensor) and isinstance(b, Tensor))


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or not a.is_floating_point() or not a.numel():
        return torch.equal(a, b)
    eps = torch.finfo(a.dtype).eps
    a, b = a.detach().nan_to_num(), b.detach().nan_to_num()
    return bool((a - b).abs().amax() <= (100 if eps < 1e-5 else 4) * eps * a.abs().amax())


def exploded(values: Sequence[Tensor], largest: Sequence[float], handed: Tensor) -> list[str]:
    """The notice on relevance, of which the largest sizes are given, that is so large that a denominator must have been 0.

    `tiny` stands in for a zero. No network holds numbers as large as the square root of its reciprocal.
    """
    found = [(size, tiny(v.dtype)) for v, size in zip(values, largest, strict=True)]
    found = [(size, zero) for size, zero in found if zero < 1e-20]  # float16 has no number that small
    most = max((size * zero**0.5 for size, zero in found), default=0.0)
    if most <= 1.0 or most <= (whole := float(handed.abs().amax())):
        return []
    return [
        f"relevance grew to {max(found)[0]:.0e} where {whole:.0e} was handed out: a sum on the way, "
        "or the score itself, is exactly 0 by cancelling, and what was divided by it says nothing. Use a rule with a stabiliser, "
        "such as composite='epsilon'; the residual tells which samples are concerned."
    ]


def ran_again(run: Run) -> list[str]:
    """The notice on a first layer that runs several times, as in a loop over samples, under a rule for its first run."""
    acted = list(run.sites.placements.values())
    first, rule = next(((place, rule) for place, rule in acted if place.index == 0), (None, None))
    # A layer of its own: a larger module may call the same function with other weights.
    if first is None or not isinstance(getattr(first.module, "weight", None), Tensor) or not any(first.paths):
        return []
    others = [
        r for place, r in acted if place.index and place.module is first.module and place.function is first.function
    ]
    if all(r == rule for r in others):
        return []
    path = first.paths[0]
    return [
        f"module '{path}' is the first weighted layer and ran {len(others) + 1} times, as in a loop over samples or for two "
        f"pictures: {rule!r} acted on its first run alone. To have it act on all, name the layer by its path: "
        f"relprop.Composite({{relprop.path({path!r}): relprop.{rule!r}}}) | composite."
    ]


def unreached(
    inputs: Any, numbers: Sequence[int], cuts: list[tuple[Cut, list[Tensor | None]]], gradients: Sequence[Tensor | None],
    values: Sequence[Tensor],
) -> list[str]:  # fmt: skip
    """The notices on inputs, and parts of inputs, that are cut off from the score.

    Args:
        inputs: the inputs of the model.
        numbers: the numbers, in the flattened inputs, of those that carry relevance.
        cuts: each cut after which nothing leads to the scores, with the entries of these inputs that lead to it.
        gradients: the gradients of these inputs.
        values: the relevance of all inputs, flattened.
    """
    said: list[str] = []
    if not cuts:
        return said
    paths = [path for path, _ in leaves(inputs)]
    for place, number in enumerate(numbers):
        g, value = gradients[place], values[number]
        whole, where = torch.zeros_like(value, dtype=torch.bool), []
        for cut, entries in cuts:
            before = entries[place]
            if before is None or not bool(before.any()):
                continue
            # of a table, only the columns that nothing reached
            if cut.vague and cut.counts and g is not None and value.ndim == 2:
                columns = ((g == 0) & (value == 0)).all(0)
                if not bool(columns.all()):
                    before = before & columns
                    if not bool(before.any()):
                        continue
            if (g is None or not bool(g[before].any())) and not bool(value[before].any()):
                whole |= before
                where += [cut.what] if cut.what not in where else []
        if where:
            said.append(
                f"{part(paths[number], whole)} has relevance 0, and may matter all the same: {' and '.join(where[:3])} cut it "
                "off from the score. Ids that are looked up belong into an input of integers; without the cut, or explained "
                "from behind it, it gets a share."
            )
    return said


def warn(notices: Iterable[str]) -> None:
    """Issues notices as warnings at the first caller outside this package. `EXCHANGED` is left to the result."""
    for notice in dict.fromkeys(n for n in notices if n != EXCHANGED):
        warnings.warn(notice, RelpropWarning, stacklevel=outside("relprop"))
