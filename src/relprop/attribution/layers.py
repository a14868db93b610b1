"""Relevance of hidden layers: temporary hooks catch the tensors, gradient edges their relevance."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from relprop.attribution.trees import leaves
from relprop.engine.run import Run, note_of
from relprop.errors import InputError
from relprop.numerics import nonzero


class Catch:
    """One tensor that passed a layer: its value, its place in the graph, and what a merged layer reports."""

    def __init__(self, tensor: Tensor, nz: bool) -> None:
        if tensor.requires_grad and note_of(tensor) is None:
            tensor.view_as(tensor)  # a custom function's result: the engine meets it here
        self.value, self.nz = tensor.detach().clone(), nz
        self.edge = get_gradient_edge(tensor) if tensor.requires_grad else None
        self.reported: Tensor | None = None
        note = note_of(tensor)
        self.layer = note.layer if note is not None else None
        if self.layer is not None:
            # a BatchNorm merged into this layer bypasses its output: the merged layer reports instead
            self.layer.probes.append(self._report)
            self.layer.readers += 1

    def _report(self, relevance: Tensor) -> None:
        self.reported = relevance.detach()

    def read(self, g: Tensor | None) -> Tensor:
        if g is not None:
            return (nonzero(self.value) if self.nz else self.value) * g
        return self.reported if self.reported is not None else torch.zeros_like(self.value)


def wanted(model: Any, layers: Any, option: str = "layers") -> dict[str, nn.Module]:
    """The modules that paths, globs and module objects name."""
    if layers is None:
        return {}
    if not isinstance(model, nn.Module):
        raise InputError(f"{option}= needs a model that is a torch.nn.Module; this one is a plain function.")
    modules = dict(model.named_modules(remove_duplicate=False))
    chosen: dict[str, nn.Module] = {}
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
        if not found:
            what = f"module {type(item).__name__}" if isinstance(item, nn.Module) else f"{item!r}"
            raise InputError(
                f"{option}: {what} is not part of the model. Modules: {', '.join(n for n in list(modules)[:12] if n)}, ..."
            )
        chosen.update(found)
    return chosen


@contextmanager
def catching(modules: dict[str, nn.Module], at: str, run: Run) -> Any:
    """Catches what passes these modules, in this thread, while the context lasts."""
    caught: dict[str, list[Catch]] = {name: [] for name in modules}
    thread = threading.get_ident()
    with ExitStack() as stack:
        for name, module in modules.items():

            def catch(value: Any, name: str = name) -> None:
                if threading.get_ident() == thread:
                    for _, tensor in leaves(value):
                        if isinstance(tensor, Tensor) and tensor.is_floating_point():
                            caught[name].append(Catch(tensor, run.nz_hidden))

            if at == "input":
                handle = module.register_forward_pre_hook(lambda m, a, k, catch=catch: catch((a, k)), with_kwargs=True)
            else:
                handle = module.register_forward_hook(lambda m, a, out, catch=catch: catch(out))
            stack.callback(handle.remove)
        yield caught
