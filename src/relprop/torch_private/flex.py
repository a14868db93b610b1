"""Flex attention."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from torch import Tensor

from relprop.torch_private.finding import lacking

_FLEX = "torch.nn.attention.flex_attention"
_FURTHER = 6
"""How many frames to search for the function that reads a property: each active mode adds one."""


def flex_operator() -> Any:
    """The operation behind `flex_attention`. Seen on 2.9 to 2.14; None without it, and it is refused as unknown."""
    try:
        from torch._higher_order_ops.flex_attention import flex_attention
    except ImportError:
        return None
    return flex_attention


def flex_mask(mask_mod: Callable[..., Tensor], index: list[Tensor], captured: tuple) -> Tensor | None:
    """The scores that a block mask of flex attention keeps; None if all. The blocks themselves only save time.

    Seen on 2.9 to 2.14. Without it, flex attention with a mask is refused.
    """
    try:
        from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex
        from torch.nn.attention.flex_attention import _vmap_for_bhqkv, noop_mask
    except ImportError as error:
        raise lacking("nn.attention.flex_attention._vmap_for_bhqkv", "flex attention with a mask") from error
    if mask_mod is noop_mask:
        return None
    with TransformGetItemToIndex():
        return _vmap_for_bhqkv(mask_mod, (), (None,) * len(captured))(*index, *captured)


def read_by_flex_attention() -> bool:
    """Whether flex attention's Python wrapper is reading a property of a tensor, judged by the frames of the reader.

    Seen on 2.13 and 2.14; on 2.9 the wrapper does not read it. Without it, the wrapper refuses tensors on a CPU that
    require a gradient.
    """
    frame: FrameType | None = sys._getframe(2)
    for _ in range(_FURTHER):
        if frame is None:
            return False
        if frame.f_globals.get("__name__") == _FLEX:
            return True
        frame = frame.f_back
    return False
