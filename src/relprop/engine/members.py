"""The modules and parameters of a model, from one pass over it. Nothing is kept between calls, so nothing can be stale."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

_DEEPEST = 400
"""Modules nested deeper than this, such as one that contains itself, are left to torch's own methods."""


class Members(NamedTuple):
    """What a model is made of.

    Attributes:
        paths: each module by its path, also those that have several paths, as `named_modules(remove_duplicate=False)`.
        modules: each module once, with its first path, as `named_modules()`.
        parameters: each parameter once, with its first name, as `named_parameters()`.
    """

    paths: dict[str, nn.Module]
    modules: list[tuple[str, nn.Module]]
    parameters: list[tuple[str, Tensor]]


def members(model: Any) -> Members:
    """The modules and parameters of a model as they are now; none of a plain function.

    Torch's own methods take three calls of Python per module and parameter, which on a small network costs as much as an
    operation. They are used where a class has its own version of one of them.
    """
    found = Members({}, [], [])
    if not isinstance(model, nn.Module):
        return found
    kind = type(model)
    if (
        kind.named_parameters is not nn.Module.named_parameters
        or kind._named_members is not nn.Module._named_members
        or not _walk(model, found)
    ):
        return Members(
            dict(model.named_modules(remove_duplicate=False)),
            list(model.named_modules()),
            list(model.named_parameters()),
        )
    return found


def _walk(model: nn.Module, found: Members) -> bool:
    """Fills the lists; False if a module does not keep its members as torch does. One loop, without calls."""
    plain = nn.Module.named_modules
    seen: set[nn.Module] = set()
    met: set[int] = set()
    stack: list[tuple[str, nn.Module, int]] = [("", model, 0)]
    while stack:
        path, module, depth = stack.pop()
        children, own = module._modules, module._parameters
        if type(module).named_modules is not plain or type(children) is not dict or type(own) is not dict:
            return False
        found.paths[path] = module
        if module not in seen:
            seen.add(module)
            found.modules.append((path, module))
            for name, parameter in own.items():
                if parameter is not None and id(parameter) not in met:
                    met.add(id(parameter))
                    found.parameters.append((f"{path}.{name}" if path else name, parameter))
        if children:
            if depth > _DEEPEST:
                return False
            for name, child in reversed(children.items()):
                if child is not None:
                    stack.append((f"{path}.{name}" if path else name, child, depth + 1))
    return True
