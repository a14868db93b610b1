"""Writes into a live tensor that autograd does not see: without gradients, or through `detach()` or `.data`.

Neither autograd nor relevance follows them, so the map would be that of the tensor without the write. Torch has one
version counter for a tensor, its views and its aliases. Its value is noted after each operation of the run. If it
differs when the tensor is read, something else has written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.engine import data
from relprop.engine.messages import called
from relprop.engine.recorder import memory_of
from relprop.engine.run import Run
from relprop.engine.tensor_attributes import SEEN
from relprop.engine.tensors import tensors_in
from relprop.errors import UnsupportedOperationError
from relprop.torch_private.weak import strong

SHARES = {Tensor.detach, data.GET}
"""These make a tensor without gradients in the memory of a live one."""
EXPOSES = {
    Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, Tensor.data_ptr, Tensor.untyped_storage, Tensor.storage
}  # fmt: skip
"""These expose a tensor's memory outside torch."""


_SEEN_NAME = SEEN.name


def seen(value: Any, inside: bool = False) -> None:
    """Notes that autograd or a rule saw all writes into a tensor, or several, until now.

    Args:
        value: the tensor, or several.
        inside: whether a custom function's forward wrote. If it says so (`mark_dirty`), torch counts the write again.
    """
    if isinstance(value, Tensor):
        if not value.is_inference():
            count = value._version
            base = value._base if value._is_view() else None
            setattr(value if base is None else base, _SEEN_NAME, range(count, count + 1 + inside))  # as `SEEN.put`
    else:
        for t in tensors_in(value):
            seen(t, inside)


def unseen(run: Run, func: Callable[..., Any], target: Any) -> None:
    """Remembers an operation that writes without being followed, to name it if the target turns out to be live."""
    for t in target if isinstance(target, (list, tuple)) else (target,):
        if isinstance(t, Tensor) and (memory := memory_of(t)) is not None:
            run.writes.written.append((memory, f"{called(func)} in {run.where()}"))


def share(run: Run, live: Tensor) -> None:
    """Remembers that a tensor without gradients shares the memory of a live one, as after `detach()` or `.data`."""
    memory = memory_of(live)
    if memory is not None:
        run.writes.share(memory, live)


def expose(run: Run, tensor: Tensor, func: Callable[..., Any]) -> None:
    """Keeps a copy of a live tensor whose memory leaves torch, as an array or an address."""
    memory = memory_of(tensor)
    live = strong(run.writes.shared[memory]) if memory in run.writes.shared else None
    if live is not None and memory_of(live) == memory:
        values = live.detach()
        run.writes.exposed.append(
            (values, values._version, values.clone(), f"what {called(func)} returned in {run.where()}")
        )


def check_exposed(run: Run) -> None:
    """Refuses a write into a live tensor from outside torch, as through a NumPy array, which torch does not count.

    Raises:
        UnsupportedOperationError: there was one; the message says where the array was made.
    """
    for values, version, copy, name in run.writes.exposed:
        same = torch.equal(values.nan_to_num(), copy.nan_to_num()) and torch.equal(values.isnan(), copy.isnan())
        if values._version == version and not same:
            raise _refused(f"a write through {name}", values)
    run.writes.exposed.clear()


def check(run: Run, value: Tensor) -> None:
    """Refuses a live tensor with a newer version than its note, if not all writes into it were seen.

    Raises:
        UnsupportedOperationError: some were not; the message names the operation that wrote, if the mode met it.
    """
    if value._version in SEEN.of(_whole(value), ()):
        return
    memory = memory_of(value)
    name = next(
        (text for where, text in reversed(run.writes.written) if where == memory), f"something before {run.where()}"
    )
    raise _refused(f"{name} writes", value)


def _refused(what: str, value: Tensor) -> UnsupportedOperationError:
    return UnsupportedOperationError(
        f"{what} into a tensor that carries relevance, of shape {tuple(value.shape)}, where autograd does not see it "
        "(without gradients, or through detach() or .data): relevance would be that of the numbers before. Make a new tensor "
        "with gradients on, as with h = h.clamp(0, 1) or h = torch.where(mask, h, 0.0); or, where only a copy is meant, write "
        "into h.detach().clone()."
    )


def _whole(tensor: Tensor) -> Tensor:
    """The base of a view; else the tensor itself."""
    base = tensor._base if tensor._is_view() else None
    return tensor if base is None else base
