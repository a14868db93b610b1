"""Relevance of hidden layers: temporary hooks catch their tensors, and gradients at the edges give the relevance."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from relprop.engine.door import standing
from relprop.engine.notes import note_of
from relprop.engine.run import Run
from relprop.engine.undo import Undo
from relprop.errors import InputError
from relprop.numerics import nonzero, product
from relprop.trees import leaves

HEADS = "heads"
"""`"path.heads"` names the outputs of the heads of the attention in a module."""


@dataclass(frozen=True)
class Heads:
    """The heads of the attention that runs in a module's own forward.

    Attributes:
        module: the module.
        asked: whether it was asked for by its own path, not by a glob.
    """

    module: nn.Module
    asked: bool


PARTS = ("latents", "reconstruction", "error")
"""`"path.latents"` and so on name the tensors that a splice makes of a layer's output."""


@dataclass(frozen=True)
class SplicedPart:
    """A tensor that a splice makes.

    Attributes:
        path: the layer of the splice.
        name: which tensor.
    """

    path: str
    name: str

    @property
    def key(self) -> str:
        """Its name in the model."""
        return f"{self.path}.{self.name}".lstrip(".")


@dataclass(frozen=True)
class Steps:
    """A state of a recurrent layer at each step.

    Attributes:
        module: the layer.
        name: which state: "steps" or "cells", with the number of the layer and "_reverse" as torch names parameters.
    """

    module: nn.Module
    name: str


class Catch:
    """One tensor that passed a layer.

    Attributes:
        value: a copy of the tensor.
        nz: whether its exact zeros carry relevance.
        arranged: brings its relevance into the shape that is reported, if that is another.
        edge: its place in the graph; None where it carries no relevance.
        layer: the weighted layer that made it, if any.
        reported: the relevance that this layer reports, where no gradient arrives at the edge.
    """

    def __init__(self, tensor: Tensor, nz: bool, arranged: Callable[[Tensor], Tensor] | None = None) -> None:
        self.arranged = arranged
        if tensor.requires_grad and note_of(tensor) is None:
            tensor.view_as(tensor)  # the engine meets the result of a custom function in this operation
            tensor = standing(tensor)
        self.value, self.nz = tensor.detach().clone(), nz
        self.edge = get_gradient_edge(tensor) if tensor.requires_grad else None
        self.reported: Tensor | None = None
        note = note_of(tensor)
        self.layer = note.layer if note is not None and note.version == tensor._version else None
        if self.layer is not None:
            # a BatchNorm folded into this layer bypasses its output: the layer reports its relevance instead
            self.layer.probe(self._report)

    def _report(self, relevance: Tensor) -> None:
        self.reported = relevance.detach()

    def close(self) -> None:
        """Lets go of the graph, which refers back to this catch through the layer."""
        self.edge = self.reported = None
        if self.layer is not None:
            self.layer.site.release_probes()
        self.layer = None

    def read(self, g: Tensor | None) -> Tensor:
        """The relevance of the tensor, from the gradient at its edge."""
        if g is not None:
            relevance = product(nonzero(self.value) if self.nz and not self.value.is_complex() else self.value, g)
        else:
            relevance = (
                self.reported
                if self.reported is not None
                else torch.zeros_like(self.value, dtype=self.value.dtype.to_real())
            )
        return relevance if self.arranged is None else self.arranged(relevance)


def wanted(
    model: Any, layers: Any, option: str = "layers", parts: Mapping[str, SplicedPart] | None = None
) -> dict[str, Any]:
    """The modules that paths, globs and module objects name, by path.

    `layers` may also name the heads of attentions, and the tensors that splices make, `parts`.
    """
    if layers is None:
        return {}
    if not isinstance(model, nn.Module):
        raise InputError(f"{option}= needs a model that is a torch.nn.Module; this one is a plain function.")
    modules = dict(model.named_modules(remove_duplicate=False))
    chosen: dict[str, Any] = {}
    items = [layers] if isinstance(layers, (str, nn.Module)) else layers
    if not isinstance(items, Iterable):
        raise InputError(f"{option} must be module paths, globs or modules; got {layers!r}.")
    for item in items:
        if isinstance(item, nn.Module):
            found = {name: m for name, m in modules.items() if m is item}
            found = dict(list(found.items())[:1])
        elif not isinstance(item, str):
            raise InputError(f"{option} must be module paths, globs or modules; got {item!r} among them.")
        else:
            found = {name: m for name, m in modules.items() if fnmatchcase(name, item)}
            if not found and option == "layers":
                made: dict[str, Any] = {name: part for name, part in (parts or {}).items() if fnmatchcase(name, item)}
                found = made or _steps(modules, item) or _heads(modules, item)
        if not found:
            what = f"module {type(item).__name__}" if isinstance(item, nn.Module) else f"{item!r}"
            names = [name for name in modules if name]
            known = (
                f"Modules: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}" if names else "It has no parts."
            )
            raise InputError(f"{option}: {what} is not part of the model. {known}")
        chosen.update(found)
    return chosen


