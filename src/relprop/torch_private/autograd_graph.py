"""Tensors inside transforms, and the nodes of autograd's graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.torch_private.finding import part
from relprop.torch_private.state import transforms_active

wrapped: Callable[[Tensor], bool] = part(
    "_C._functorch.is_functorch_wrapped_tensor", lambda tensor: transforms_active()
)
"""Whether a tensor is a wrapper inside a torch.func transform.

Seen on 2.9 to 2.14. Without it, every tensor counts as one while a transform runs, and a live one is refused.
"""

_unwrapped: Callable[[Tensor], Tensor] | None = part("_C._functorch.get_unwrapped")
_is_batched: Callable[[Tensor], bool] | None = part("_C._functorch.is_batchedtensor")
_is_batched_as_before: Callable[[Tensor], bool] = part("_C._functorch.is_legacy_batchedtensor", lambda tensor: False)


def innermost(tensor: Tensor) -> Tensor:
    """The tensor inside the wrappers of torch.func. Seen on 2.9 to 2.14; without it the tensor itself."""
    while _unwrapped is not None and wrapped(tensor):
        tensor = _unwrapped(tensor)
    return tensor


def batched(tensor: Tensor) -> bool:
    """Whether vmap runs over a tensor: that of torch.func, or the one behind `is_grads_batched=True`.

    Seen on 2.9 to 2.14. Without it, every tensor counts as batched: nothing is overwritten, which is slower.
    """
    return _is_batched is None or _is_batched(tensor) or _is_batched_as_before(tensor)


def function_of(node: Any) -> type[torch.autograd.Function] | None:
    """The custom autograd function (a class) that made a node of the graph; None for torch's own operations.

    Seen on 2.9 to 2.14. Without it, custom functions are taken for compiled code and refused.
    """
    return getattr(type(node), "_forward_cls", None)


def written_as_view(node: Any) -> bool:
    """Whether a node records a write into a view of a tensor, judged by its class's name: torch gives no other sign.

    Seen on 2.9 to 2.14. Under another name, the tensor is taken for one of compiled code and refused.
    """
    return type(node).__name__ == "CopySlices"


def notes_on(node: Any) -> dict[str, Any]:
    """The dictionary that autograd keeps with each node. Documented, but not guaranteed. Seen on 2.9 to 2.14."""
    return node.metadata


def leaf_of(node: Any) -> Tensor | None:
    """The leaf whose gradient a node accumulates; None for other nodes.

    Seen on 2.9 to 2.14. Without it, code that no mode sees hides a leaf given to `propagate(inputs=)`.
    """
    return getattr(node, "variable", None)
