"""The modules and parameters of a model, from one pass over it per call.

What is the same from call to call, such as the paths, is kept with the model, weakly. Each pass compares the modules it
meets with those of the last one, by identity, class and name: what was replaced, added, moved or removed is noticed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from operator import is_
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from relprop.composites.places import kind_of
from relprop.torch_private.modules import one_pass, paths_of

Standing = tuple[tuple[str, ...], str]
"""All paths of a module, and its class by name."""


class Members:
    """What a model is made of, as it is now.

    Attributes:
        every: all modules. One that has several paths may be there several times.
        tensors: all parameters. One that is shared may be there several times.
        standing: the paths and the class's name of each module, by its identity.
        scripted: the paths of those that are TorchScript.
    """

    def __init__(
        self,
        model: Any,
        every: Sequence[nn.Module] = (),
        tensors: Sequence[Tensor] = (),
        standing: dict[int, Standing] | None = None,
        scripted: Sequence[str] = (),
    ) -> None:
        self._model = model
        self.every, self.tensors, self.standing, self.scripted = every, tensors, standing or {}, scripted

    @property
    def paths(self) -> dict[str, nn.Module]:
        """Each module by its path, also those that have several paths, as `named_modules(remove_duplicate=False)`."""
        return dict(self._model.named_modules(remove_duplicate=False)) if isinstance(self._model, nn.Module) else {}

    @property
    def modules(self) -> list[tuple[str, nn.Module]]:
        """Each module once, with its first path."""
        once = {id(module): module for module in self.every}
        return [(paths[0], once[number]) for number, (paths, _) in self.standing.items()]

    @property
    def parameters(self) -> list[tuple[str, Tensor]]:
        """Each parameter once, with its first name."""
        return list(self._model.named_parameters()) if isinstance(self._model, nn.Module) else []

    @property
    def size(self) -> int:
        """The number of the parameters' entries."""
        return sum({id(t): t.numel() for t in self.tensors}.values())


class _Kept(NamedTuple):
    """What is kept of a model. Nothing here holds a module.

    Attributes:
        met: the modules in the order of `one_pass`, as weak references; a child may be None.
        kinds: their classes.
        names: in the same order, the identity of each module with children and their names.
        standing: as in `Members`.
        scripted: as in `Members`.
    """

    met: list[Callable[[], nn.Module | None]]
    kinds: list[type | None]
    names: list[str | int]
    standing: dict[int, Standing]
    scripted: list[str]


kept: WeakKeyDictionary[nn.Module, _Kept] = WeakKeyDictionary()
"""What the last pass over each model met."""


def members(model: Any) -> Members:
    """The modules and parameters of a model as they are now; none of a plain function.

    Torch's own methods take three calls of Python per module and parameter, which on a small network costs as much as an
    operation. They are used where a class has its own version of one of them.
    """
    if not isinstance(model, nn.Module):
        return Members(model)
    try:
        before = kept.get(model)
    except TypeError:  # a module that cannot be hashed
        return _by_torch(model)
    if before is not None:
        every, names, tensors = one_pass(model, len(before.met))
        if not _same(before, every, names):
            before = None
    if before is None:
        paths = paths_of(model)
        if paths is None:
            return _by_torch(model)
        every, names, tensors = one_pass(model, sys.maxsize)
        met: list[Callable[[], nn.Module | None]] = [_nothing if module is None else ref(module) for module in every]
        kinds = [None if module is None else type(module) for module in every]
        before = kept[model] = _Kept(met, kinds, names, _standing(paths), _scripted(paths))
    if None in before.kinds:
        every = [module for module in every if module is not None]
    return Members(model, every, tensors, before.standing, before.scripted)


def _by_torch(model: nn.Module) -> Members:
    paths = list(model.named_modules(remove_duplicate=False))
    every = [module for _, module in paths]
    return Members(model, every, list(model.parameters()), _standing(paths), _scripted(paths))


def _same(last: _Kept, every: list[Any], names: list[str | int]) -> bool:
    """Whether a pass met the modules that an earlier one met, of the same classes and under the same names."""
    if names != last.names or [None if module is None else type(module) for module in every] != last.kinds:
        return False
    before = [reference() for reference in last.met]
    return all(map(is_, every, before))


def _standing(paths: list[tuple[str, nn.Module]]) -> dict[int, Standing]:
    """All paths of each module and its class's name, in the order of the first paths."""
    found: dict[int, Standing] = {}
    for path, module in paths:
        before = found.get(id(module))
        found[id(module)] = ((path,), kind_of(module)) if before is None else ((*before[0], path), before[1])
    return found


def _scripted(paths: list[tuple[str, nn.Module]]) -> list[str]:
    return [path for path, module in paths if isinstance(module, torch.jit.ScriptModule)]


def _nothing() -> None:
    """Stands for a weak reference to a child that is None."""
