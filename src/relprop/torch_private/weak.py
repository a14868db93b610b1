"""Tensors that are held weakly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from relprop.torch_private.finding import part

_fix: Callable[[Tensor], Any] = part("Tensor._fix_weakref", lambda tensor: None)


def strong(reference: Callable[[], Tensor | None]) -> Tensor | None:
    """The tensor of a weak reference; None if it is gone.

    Torch 2.9 has to be told that Python holds the tensor again. Otherwise the graph frees it while it is in use, if the
    graph alone held it before. Seen on 2.9 to 2.14; without it, the reference alone is asked.
    """
    tensor = reference()
    if tensor is not None:
        _fix(tensor)
    return tensor
