"""The model and the caller's random state are the same afterwards, whatever a method does or raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from relprop.errors import ModelStateError
from relprop.evaluation.generators import chance, restore


@contextmanager
def guarded(model: Any) -> Iterator[None]:
    """Puts hooks, attributes, modes, gradients and the random state back at the end.

    Raises:
        ModelStateError: a weight or buffer was written to, which cannot be undone.
    """
    state = chance()
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    # A module's attributes, and the tables among them: hooks, parameters, buffers, members.
    tables = [vars(module) for module in modules]
    tables += [value for table in tables for value in table.values() if isinstance(value, dict)]
    before = [dict(table) for table in tables]
    named = [*model.named_parameters(), *model.named_buffers()] if isinstance(model, nn.Module) else []
    tensors = [(name, t, t._version, t.grad, t.requires_grad) for name, t in named]
    try:
        yield
    finally:
        restore(state)
        for table, content in zip(tables, before, strict=True):
            if list(table) != list(content) or any(table[name] is not value for name, value in content.items()):
                table.clear()
                table.update(content)
        for _, tensor, _, grad, asks in tensors:
            if tensor.grad is not grad:
                tensor.grad = grad
            if tensor.requires_grad != asks:
                tensor.requires_grad_(asks)
    written = [name for name, tensor, version, *_ in tensors if tensor._version != version]
    if written:
        raise ModelStateError(
            f"a method wrote to {written[0]!r} of the model while it explained: its maps, and all that came after, are those "
            "of another model. Load the weights again."
        )
