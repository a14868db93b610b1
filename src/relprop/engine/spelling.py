"""The names under which one operation arrives: function, method, operator, reflected operator, in-place."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.torch_private.names import SPACES

Function = Callable[..., Any]
_SPACES: tuple[Any, ...] = (
    torch,
    Tensor,
    F,
    torch.special,
    torch.linalg,
    torch.functional,
    *SPACES,
)
_OPERATORS = {
    "add": ("__add__", "__radd__", "__iadd__"),
    "sub": ("__sub__", "__rsub__", "__isub__"),
    "mul": ("__mul__", "__rmul__", "__imul__"),
    "div": ("__truediv__", "__rtruediv__", "__itruediv__", "__div__", "__idiv__"),
    "matmul": ("__matmul__", "__rmatmul__", "__imatmul__"),
    "pow": ("__pow__", "__rpow__", "__ipow__"),
    "neg": ("__neg__",),
    "abs": ("__abs__",),
}


@dataclass(frozen=True)
class Spelling:
    """How a spelling differs from the main one."""

    inplace: bool = False
    reflected: bool = False


def spellings(function: Function) -> Iterator[tuple[Function, Spelling]]:
    """Every function that is `function` under another name."""
    yield function, Spelling(inplace=writes(function))
    name = getattr(function, "__name__", "")
    for space in _SPACES:
        for candidate, inplace in ((name, False), (name + "_", True)):
            found = getattr(space, candidate, None)
            if callable(found) and not isinstance(found, (types.ModuleType, type)):
                yield found, Spelling(inplace=inplace or writes(found))
    for operator in _OPERATORS.get(name, ()):
        found = getattr(Tensor, operator, None)
        if found is not None:
            kind = operator.strip("_")
            reflected = kind.startswith("r")
            yield found, Spelling(inplace=kind.startswith("i"), reflected=reflected)


def writes(function: Function) -> bool:
    """Whether a function writes into its first argument, judging by torch's naming."""
    name = getattr(function, "__name__", "")
    return name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))


def beside(function: Function) -> Function:
    """The version of an in-place function that returns a new tensor; the function itself if there is none."""
    name = getattr(function, "__name__", "")
    if not writes(function) or name.startswith("__"):
        return function
    return next((found for space in _SPACES if callable(found := getattr(space, name[:-1], None))), function)


def named(names: str) -> list[Function]:
    """The functions with these names, in all namespaces. Names that this torch lacks are skipped."""
    found: dict[Function, None] = {}
    for name in names.split():
        for space in (*_SPACES, torch.fft):
            for spelled in (name, name + "_"):
                function = getattr(space, spelled, None)
                if callable(function) and not isinstance(function, (types.ModuleType, type)):
                    found.setdefault(function)
    return list(found)