STEP = re.compile(r"(steps|cells)(?:_l(\d+)(_reverse)?)?")
"""How a state of a recurrent layer is called."""


def _steps(modules: dict[str, nn.Module], item: str) -> dict[str, Any]:
    """The state of a recurrent layer that a path names.

    Raises:
        InputError: the layer has no such state.
    """
    path, _, name = item.rpartition(".")
    match, module = STEP.fullmatch(name), modules.get(path)
    if match is None or module is None:
        return {}
    if not isinstance(module, nn.RNNBase):
        raise InputError(
            f"layers: {item!r} names a state of a recurrent layer (nn.LSTM, nn.GRU, nn.RNN), and {path!r} is a "
            f"{type(module).__name__}."
        )
    ways = [f"_l{n}{turn}" for n in range(module.num_layers) for turn in ("", "_reverse")[: 1 + module.bidirectional]]
    states = ("steps", "cells") if isinstance(module, nn.LSTM) else ("steps",)
    known = [state + way for state in states for way in ([""] if len(ways) == 1 else []) + ways]
    if name not in known:
        raise InputError(f"layers: {path!r} has no {name!r}. It has: {', '.join(known)}.")
    return {item: Steps(module, name)}


def _heads(modules: dict[str, nn.Module], item: str) -> dict[str, Any]:
    """The heads that a path or a glob names."""
    named = {f"{name}.{HEADS}".lstrip("."): m for name, m in modules.items()}
    return {name: Heads(m, asked=name == item) for name, m in named.items() if fnmatchcase(name, item)}


@contextmanager
def catching(caught: dict[str, list[Catch]], modules: dict[str, Any], at: str, run: Run) -> Iterator[None]:
    """While this lasts, catches the tensors that pass these modules in this thread."""
    thread = threading.get_ident()
    with Undo() as undo:
        for name, module in modules.items():

            def catch(value: Any, name: str = name) -> None:
                if threading.get_ident() == thread:
                    for _, tensor in leaves(value):
                        if isinstance(tensor, Tensor) and (tensor.is_floating_point() or tensor.is_complex()):
                            caught[name].append(Catch(tensor, run.sites.nz_hidden))

            if isinstance(module, Heads):
                run.trace.show_heads(
                    module.module,
                    lambda t, arranged, name=name: caught[name].append(Catch(t, run.sites.nz_hidden, arranged)),
                )
                continue
            if isinstance(module, Steps):
                run.trace.show_steps(
                    module.module, module.name, lambda t, name=name: caught[name].append(Catch(t, run.sites.nz_hidden))
                )
                continue
            if isinstance(module, SplicedPart):
                run.trace.show_part(module.key, lambda t, name=name: caught[name].append(Catch(t, run.sites.nz_hidden)))
                continue
            # In another thread k may be missing while this thread removes the hook. Registering and noting the hook share
            # a line, because an interrupt between two lines would leave it.
            if at == "input":
                before = module.register_forward_pre_hook
                undo.later(before(lambda m, a, k=None, catch=catch: catch((a, k)), with_kwargs=True).remove)
            else:
                undo.later(module.register_forward_hook(lambda m, a, out, catch=catch: catch(out)).remove)
        yield
    asked = [module.asked for module in modules.values() if isinstance(module, Heads)]
    silent = [name for name, module in modules.items() if isinstance(module, Heads) and not caught[name]]
    if any(modules[name].asked for name in silent) or (asked and len(silent) == len(asked)):
        raise InputError(
            f"layers: no attention ran in the forward of {', '.join(map(repr, silent[:4]))}. Heads are those of "
            "scaled_dot_product_attention and of nn.MultiheadAttention; where a model writes its attention out, take what "
            'enters the projection behind it: layers_at="input".'
        )
    for name in silent:
        del caught[name]
