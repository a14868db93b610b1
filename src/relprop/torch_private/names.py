"""Operations and functions of torch that have no public name."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from relprop.torch_private.parts import part

SPACES: tuple[Any, ...] = tuple(space for space in (part("_C._nn"), part("_C._VariableFunctions")) if space is not None)
"""Where torch keeps operations that its public names are aliases of. Seen on 2.9 to 2.14."""

STATE: tuple[Any, ...] = tuple(
    function
    for function in (
        part(f"_C.{name}") for name in ("_set_grad_enabled", "_autograd_functions", "set_autocast_enabled")
    )
    if function is not None
)
"""What torch calls through modes to change a thread's state. Seen on 2.9 to 2.14, `_autograd_functions` not on all."""

BACKWARD_HOOKS: Any = getattr(vars(part("_C.TensorBase", Tensor)).get("_backward_hooks"), "__set__", None)
"""What torch itself resets after an autograd function that works in place. Seen on 2.9 to 2.14; None without it."""

LINEAR_FUNCTIONS = (
    "torch.distributed.fsdp._fully_shard._fsdp_param_group.RegisterPostBackwardFunction",
    "torch.distributed.fsdp._fully_shard._fsdp_state.RegisterPreBackwardFunction",
    "torch.distributed.tensor._api._FromTorchTensor",
    "torch.distributed.tensor._api._ToTorchTensor",
    "torch.distributed.tensor._redistribute.Redistribute",
    "torch.distributed.tensor._redistribute.NestedRedistribute",
)
"""Custom functions, by name, that torch puts around the modules of a model spread over processes: each is linear.

Seen on 2.13 and 2.14; the second and the last are not on 2.9. Under another name they are met as any custom function is.
"""


def aten_name(function: Any) -> str | None:
    """`"relu"` for `torch.ops.aten.relu` and `torch.ops.aten.relu.default`; None for all else.

    Seen on 2.9 to 2.14. Without it operations of `torch.ops.aten` are in no family, and refused.
    """
    packet = getattr(function, "overloadpacket", function)
    name = getattr(packet, "_qualified_op_name", "")
    return name.removeprefix("aten::") if name.startswith("aten::") else None
