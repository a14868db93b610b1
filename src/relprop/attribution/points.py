"""Points: the places of hidden tensors in autograd's graph, where conditions act and relevance of nodes is read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from relprop.attribution.conditions import Condition, Units
from relprop.attribution.layers import Heads, SplicedPart, Steps, wanted
from relprop.engine.door import standing
from relprop.engine.notes import note_of
from relprop.engine.recorder import Edge, edge_of
from relprop.engine.run import Run
from relprop.engine.undo import Undo
from relprop.errors import InputError
from relprop.numerics import nonzero
from relprop.trees import leaves

Key = tuple[str, str]
"""A layer's path, and "output" or "input"."""


class Point:
    """One tensor that passed a layer.

    Attributes:
        edges: the edges at which its relevance passes, with a copy of the tensor there. A weighted layer that is merged
            with what follows (a BatchNorm) has a further one at the merged output, which has the same units.
        shape: the shape in which its units are counted.
    """

    def __init__(self, tensor: Tensor, run: Run, arranged: Callable[[Tensor], Tensor] | None = None) -> None:
        self._run, self._arranged = run, arranged
        self._layer: Any = None
        if tensor.requires_grad and note_of(tensor) is None:
            tensor.view_as(tensor)  # the engine meets the result of a custom function in this operation
            tensor = standing(tensor)
        self.raw = tensor.shape
        self.shape = tensor.shape if arranged is None else arranged(tensor.detach()).shape
        self.edges: list[tuple[Edge, Tensor]] = []
        if not tensor.requires_grad:
            return
        self.follow(tensor)
        note = note_of(tensor)
        if note is not None and note.version == tensor._version and (note.layer or note.scaled):
            self._layer = note.layer if note.scaled is None else note.scaled[0]
            self._layer.follow(self.follow)

    def follow(self, tensor: Tensor) -> None:
        """Adds the edge of a tensor through which the relevance passes as well."""
        self.edges.append((edge_of(tensor), tensor.detach().clone()))

    def close(self) -> None:
        """Lets go of the graph."""
        self.edges = []
        if self._layer is not None:
            self._layer.site.release_followers()
        self._layer = None

    @property
    def nodes(self) -> set[Node]:
        return {edge[0] for edge, _ in self.edges}

    def arranged(self, raw: Tensor) -> Tensor:
        """A tensor in the shape in which units are counted."""
        return raw if self._arranged is None else self._arranged(raw)

    def raw_weights(self, weights: Tensor) -> Tensor:
        """Weights of the units in the shape of the tensor in the graph."""
        if self._arranged is None:
            return weights
        where = torch.zeros(self.raw, dtype=weights.dtype, device=weights.device, requires_grad=True)
        with torch.enable_grad():
            made = self._arranged(where)
        return torch.autograd.grad(made, where, weights.expand_as(made))[0]  # it moves entries, so this moves them back

    def relevance(self, gradients: Iterable[Tensor | None]) -> Tensor | None:
        """The relevance at all edges together; None if none arrived."""
        nz, found = self._run.sites.nz_hidden, None
        for (_, value), g in zip(self.edges, gradients, strict=True):
            if g is not None:
                part = (nonzero(value) if nz else value) * g
                found = part if found is None else found + part
        return None if found is None else self.arranged(found)

    @property
    def value(self) -> Tensor:
        """The numbers of the tensor; those after the merged operation where relevance passes there."""
        return self.arranged(self.edges[-1][1])


