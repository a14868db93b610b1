"""The samples of a call: one batch, or an iterable of them; and parts of a batch that fit into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from relprop.errors import InputError
from relprop.evaluation.memory import BatchSize
from relprop.evaluation.stream import usual_size
from relprop.evaluation.subject import Subject
from relprop.trees import join, leaves, map_tree

_ENTRIES = 2**24
"""Entries of the main input that are worked on at a time."""


def batches(inputs: Any, targets: Any) -> Iterator[tuple[Any, Any]]:
    """The batches of inputs and targets. A tree of tensors is one batch."""
    if isinstance(inputs, (Tensor, tuple, list, Mapping)) and all(
        isinstance(t, Tensor) for _, t in leaves(plain(inputs))
    ):
        yield inputs, targets
        return
    if not isinstance(inputs, Iterable) or hasattr(inputs, "__array__"):
        raise InputError(
            f"inputs must be tensors as relprop.attribute takes them, or an iterable of batches; got {type(inputs).__name__}."
            + (" torch.as_tensor(inputs) makes one." if hasattr(inputs, "__array__") else "")
        )
    if targets is not None:
        raise InputError("with an iterable of batches, targets come in the batches: leave targets out.")
    for batch in inputs:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise InputError("each batch must be a pair of inputs and targets.")
        aims = batch[1]
        yield batch[0], aims.tolist() if isinstance(aims, Tensor) and aims.ndim else aims


def together(inputs: Any, targets: Any) -> tuple[Any, Any]:
    """All samples as one batch, with their targets.

    Raises:
        InputError: batches of an iterable do not fit together.
    """
    parts = list(batches(inputs, targets))
    if not parts:
        raise InputError("inputs holds no batch.")
    if len(parts) == 1:
        return parts[0]
    aims = [each for _, each in parts]
    if not all(isinstance(each, (list, tuple)) for each in aims):
        raise InputError("the targets of each batch must be a tensor or a list, with one per sample.")
    try:
        return join([plain(some) for some, _ in parts]), [one for each in aims for one in each]
    except RuntimeError as error:
        raise InputError(f"the batches do not fit together: {str(error).splitlines()[0]}.") from error


def plain(inputs: Any) -> Any:
    """A tokenizer's answer as a dict."""
    return dict(inputs) if isinstance(inputs, Mapping) else inputs


def chunks(whole: Subject) -> Iterator[tuple[Subject, int, int]]:
    """Parts of the samples whose entries fit well into memory."""
    count = len(whole)
    size = max(1, _ENTRIES // max(1, whole.main[0].numel()))
    if size >= count:
        yield whole, 0, count
        return
    whole.measure(BatchSize(usual_size(whole.main)))
    for start in range(0, count, size):
        stop = min(start + size, count)
        cut = map_tree(lambda leaf, a=start, b=stop: leaf[a:b], whole.inputs)  # type: ignore[misc]
        aims = whole.targets(range(start, stop))
        yield Subject(
            whole.model, cut, whole.path, aims, whole.of, whole.select, whole.labels, whole.kwargs
        ), start, stop - start  # fmt: skip
