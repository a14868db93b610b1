"""The engine alone, as a context manager: inside, gradients of autograd are relevance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from relprop.composites import NAMES, Composite, by_name
from relprop.engine import Propagation, Run
from relprop.engine.eager import uncompiled
from relprop.engine.inputs import Inputs
from relprop.engine.model_gradients import ModelGradients
from relprop.engine.overwritten import check_exposed
from relprop.engine.replay import outside
from relprop.errors import CompositeError, InputError
from relprop.rules import Rule
from relprop.signatures import public
from relprop.torch_private.calls import module_depth
from relprop.torch_private.state import ThreadState
from relprop.trees import leaves


def resolve(composite: Composite | str) -> Composite | None:
    """The composite of that name, or the one that is given; None for "auto"."""
    if isinstance(composite, Composite):
        return composite
    if isinstance(composite, str):
        return None if composite == "auto" else by_name(composite)
    hint = ""
    if isinstance(composite, Mapping):
        hint = " Write Composite({...}) around it."
    elif isinstance(composite, Rule):
        hint = f" Say where it acts, as in Composite({{'conv': {composite!r}, 'linear': {composite!r}}})."
    elif isinstance(composite, type):
        hint = (
            f" It is a class: make one, as in Composite({{'conv': {composite.__name__}(...)}})."
            if issubclass(composite, Rule)
            else ""
        )
    elif callable(composite) and getattr(composite, "__name__", "") in NAMES:
        hint = f" Call it: relprop.composites.{composite.__name__}()."
    raise CompositeError(f"composite must be a Composite or the name of one; got {composite!r}.{hint}")


@public("relprop.propagate")
@contextmanager
def propagate(
    composite: Composite | str = "auto", *, model: Any = None, inputs: Any = None, strict: bool = True
) -> Iterator[Run]:
    """Inside, autograd carries relevance: `R(x) = x * torch.autograd.grad(score, x)`.

    Tensors that require grad carry relevance; parameters do not. With `create_graph=True`, relevance can be
    differentiated. The derivative is exact where the rules of hidden layers are the plain gradient; elsewhere a
    `RelpropWarning` says that it is not.

    Args:
        composite: the rules, or the name of a composite.
        model: the model, where the composite names module paths.
        inputs: the tensors that carry relevance, if not all that require grad do.
        strict: whether an unknown operation is an error.

    Raises:
        CompositeError: there is no such composite, or it names a path the model lacks.
        InputError: an input does not require grad.
    """
    named = (
        None if inputs is None else [t for _, t in leaves(inputs) if t is not None]
    )  # they stay alive: the run knows them by identity
    run = _run(composite, model, named, strict)
    state = ThreadState()
    try:
        with uncompiled(), outside(), Propagation(run):
            yield run
            check_exposed(run)
    except BaseException:
        state.restore()  # an interrupt may end the block before it leaves its contexts
        raise


@public("relprop.propagate")  # raises when the block is entered, after the call of propagate
def _run(composite: Any, model: Any, inputs: list[Any] | None, strict: bool) -> Run:
    """The run of one block.

    Raises:
        CompositeError: as in `propagate`.
        InputError: as in `propagate`.
    """
    if isinstance(composite, nn.Module):
        raise CompositeError(
            f"the first argument is the composite; got the model, {type(composite).__name__}: write "
            "relprop.propagate('epsilon', model=model, inputs=x)."
        )
    chosen = resolve(composite)
    if model is not None and not isinstance(model, nn.Module):
        raise InputError(
            f"model must be a torch.nn.Module, whose paths the composite names; got {type(model).__name__}. For a function "
            "leave it out."
        )
    if chosen is not None and model is not None:
        chosen.check(lambda: dict(model.named_modules(remove_duplicate=False)))
    for t in inputs or ():
        if not isinstance(t, Tensor):
            raise InputError(f"inputs of propagate must be tensors that require grad; got {type(t).__name__}.")
        if not t.requires_grad:
            raise InputError("inputs of propagate must require grad: x.requires_grad_().")
    return Run(
        chosen,
        model,
        strict=strict,
        inputs=Inputs(adopt=inputs is None, live=inputs or ()),
        gradients=ModelGradients(own_from=module_depth() + 1),  # gradients taken in the block itself train on relevance
    )
