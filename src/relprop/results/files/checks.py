"""Checks of a folder's content, which may come from anyone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeGuard

import torch
from torch import Tensor

from relprop.trees import leaves


def require(content: dict[str, Any], names: Iterable[str]) -> None:
    """Refuses content that lacks one of these names.

    Raises:
        ValueError: a name is missing.
    """
    if missing := [name for name in names if name not in content]:
        raise ValueError(f"it has no {missing[0]}")


def real(value: Any, shape: tuple[int, ...] | None = None) -> bool:
    """Whether this is a real floating-point tensor, as relevance is, and of that shape if one is given."""
    return isinstance(value, Tensor) and value.is_floating_point() and (shape is None or tuple(value.shape) == shape)


def holds(data: dict[Any, Any], types: dict[str, type]) -> TypeGuard[dict[str, Any]]:
    """Whether a dict has these keys, with values of exactly these types."""
    return all(type(data.get(name)) is kind for name, kind in types.items())


def check_scores(content: dict[str, Any]) -> int:
    """Checks the content of a `Relevance`, and returns its number of samples. Labels that cannot be read become None.

    Raises:
        ValueError: this is not such content.
    """
    score = content["score"]
    if not real(score) or score.ndim != 1 or not len(score):
        raise ValueError("score is not a row of numbers")
    if not real(content["residual"]) or content["residual"].shape != score.shape:
        raise ValueError("residual does not fit the scores")
    values = dict(leaves(content["values"]))
    if not values or not all(real(value) and value.numel() for value in values.values()):
        raise ValueError("values are not numbers")
    if content["inputs"] is not None:
        given = dict(leaves(content["inputs"]))
        if given.keys() != values.keys() or not all(
            isinstance(given[path], Tensor) and not given[path].is_complex() and given[path].shape == value.shape
            for path, value in values.items()
        ):
            raise ValueError("inputs do not fit the values")
    if not _said(content.get("through"), len(score)):
        raise ValueError("through is neither a text nor one per sample")
    if content.get("effect") is not None and not real(content["effect"], tuple(score.shape)):
        raise ValueError("effect does not fit the scores")
    for name in ("layers", "positions", *(["weights"] if "weights" in content else [])):
        if not _named(content[name]) or not all(real(leaf) for _, leaf in leaves(content[name])):
            raise ValueError(f"{name} are not numbers under names")
    if not all(real(part) for part in content["positions"].values()):
        raise ValueError("positions are not numbers under names")
    if isinstance(content["labels"], str):  # labels of a type that JSON lacks were saved as text
        content["labels"] = None
    labels = content["labels"]
    plain = isinstance(labels, (list, tuple)) and all(isinstance(name, (str, int, float)) for name in labels)
    if labels is not None and not plain:
        raise ValueError("labels are not names")
    return len(score)


def check_feature_names(content: dict[str, Any]) -> list[str] | None:
    """The names of the features of a folder's content, which has them for tables alone.

    Raises:
        ValueError: they are something else.
    """
    names = content.get("names")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError("the names of its features are not names")
    return names


def _said(through: Any, samples: int) -> bool:
    if isinstance(through, list):
        return len(through) == samples and all(type(one) is str for one in through)
    return through is None or type(through) is str


def check_seen(content: dict[str, Any], samples: int) -> tuple[Any, Any]:
    """The pictures and the affine map of a folder's content, which has them where the inputs were read from files.

    Raises:
        ValueError: they are something else.
    """
    pictures, affine = content.get("pictures"), content.get("affine")
    if pictures is not None and not (
        isinstance(pictures, Tensor) and pictures.dtype == torch.uint8 and pictures.ndim == 4
        and pictures.shape[:2] == (samples, 3) and pictures.numel()
    ):  # fmt: skip
        raise ValueError("its pictures are not pictures")
    if affine is not None and not real(affine, (4, 4)):
        raise ValueError("its affine map is not one")
    return pictures, affine


def _named(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)
