"""Checks of what a folder holds of an evaluation: it may come from anyone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from relprop.evaluation.score_columns import Column, Cost
from relprop.results.files.checks import holds


def restored_columns(found: Any, shape: tuple[int, int]) -> list[Column]:
    """The columns of an evaluation of so many methods and samples.

    Raises:
        ValueError: this is not such content.
    """
    types = {"metric": str, "score": str, "replacement": str, "better": int, "values": Tensor}
    if not isinstance(found, list) or not found:
        raise ValueError("it has no columns")
    made = []
    for each in found:
        if not isinstance(each, dict) or not holds(each, types) or each["values"].shape != shape:
            raise ValueError("one of its columns is not described")
        curve, at = each.get("curve"), each.get("at")
        if curve is not None and not (
            isinstance(curve, Tensor) and curve.ndim == 3 and curve.shape[:2] == shape
            and isinstance(at, Tensor) and at.shape == curve.shape[2:]
        ):  # fmt: skip
            raise ValueError("one of its curves does not fit")
        made.append(
            Column(
                each["metric"], each["score"], each["values"], each["better"], each["replacement"], curve, at
            )
        )  # fmt: skip
    return made


def restored_cost(found: Any, methods: Sequence[str]) -> dict[str, Cost]:
    """The costs of these methods.

    Raises:
        ValueError: this is not such content.
    """
    if not isinstance(found, dict) or set(found) != set(methods):
        raise ValueError("its costs do not fit its methods")
    for pair in found.values():
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(one, (int, float)) for one in pair):
            raise ValueError("a cost is not two numbers")
    return {name: Cost(float(pair[0]), float(pair[1])) for name, pair in found.items()}
