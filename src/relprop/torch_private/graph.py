"""Tensors inside transforms, and the nodes of autograd's graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.torch_private.parts import part
from relprop.torch_private.state import transforms_active

wrapped: Callable[[Tensor], bool] = part(
    "_C._functorch.is_functorch_wrapped_tensor", lambda tensor: transforms_active()
)
"""Whether a tensor stands for another inside a torch.func transform.

Seen on 2.9 to 2.14. Without it every tensor is taken for one while a transform runs, and refused where it is live.
"""

_unwrapped: Callable[[Tensor], Tensor] | None = part("_C._functorch.get_unwrapped")
_is_batched: Callable[[Tensor], bool] | None = part("_C._functorch.is_batchedtensor")
_is_batched_as_before: Callable[[Tensor], bool] = part("_C._functorch.is_legacy_batchedtensor", lambda tensor: False)


def innermost(tensor: Tensor) -> Tensor:
    """The tensor that torch.func transforms wrapped. Seen on 2.9 to 2.14; without it the tensor itself."""
    while _unwrapped is not None and wrapped(tensor):
        tensor = _unwrapped(tensor)
    return tensor


def batched(tensor: Tensor) -> bool:
    """Whether vmap runs over a tensor, that of torch.func or the one behind `is_grads_batched=True`.

    Seen on 2.9 to 2.14. Without it every tensor is taken for one: nothing is written in place, which is slower.
    """
    return _is_batched is None or _is_batched(tensor) or _is_batched_as_before(tensor)


def function_of(node: Any) -> type[torch.autograd.Function] | None:
    """The custom autograd function (a class) that made a node of the graph; None for torch's own operations.

    Seen on 2.9 to 2.14. Without it custom functions are taken for compiled code, and refused.
    """
    return getattr(type(node), "_forward_cls", None)


def written_as_view(node: Any) -> bool:
    """Whether a node stands for a write into a view of a tensor. By its class's name: torch has no other mark of it.

    Seen on 2.9 to 2.14. Where the name is another, the tensor is taken for compiled code's, and refused.
    """
    return type(node).__name__ == "CopySlices"


def notes_on(node: Any) -> dict[str, Any]:
    """The dictionary that autograd keeps with each node. Documented, but without a promise. Seen on 2.9 to 2.14."""
    return node.metadata


def leaf_of(node: Any) -> Tensor | None:
    """The leaf whose gradient a node accumulates; None for other nodes.

    Seen on 2.9 to 2.14. Without it a leaf given to `propagate(inputs=)` is not recognised behind code that no mode sees.
    """
    return getattr(node, "variable", None)
