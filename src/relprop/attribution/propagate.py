"""The engine alone, as a context manager: autograd does the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from relprop.attribution.trees import leaves
from relprop.composites import Composite, by_name
from relprop.engine import Propagation, Run
from relprop.engine.eager import uncompiled
from relprop.engine.run import outside
from relprop.errors import CompositeError, InputError
from relprop.rules import Rule
from relprop.torch_private.calls import module_depth


def resolve(composite: Composite | str) -> Composite | None:
    """A composite from its name; None for "auto"."""
    if isinstance(composite, Composite):
        return composite
    if isinstance(composite, str):
        return None if composite == "auto" else by_name(composite)
    hint = ""
    if isinstance(composite, Mapping):
        hint = " Write Composite({...}) around it."
    elif isinstance(composite, Rule):
        hint = f" Say where it acts, as in Composite({{'conv': {composite!r}, 'linear': {composite!r}}})."
    raise CompositeError(f"composite must be a Composite or the name of one; got {composite!r}.{hint}")


@contextmanager
def propagate(
    composite: Composite | str = "auto", *, model: Any = None, inputs: Any = None, strict: bool = True
) -> Iterator[Run]:
    """Inside, autograd carries relevance: `R(x) = x * torch.autograd.grad(score, x)`.

    Tensors that require grad carry relevance, parameters do not.
    `create_graph=True` works, so relevance can be trained on.

    Args:
        composite: the rules, or the name of a composite.
        model: the model, where the composite names module paths.
        inputs: the tensors that carry relevance, where that is not every tensor that requires grad.
        strict: whether an unknown operation is an error.

    Raises:
        CompositeError: there is no such composite, or it names a path the model lacks.
        InputError: an input does not require grad.
    """
    chosen = resolve(composite)
    if chosen is not None and model is not None:
        chosen.check(dict(model.named_modules(remove_duplicate=False)))
    run = Run(chosen, model, strict=strict, adopt=inputs is None)
    named = [t for _, t in leaves(inputs) if isinstance(t, Tensor)]
    if any(not t.requires_grad for t in named):
        raise InputError("inputs of propagate must require grad: x.requires_grad_().")
    run.inputs = {id(t) for t in named}
    run.own_from = module_depth() + 1  # what is called here itself trains on relevance
    with uncompiled(), outside(), Propagation(run):
        yield run
