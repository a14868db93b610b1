"""Parts of torch without a public name that operations need: to be moved to where all such parts are kept.

Each is asked for; None where this torch has no such part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def hook_function() -> Any:
    """The autograd function by which full backward hooks of modules see gradients.

    Without it, such hooks are called in the relevance pass, and may change what passes.
    """
    functions = getattr(torch.nn.modules, "_functions", None)
    return getattr(functions, "BackwardHookFunction", None)


def gradient_switch() -> Callable[..., Any] | None:
    """What `torch.no_grad` calls. Without it, a custom function that computes under `no_grad` is refused."""
    return getattr(torch._C, "_set_grad_enabled", None)


def parse_to() -> Callable[..., Any] | None:
    """What reads the arguments of `module.to(...)`. Without it, `module.to(tensor)` is refused."""
    return getattr(torch._C._nn, "_parse_to", None)


def nested_to_padded() -> Callable[..., Any] | None:
    """What `torch.nested.to_padded_tensor` calls. Without it, that is refused."""
    return getattr(getattr(torch._C, "_nested", None), "nested_to_padded_tensor", None)
