"""What a module of torch keeps under names of its own: hooks and tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def hooks_on(module: nn.Module) -> tuple[Any, ...]:
    """Marks of the forward hooks on a module, equal as long as these are the same.

    Seen on 2.9 to 2.14. Without them a compiled call does not notice that a hook came or went.
    """
    return (*getattr(module, "_forward_hooks", ()), None, *getattr(module, "_forward_pre_hooks", ()))


def copied(module: nn.Module, kind: Any, parameters: dict[str, Tensor | None]) -> Any:
    """A module of class `kind` with all that `module` is, less its submodules; it shares no tensor with it.

    Args:
        module: the module that is copied, without running its constructor.
        kind: the copy's class.
        parameters: those that take the place of the module's own, or of what it computes under their names.

    `copy.deepcopy` would refuse tensors that have a history. Seen on 2.9 to 2.14; elsewhere captum's own rules, which need
    such a copy, raise torch's error.
    """
    copy = kind.__new__(kind)
    copy.__dict__.update({key: value for key, value in vars(module).items() if key not in parameters})
    copy.__dict__["_modules"] = {}
    copy.__dict__["_buffers"] = {key: None if t is None else t.clone() for key, t in module._buffers.items()}
    copy.__dict__["_parameters"] = {
        key: None if t is None else nn.Parameter(t.detach().clone(), requires_grad=False)
        for key, t in (module._parameters | parameters).items()
    }
    return copy
