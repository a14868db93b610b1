"""The model that was explained: its name and size, and a weak reference to it."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from relprop.engine.members import Members, members


@dataclass(frozen=True)
class Identity:
    """A model by name.

    Attributes:
        name: its class, or the function, with the Python module.
        parameters: the number of its parameters' entries.
        weights_sha256: the hash of its weights, if the result was loaded from a file that holds one.
    """

    name: str
    parameters: int = 0
    weights_sha256: str | None = None
    _reference: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, model: Any, own: Members | None = None) -> Identity:
        """The identity of a module or a function; `own` are its members, where they are known already."""
        known = type(model) if isinstance(model, nn.Module) else model
        name = f"{getattr(known, '__module__', '?')}.{getattr(known, '__qualname__', type(model).__qualname__)}"
        count = (members(model) if own is None else own).size
        try:
            return cls(name, count, None, weakref.ref(model))
        except TypeError:  # some callables written in C allow no weak reference
            return cls(name, count)

    def find(self) -> Any:
        """The model itself, if it still exists; else None."""
        return self._reference() if self._reference is not None else None

    def __str__(self) -> str:
        size = f", {self.parameters:,} parameters" if self.parameters else ""
        weights = f", weights sha256 {self.weights_sha256}" if self.weights_sha256 else ""
        return f"{self.name}{size}{weights}"

    def __reduce__(self) -> Any:
        return Identity, (self.name, self.parameters, self.weights_sha256)
