"""Operations and functions of torch that have no public name."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from relprop.torch_private.finding import part

SPACES: tuple[Any, ...] = tuple(space for space in (part("_C._nn"), part("_C._VariableFunctions")) if space is not None)
"""The namespaces of the operations that torch's public names are aliases of. Seen on 2.9 to 2.14."""

STATE: tuple[Any, ...] = tuple(
    function
    for function in (
        part(f"_C.{name}")
        for name in ("_set_grad_enabled", "_autograd_functions", "set_autocast_enabled", "_nn._parse_to")
    )
    if function is not None
)
"""The functions that modes see when torch changes a thread's state, or reads a device and dtype for `module.to`.

Seen on 2.9 to 2.14, `_autograd_functions` not on all.
"""

BACKWARD_HOOKS: Any = getattr(vars(part("_C.TensorBase", Tensor)).get("_backward_hooks"), "__set__", None)
"""The setter that torch calls after an autograd function that writes in place. Seen on 2.9 to 2.14; None without it."""

_TENSOR = vars(part("_C.TensorBase", Tensor))
GET_GRAD: Any = getattr(_TENSOR.get("grad"), "__get__", None)
"""The function that a mode sees when `tensor.grad` is read. Seen on 2.9 to 2.14; None without it."""
GET_GRAD_FN: Any = getattr(_TENSOR.get("grad_fn"), "__get__", None)
"""The function that a mode sees when `tensor.grad_fn` is read. Seen on 2.9 to 2.14; None without it."""
SET_REQUIRES_GRAD: Any = getattr(_TENSOR.get("requires_grad"), "__set__", None)
"""The function that a mode sees for `tensor.requires_grad = True`. Seen on 2.9 to 2.14; None without it."""

LINEAR_FUNCTIONS = (
    "torch.distributed.fsdp._fully_shard._fsdp_param_group.RegisterPostBackwardFunction",
    "torch.distributed.fsdp._fully_shard._fsdp_state.RegisterPreBackwardFunction",
    "torch.distributed.tensor._api._FromTorchTensor",
    "torch.distributed.tensor._api._ToTorchTensor",
    "torch.distributed.tensor._redistribute.Redistribute",
    "torch.distributed.tensor._redistribute.NestedRedistribute",
)
"""Names of the custom functions that torch puts around the modules of a distributed model. Each is linear.

Seen on 2.13 and 2.14; the second and the last are not on 2.9. Under another name, it is treated as any custom function.
"""


def aten_name(function: Any) -> str | None:
    """`"relu"` for `torch.ops.aten.relu` and `torch.ops.aten.relu.default`; None for functions outside `aten`.

    Seen on 2.9 to 2.14. Without it, operations of `torch.ops.aten` have no family and are refused.
    """
    packet = getattr(function, "overloadpacket", function)
    name = getattr(packet, "_qualified_op_name", "")
    return name.removeprefix("aten::") if name.startswith("aten::") else None


SET_GRAD_ENABLED: Any = part("_C._set_grad_enabled")
"""The function that a mode sees when gradients are switched on or off. Seen on 2.9 to 2.14; None without it."""

NESTED: dict[str, Any] = {
    name: space for name in ("torch._C._nn", "torch._VF") if (space := part(name.removeprefix("torch."))) is not None
}
"""The namespaces of functions without a public name, so that advice in messages can be run. Seen on 2.9 to 2.14."""


def registered(function: Any) -> bool:
    """Whether a function is an operator of `torch.ops`; its `str` is then its name there.

    Seen on 2.9 to 2.14. Without it, a message gives the operator's bare name.
    """
    return hasattr(function, "_qualified_op_name") or hasattr(function, "overloadpacket")


NESTED_TO_PADDED: Any = part("_C._nested.nested_to_padded_tensor")
"""The function behind `torch.nested.to_padded_tensor`. Seen on 2.9 to 2.14; without it, that is refused."""

HOOK_FUNCTION: Any = part("nn.modules._functions.BackwardHookFunction")
"""The autograd function through which full backward hooks of modules see gradients. Seen on 2.9 to 2.14.

Without it, such hooks are called in the relevance pass and may change the relevance.
"""
