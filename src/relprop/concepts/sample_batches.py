"""Batches of a data set's samples, for what explains each sample once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from relprop.errors import InputError


def range_of(dataset: Any, rows: Any) -> tuple[int, int]:
    """The first sample and the one after the last.

    Raises:
        InputError: the data have no length or are empty, or the rows are not within them.
    """
    try:
        count = len(dataset)
    except TypeError:
        raise InputError(
            f"the data have no length: give a list or a map-style data set; got {type(dataset).__name__}."
        ) from None
    if not count:
        raise InputError("the data are empty.")
    start, stop = (0, count) if rows is None else rows
    if not (isinstance(start, int) and isinstance(stop, int) and 0 <= start < stop <= count):
        raise InputError(
            f"rows must be two numbers within the {count} samples, the first below the second; got {rows!r}."
        )
    return start, stop


def batches(dataset: Any, start: int, stop: int, size: int) -> Iterator[tuple[int, Tensor, list[int] | None]]:
    """Batches of samples that follow each other and have one shape: the first one's number, inputs and labels."""
    some: list[Tensor] = []
    labels: list[Any] = []
    first = start
    for n in range(start, stop):
        x, label = _sample(dataset, n)
        if some and (len(some) == size or x.shape != some[0].shape or (label is None) != (labels[0] is None)):
            yield first, torch.stack(some), None if labels[0] is None else labels
            first, some, labels = n, [], []
        some.append(x)
        labels.append(label)
    if some:
        yield first, torch.stack(some), None if labels[0] is None else labels


def _sample(dataset: Any, n: int) -> tuple[Tensor, Any]:
    item = dataset[n]
    x, label = (item[0], item[1]) if isinstance(item, (tuple, list)) else (item, None)
    if not isinstance(x, Tensor):
        raise InputError(f"sample {n} of the data is of type {type(x).__name__}; give tensors.")
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise InputError(f"sample {n} of the data is not finite.")
    if isinstance(label, Tensor) and label.numel() == 1 and not label.is_floating_point():
        label = int(label)
    if label is not None and (not hasattr(label, "__index__") or isinstance(label, bool)):
        raise InputError(f"the label of sample {n} is {label!r}; labels are classes, as ints.")
    return x, None if label is None else int(label)


def bar(some: Any, total: int) -> Iterator[Any]:
    """The batches, under a progress bar on stderr.

    Raises:
        InputError: tqdm is not installed.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        raise InputError("progress=True needs tqdm: pip install relprop[progress].") from None
    with tqdm(total=total, desc="relprop", unit="sample") as shown:
        for first, inputs, labels in some:
            yield first, inputs, labels
            shown.update(len(inputs))