class Watch:
    """Catches the tensors that pass layers.

    Attributes:
        layers: the modules, by path and side.
        seen: for each of them the runs, each with the floating-point tensors that passed.
    """

    def __init__(self, layers: dict[Key, Any]) -> None:
        self.layers = layers
        self.seen: dict[Key, list[list[Point]]] = {key: [] for key in layers}

    @contextmanager
    def watching(self, run: Run) -> Iterator[None]:
        """While this lasts, catches what passes in this thread."""
        thread = threading.get_ident()
        with Undo() as undo:
            for key, module in self.layers.items():

                def catch(value: Any, key: Key = key) -> None:
                    if threading.get_ident() == thread:
                        tensors = [t for _, t in leaves(value) if isinstance(t, Tensor)]
                        if any(t.is_complex() for t in tensors):
                            raise InputError(
                                f"what passes layer {key[0]!r} is complex, and units are of real numbers: name a layer before or "
                                "after it. layers= alone, without conditions, reports the relevance of complex numbers too."
                            )
                        self.seen[key].append([Point(t, run) for t in tensors if t.is_floating_point()])

                if isinstance(module, Heads):
                    run.trace.show_heads(
                        module.module, lambda t, arranged, key=key: self.seen[key].append([Point(t, run, arranged)])
                    )
                elif isinstance(module, Steps):
                    run.trace.show_steps(
                        module.module, module.name, lambda t, key=key: self.seen[key].append([Point(t, run)])
                    )
                elif isinstance(module, SplicedPart):
                    run.trace.show_part(module.key, lambda t, key=key: self.seen[key].append([Point(t, run)]))
                elif key[1] == "input":
                    before = module.register_forward_pre_hook
                    undo.later(before(lambda m, a, k=None, catch=catch: catch((a, k)), with_kwargs=True).remove)
                else:
                    undo.later(module.register_forward_hook(lambda m, a, out, catch=catch: catch(out)).remove)
            yield

    def point(self, units: Units) -> Point:
        """The point of units.

        Raises:
            InputError: the layer did not run, ran several times, or gave no such tensor.
        """
        runs = self.seen[units.path, units.at]
        if not runs:
            raise InputError(f"{units.said}: the layer did not run in the forward of the model.{_no_heads(units)}")
        if len(runs) > 1 and units.run is None:
            raise InputError(
                f"{units.said}: the layer ran {len(runs)} times. Say which run, relprop.units({units.path!r}, run=0) to "
                f"run={len(runs) - 1}; several runs are joined with |."
            )
        number = units.run or 0
        if not -len(runs) <= number < len(runs):
            raise InputError(
                f"{units.said}: the layer ran {len(runs)} time{'s' * (len(runs) > 1)}, so there is no run {number}."
            )
        tensors = runs[number]
        if not -len(tensors) <= units.part_of < len(tensors):
            raise InputError(
                f"{units.said}: the layer has {len(tensors)} floating-point tensors there; got part={units.part_of}."
            )
        return tensors[units.part_of]

    def close(self) -> None:
        """Lets go of the graph."""
        for runs in self.seen.values():
            for point in (point for run in runs for point in run):
                point.close()


def _no_heads(units: Units) -> str:
    if not units.path.endswith(".heads"):
        return ""
    return (
        " Heads are those of scaled_dot_product_attention and of nn.MultiheadAttention; where a model writes its attention "
        "out, take the units that enter the projection behind it, at='input'."
    )


def named(model: Any, condition: Condition | None, parts: Mapping[str, SplicedPart] | None = None) -> Condition | None:
    """The condition with the layers' paths in place of modules."""
    if condition is None:
        return None

    def path(layer: Any) -> str:
        if isinstance(layer, str) and any(sign in layer for sign in "*?["):
            raise InputError(f"units names one layer; {layer!r} is a pattern. Join several with |.")
        return next(iter(_wanted(model, layer, parts)))

    return condition.named(path)


def _wanted(model: Any, layer: Any, parts: Mapping[str, SplicedPart] | None = None) -> dict[str, Any]:
    try:
        return wanted(model, [layer], "layers", parts)
    except InputError as error:
        near = ""
        if isinstance(layer, str) and hasattr(model, "named_modules"):
            from difflib import get_close_matches

            names = [*(parts or {}), *(name for name, _ in model.named_modules() if name)]
            close = get_close_matches(layer, names, 3)
            near = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise InputError(
            f"{error.message.replace('layers=', 'units', 1).replace('layers', 'units', 1)}{near}"
        ) from None


def modules_of(
    model: Any, conditions: Iterable[Condition | None], parts: Mapping[str, SplicedPart] | None = None
) -> dict[Key, Any]:
    """The modules that conditions name, by path and side."""
    found: dict[Key, Any] = {}
    for condition in conditions:
        for term in [] if condition is None else condition.terms():
            for one in (*term.through, *term.around):
                module = _wanted(model, one.path, parts)[one.path]
                if isinstance(module, (Heads, SplicedPart, Steps)) and one.at == "input":
                    what = (
                        "heads"
                        if isinstance(module, Heads)
                        else "states"
                        if isinstance(module, Steps)
                        else "tensors of a splice"
                    )
                    raise InputError(f"{one.said}: {what} have no input of their own; leave at= out.")
                found[one.path, one.at] = module
    return found


def below(points: Iterable[Point]) -> set[Node]:
    """The nodes of the graph that relevance from these points may reach."""
    stack: list[Any] = [child for point in points for node in point.nodes for child, _ in node.next_functions]
    seen: set[Any] = {None}
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack += [child for child, _ in node.next_functions]
    seen.discard(None)
    return seen
