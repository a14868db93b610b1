"""Writes into a live tensor that autograd does not see: without gradients, or through `detach()` or `.data`.

Neither autograd nor relevance follows them, so the map would be that of the tensor without the write. torch counts the
changes of what a tensor and its views and aliases have in common. The count is noted after each operation of the run;
where it is another when the tensor is read, something else has written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from relprop.engine.ledger import memory_of
from relprop.engine.messages import called
from relprop.engine.run import Run
from relprop.errors import UnsupportedOperationError


def seen(value: Any, inside: bool = False) -> None:
    """Notes that what was written into a tensor, or some, until now was seen by autograd or by a rule.

    Args:
        value: the tensor, or several.
        inside: whether a custom function's forward wrote: where it says so (`mark_dirty`) torch counts it once more.
    """
    if isinstance(value, Tensor):
        if not value.is_inference():
            count = value._version
            _whole(value)._relprop_seen = range(count, count + 1 + inside)  # type: ignore[attr-defined]
    elif isinstance(value, (list, tuple)):
        for item in value:
            seen(item, inside)


def unseen(run: Run, func: Callable[..., Any], target: Any) -> None:
    """Remembers an operation that writes without being followed, to name it if it was into what carries relevance."""
    for t in target if isinstance(target, (list, tuple)) else (target,):
        if isinstance(t, Tensor) and (memory := memory_of(t)) is not None:
            run.written.append((memory, f"{called(func)} in {run.where()}"))


def check(run: Run, value: Tensor) -> None:
    """Refuses a live tensor, of whose note the count is not up to date, if a write into it was not seen.

    Raises:
        UnsupportedOperationError: with the operation that wrote, where the mode met it.
    """
    if value._version in getattr(_whole(value), "_relprop_seen", ()):
        return
    memory = memory_of(value)
    name = next((text for where, text in reversed(run.written) if where == memory), f"something before {run.where()}")
    raise UnsupportedOperationError(
        f"{name} writes into a tensor that carries relevance, of shape {tuple(value.shape)}, where autograd does not see it "
        "(without gradients, or through detach() or .data): relevance would be that of the numbers before. Make a new tensor "
        "with gradients on, as with h = h.clamp(0, 1) or h = torch.where(mask, h, 0.0); or, where only a copy is meant, write "
        "into h.detach().clone()."
    )


def _whole(tensor: Tensor) -> Tensor:
    """The tensor that a view is a view of."""
    base = tensor._base if tensor._is_view() else None
    return tensor if base is None else base
