"""Digests of what a user gives, for the keys of finished work: what may act differently never shares one.

They go by content: numbers, weights, code, and what code finds in its closure and beside it in its file. What cannot be
read to the end, such as an object of a compiled library, has another digest in each process, so that its work is done
again rather than mistaken for that of another.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import uuid
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from types import CodeType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from relprop.composites import Composite
from relprop.results.files.fingerprint import weights_sha256

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, range, slice)
_PROCESS = uuid.uuid4().hex
_MOST = 10_000
"""How many things are looked at, one inside the other. What holds more counts as unreadable."""


class Fingerprints:
    """Takes digests for one evaluation.

    Args:
        model: the model that is evaluated. Its modules are known by their place in it, other modules by their content.
    """

    def __init__(self, model: Any) -> None:
        named = model.named_modules(remove_duplicate=False) if isinstance(model, nn.Module) else ()
        self._places = {id(module): name for name, module in named}
        self._model = model
        self._kept: dict[int, tuple[Any, str]] = {}
        self._open: dict[int, int] = {}
        self._lowest = _MOST
        self._seen = 0

    def of(self, thing: Any) -> str:
        """A digest of a thing and all that it holds."""
        if isinstance(thing, _PLAIN):
            return f"{type(thing).__name__} {thing!r}"
        if id(thing) in self._places:
            return f"module {self._places[id(thing)]!r} of the model"
        if id(thing) in self._kept:
            return self._kept[id(thing)][1]
        if id(thing) in self._open:  # it holds itself
            self._lowest = min(self._lowest, self._open[id(thing)])
            return f"{len(self._open) - self._open[id(thing)]} above"
        return self._opened(thing)

    @functools.cached_property
    def model(self) -> str:
        """A digest of the model: its weights, its code, and how it is put together."""
        return _content(self._model) if isinstance(self._model, nn.Module) else self.of(self._model)

    def _opened(self, thing: Any) -> str:
        depth, outer = len(self._open), self._lowest
        self._open[id(thing)], self._lowest = depth, _MOST
        self._seen = self._seen + 1 if depth else 1
        digest = hashlib.sha256()
        try:
            for part in [_PROCESS] if self._seen > _MOST or depth > 100 else self._parts(thing):
                digest.update(part.encode() + b"\0")
        finally:
            del self._open[id(thing)]
            above, self._lowest = self._lowest < depth, min(outer, self._lowest)
        found = digest.hexdigest()
        if not above:  # else the digest is that of its place inside of another
            self._kept[id(thing)] = thing, found
        return found

    def _parts(self, thing: Any) -> Iterable[str]:
        """What a thing holds, in digests."""
        yield _name(type(thing))
        if isinstance(thing, Tensor):
            yield _entries(thing)
        elif isinstance(thing, nn.Module):
            yield _content(thing)
        elif hasattr(thing, "__array_interface__"):
            array = thing.dtype.kind in "biufc"
            yield _entries(torch.as_tensor(thing)) if array else self.of(thing.tolist())
        elif isinstance(thing, Composite):
            yield from map(self.of, (type(thing), thing.entries, thing.multiply_by_inputs))
        elif isinstance(thing, (type, ModuleType)):
            yield _coded(thing) if isinstance(thing, type) else thing.__name__
        elif isinstance(thing, Mapping):
            yield from sorted(f"{self.of(key)}: {self.of(value)}" for key, value in thing.items())
        elif isinstance(thing, (set, frozenset)):
            yield from sorted(map(self.of, thing))
        elif isinstance(thing, (list, tuple)):
            yield from map(self.of, thing)
        elif isinstance(thing, functools.partial):
            yield from map(self.of, (thing.func, thing.args, thing.keywords))
        elif inspect.ismethod(thing):
            yield from map(self.of, (thing.__func__, thing.__self__))
        elif inspect.isfunction(thing):
            yield from self._function(thing)
        elif inspect.isroutine(thing):  # of C
            yield f"{getattr(thing, '__module__', '')}.{thing.__qualname__}"
        elif is_dataclass(thing):
            yield _coded(type(thing))
            yield from (f"{each.name}={self.of(getattr(thing, each.name))}" for each in fields(thing))
        elif hasattr(thing, "__dict__"):
            yield from (_coded(type(thing)), self.of(vars(thing)))
        else:
            yield f"{_PROCESS} {id(thing)}"

    def _function(self, function: Any) -> Iterable[str]:
        """What a function does: its code, and the values that it finds outside of it."""
        yield from _code(function.__code__)
        yield from map(self.of, (function.__defaults__, function.__kwdefaults__))
        for cell in function.__closure__ or ():
            try:
                yield self.of(cell.cell_contents)
            except ValueError:
                yield "empty"  # it is filled later
        scope = function.__globals__
        for name in _names(function.__code__):
            value = scope.get(name)
            beside = not callable(value) or getattr(value, "__module__", None) == function.__module__
            if name in scope and beside:
                yield f"{name}={self.of(value)}"


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _entries(tensor: Tensor) -> str:
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.is_meta:  # others may hold only a part
        return f"{_PROCESS} {id(tensor)}"
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return f"{tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(flat.numpy().data).hexdigest()}"


def _content(model: nn.Module) -> str:
    """The weights of a module, and what it is made of: classes, their code, and the plain attributes of each."""
    digest = hashlib.sha256((weights_sha256(model) or _PROCESS).encode())
    for name, module in model.named_modules(remove_duplicate=False):
        plain = {key: value for key, value in vars(module).items() if isinstance(value, (*_PLAIN, tuple))}
        plain.pop("training", None)
        said = {key: repr(value) for key, value in plain.items() if not key.startswith("_")}
        digest.update(f"{name} {_coded(type(module))} {module.extra_repr()} {said}\0".encode())
    for name, buffer in model.named_buffers():
        digest.update(f"{name} {_entries(buffer)}\0".encode())
    return digest.hexdigest()


_CODED: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()


def _coded(kind: type) -> str:
    """The name of a class and the code of its methods."""
    if kind in _CODED:
        return _CODED[kind]
    digest = hashlib.sha256()
    for one in kind.__mro__[:-1]:
        digest.update(f"{_name(one)}\0".encode())
        for name, value in vars(one).items():
            inner = getattr(value, "fget", None) or getattr(value, "__func__", value)
            if isinstance(code := getattr(inner, "__code__", None), CodeType):
                digest.update(f"{name} {' '.join(_code(code))}\0".encode())
    _CODED[kind] = f"{_name(kind)} {digest.hexdigest()}"
    return _CODED[kind]


def _code(code: CodeType) -> Iterable[str]:
    yield f"{code.co_name} {code.co_code.hex()} {code.co_names}"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant)
        else:
            yield repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)


def _names(code: CodeType) -> list[str]:
    """The names that code, or code inside of it, looks up."""
    inner = [name for constant in code.co_consts if isinstance(constant, CodeType) for name in _names(constant)]
    return list(dict.fromkeys([*code.co_names, *inner]))
