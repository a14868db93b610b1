"""The state of a thread: which transforms, backward passes, hooks and modes are active."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from relprop.torch_private.finding import lacking, part, running


def _transforms_on_the_stack() -> bool:
    return running("torch._functorch", "torch._vmap_internals")


def _backward_on_the_stack() -> int:
    return 0 if running("torch.autograd.graph") else -1


transforms_active: Callable[[], bool] = part("_C._are_functorch_transforms_active", _transforms_on_the_stack)
"""Whether a torch.func transform (vmap, grad, jvp) runs, through which relevance cannot be followed.

Seen on 2.9 to 2.14. Without it, the stack is searched.
"""

graph_task: Callable[[], int] = part("_C._current_graph_task_id", _backward_on_the_stack)
"""The number of the backward pass that runs in this thread, else -1. A call of the model during one is a recomputation.

Seen on 2.9 to 2.14. Without it, the stack is searched.
"""

_top_hooks: Callable[[bool], Any] | None = part("_C._autograd._top_saved_tensors_default_hooks")

innermost_hooks: Callable[[bool], Any] = _top_hooks or (lambda _: False)
"""`innermost_hooks(True)` is what `saving_hooks` returns, at less cost. Seen on 2.9 to 2.14; False without it, so that
`saved_elsewhere` is asked.
"""


def saving_hooks() -> Any:
    """The saved-tensor hooks that are active now; None if there are none. Seen on 2.9 to 2.14."""
    return None if _top_hooks is None else _top_hooks(True)


def saved_elsewhere(usual: Any = None) -> bool:
    """Whether other saved-tensor hooks than `usual` are active, as in a checkpointed part of the model.

    Seen on 2.9 to 2.14. Without it, only torch's own checkpoints are recognised, by the stack, and `checkpoint=True` is
    refused (`needs_saved_elsewhere`).
    """
    return running("torch.utils.checkpoint") if _top_hooks is None else _top_hooks(True) != usual


def needs_saved_elsewhere() -> None:
    """Refuses `checkpoint=True` on a torch where checkpointed parts could not be recognised."""
    if _top_hooks is None:
        raise lacking("_C._autograd._top_saved_tensors_default_hooks", "checkpoint=True")


def function_modes() -> list[Any]:
    """The active function modes of this thread, the innermost last: a recomputation must not enter ours twice.

    Seen on 2.9 to 2.14. Without it, checkpointed parts are refused.
    """
    stack = part("overrides._get_current_function_mode_stack")
    if stack is None:
        raise lacking("overrides._get_current_function_mode_stack", "a checkpointed part of a model")
    return stack()


class ThreadState:
    """The state of torch in this thread, to be restored after an exception that no context manager saw.

    Seen on 2.9 to 2.14. Any part of it that a torch lacks is left to the context managers.
    """

    def __init__(self) -> None:
        self.gradients = torch.is_grad_enabled()
        self.threads = torch.autograd.is_multithreading_enabled()
        self.modes = 0 if _mode_count is None else _mode_count()
        self.hooks = saving_hooks()

    def restore(self) -> None:
        """Restores the state in this thread."""
        while _mode_count is not None and _pop_mode is not None and _mode_count() > self.modes:
            _pop_mode()
        while _pop_hooks is not None and saving_hooks() is not None and saving_hooks() != self.hooks:
            _pop_hooks()
        torch.autograd.set_multithreading_enabled(self.threads)
        torch.set_grad_enabled(self.gradients)


_mode_count: Callable[[], int] | None = part("_C._len_torch_function_stack")
_pop_mode: Callable[[], Any] | None = part("overrides._pop_mode")
_pop_hooks: Callable[[], Any] | None = part("_C._autograd._pop_saved_tensors_default_hooks")

without_torch_function: Callable[[], AbstractContextManager[Any]] = part("_C.DisableTorchFunction", nullcontext)
"""A context in which no mode sees an operation, for arithmetic that modes need not see. Only speed depends on it.

Seen on 2.9 to 2.14.
"""
