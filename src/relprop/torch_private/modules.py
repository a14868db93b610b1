"""The hooks, tensors and other modules that a module holds in private attributes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

_DEEPEST = 400
"""Modules nested deeper than this are left to torch's own methods."""
_METHODS = ("named_parameters", "_named_members")
"""A class that has its own version of these says itself what its parameters are."""


def state_of(every: Iterable[nn.Module]) -> list[Any]:
    """A value that changes when tensors, modes or forward hooks of these modules are replaced, added or removed.

    Seen on 2.9 to 2.14. Without it, a compiled call does not notice that a hook was added or removed.
    """
    found: list[Any] = []
    for module in every:
        found.append(module)
        found.append(module.training)
        found += getattr(module, "_forward_hooks", ())
        found.append(None)
        found += getattr(module, "_forward_pre_hooks", ())
        for tensors in (module._parameters, module._buffers):
            for name, t in tensors.items():
                found += (name,) if t is None else (name, id(t), t.dtype, t.device)
    return found


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


def one_pass(model: nn.Module, most: int) -> tuple[list[Any], list[str | int], list[Tensor]]:
    """What a model is made of, from one loop without calls. Seen on 2.9 to 2.14; `paths_of` says where it can be used.

    Args:
        model: the model.
        most: where there are more modules than this, only the first are looked at.

    Returns:
        All modules, and None for a child that is None. The identity of each module with children, and their names, in the
        same order. All parameters.
    """
    every: list[Any] = [model]
    names: list[str | int] = []
    tensors: list[Tensor] = []
    for module in every:
        if module is None:
            continue
        if own := module._parameters:
            for parameter in own.values():
                if parameter is not None:
                    tensors.append(parameter)
        if children := module._modules:
            names.append(id(module))
            names += children
            every += children.values()
        if len(every) > most:
            break
    return every, names, tensors


def paths_of(model: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """Each module with each of its paths, as `named_modules(remove_duplicate=False)`.

    None if a module does not keep its members as torch does, or if they are nested too deep, as where a module contains
    itself. Seen on 2.9 to 2.14; elsewhere None.
    """
    plain = nn.Module.named_modules
    if any(getattr(type(model), name, None) is not getattr(nn.Module, name, None) for name in _METHODS):
        return None
    found: list[tuple[str, nn.Module]] = []
    stack: list[tuple[str, nn.Module, int]] = [("", model, 0)]
    while stack:
        path, module, depth = stack.pop()
        children, own = getattr(module, "_modules", None), getattr(module, "_parameters", None)
        if depth > _DEEPEST or type(module).named_modules is not plain:
            return None
        if type(children) is not dict or type(own) is not dict:
            return None
        found.append((path, module))
        for name, child in reversed(children.items()):
            if child is not None:
                stack.append((f"{path}.{name}" if path else name, child, depth + 1))
    return found
