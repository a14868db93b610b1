"""The hooks and tensors that a module holds in private attributes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def hooks_on(module: nn.Module) -> tuple[Any, ...]:
    """A value that changes when a forward hook of a module is added or removed.

    Seen on 2.9 to 2.14. Without it, a compiled call does not notice that a hook was added or removed.
    """
    return (*getattr(module, "_forward_hooks", ()), None, *getattr(module, "_forward_pre_hooks", ()))


def copied(module: nn.Module, kind: Any, parameters: dict[str, Tensor | None]) -> Any:
    """A copy of `module` of class `kind`, without its submodules. The two share no parameter and no buffer.

    Args:
        module: the module to copy. The copy's constructor does not run.
        kind: the copy's class.
        parameters: replace the module's own, or what the module computes under their names.

    `copy.deepcopy` would refuse tensors that have a history. Seen on 2.9 to 2.14; elsewhere captum's own rules, which
    need such a copy, raise torch's error.
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
