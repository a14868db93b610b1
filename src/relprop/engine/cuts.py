"""Graph breaks: where the numbers of an input continue without relevance, as in a cast, a detach or a comparison.

A break does no harm if the same numbers also reach the score on another path, as in a relu written with a comparison.
Numbers that reach it on no other path get 0, as if they did not matter. The search for them follows the forward pass:
it takes the operands of breaks whose nodes the scores do not lead back to, and finds the input entries they depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from relprop.engine.integer_inputs import Positions
from relprop.torch_private.autograd_graph import function_of, leaf_of

_MOST = 64
"""How many breaks a run remembers. Each keeps a part of the graph alive."""
_NEAR = 24
"""The most nodes between an input and a cast to integers for which the entries are still traced."""
_FRESH = frozenset({
    "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like", "new_zeros", "new_ones",
    "new_empty", "new_full", "new_tensor",
})  # fmt: skip
"""These take a shape from their operand, but no numbers."""
BY_ENTRY = frozenset({
    "long", "int", "short", "char", "byte", "to", "type", "type_as", "round", "floor", "ceil", "trunc", "fix", "detach",
    "floor_divide", "floordiv", "div", "divide",
})  # fmt: skip
"""Each entry of the result comes from the operand's entry at the same position, and may name a row of a table."""
_NUMBERS = frozenset({"item", "tolist", "numpy", "float", "int", "index", "complex", "array", "bool"})
"""These take numbers and do not return a tensor."""


@dataclass(frozen=True)
class Cut:
    """One graph break: its operation and place, and the shape, dtype and device of its operand.

    `counts`: it made an integer of each entry, which may name a row of a table.
    `vague`: it is not known which entries of an input its operand depends on.
    """

    what: str
    edge: GradientEdge
    like: tuple[torch.Size, torch.dtype, torch.device]
    counts: bool = False
    vague: bool = False


class Cuts:
    """The graph breaks of one run."""

    def __init__(self) -> None:
        self._met: dict[Any, Cut] = {}

    def note(self, name: str, where: Callable[[], str], operand: Tensor, result: Any) -> None:
        """Notes a break, unless only a shape was taken."""
        name = name.strip("_")
        takes = False
        if name not in _FRESH:
            for t in result if isinstance(result, tuple) else (result,):
                takes = takes or isinstance(t, Tensor)
        if (takes or name in _NUMBERS) and operand.grad_fn is not None and len(self._met) < _MOST:
            edge = get_gradient_edge(operand)
            if (edge.node, edge.output_nr) not in self._met:
                like = operand.shape, operand.dtype, operand.device
                counts = name in BY_ENTRY and isinstance(result, Tensor) and not result.dtype.is_floating_point
                self._met[edge.node, edge.output_nr] = Cut(f"{name} in {where()}", edge, like, counts)

    def entries(
        self, scores: Sequence[Tensor], leaves: list[Tensor], checkpointed: bool = False
    ) -> list[tuple[Cut, list[Tensor | None]]]:
        """The breaks without a path to the scores, each with the entries of the leaves that its operand depends on.

        A backward pass through torch's own operations finds the entries. Rules cannot act yet, and a custom function
        need not have a backward pass. If one of these lies in between, or a part would be recomputed, all entries
        count. This must run before the graph is released.
        """
        if not self._met or not leaves:
            return []
        reached = _behind([s.grad_fn for s in scores])
        found: list[tuple[Cut, list[Tensor | None]]] = []
        for cut in list(self._met.values()):
            if not _made_of(cut.edge.node, reached, leaves):
                continue
            behind = _behind([cut.edge.node])
            if checkpointed or any(function_of(node) is not None for node in behind):
                cut = replace(cut, vague=True)
                found.append((cut, [_all_of(leaf) if _starts(leaf, behind) else None for leaf in leaves]))
                continue
            shape, dtype, device = cut.like
            try:
                made_of = torch.autograd.grad(
                    [cut.edge],
                    leaves,
                    [torch.ones(shape, dtype=dtype, device=device)],
                    retain_graph=True,
                    allow_unused=True,
                )
            except Exception:  # overwritten since, or a user's hook failed
                continue
            found.append((cut, [None if g is None else g != 0 for g in made_of]))
        return found

    def close(self) -> None:
        self._met.clear()


def _behind(nodes: list[Any]) -> set[Any]:
    """All nodes that these nodes lead back to."""
    seen: set[Any] = set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [before for before, _ in node.next_functions]
    return seen


def _starts(leaf: Tensor, nodes: set[Any]) -> bool:
    """Whether one of these nodes is where a leaf enters the graph."""
    return any(leaf_of(node) is leaf for node in nodes)


def _all_of(leaf: Tensor) -> Tensor:
    return torch.ones_like(leaf, dtype=torch.bool)


def _made_of(node: Any, reached: set[Any], leaves: list[Tensor]) -> bool:
    """Whether a node leads back to a leaf through nodes that reach no score. If not, its sources reach one otherwise."""
    if node in reached:
        return False
    mine, waiting, seen = {id(leaf) for leaf in leaves}, [node], set()
    while waiting:
        node = waiting.pop()
        for before, _ in node.next_functions:
            if before is None or before in seen:
                continue
            seen.add(before)
            ends = (before, *(first for first, _ in before.next_functions))  # an input enters by a node of its own
            if any(id(leaf_of(end)) in mine for end in ends):
                return True
            if before not in reached:
                waiting.append(before)
    return False


def traced(run: Any, operand: Tensor) -> Positions | None:
    """Which entry of which input each entry of a tensor comes from; None unless each comes from exactly one.

    Two backward passes read it off the graph, one from ones, one from 1, 2, 3, ... At each entry of the input, the
    quotient of the two gradients is the number of the entry that reads it.
    """
    count = operand.numel()
    if not 0 < count < 2**22 or not run.inputs.starts:
        return None
    nodes, seen = [operand.grad_fn], set()
    while nodes:
        node: Any = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if len(seen) > _NEAR or function_of(node) is not None:  # a rule, which cannot act yet, or a custom function
            return None
        nodes += [before for before, _ in node.next_functions]
    numbers = torch.arange(1, count + 1, device=operand.device).reshape(operand.shape).to(torch.float32)
    leaves = [leaf for _, leaf in run.inputs.starts]
    try:
        ones, counted = (
            torch.autograd.grad(operand, leaves, g.to(operand.dtype), retain_graph=True, allow_unused=True)
            for g in (torch.ones_like(numbers), numbers)
        )
    except RuntimeError:
        return None
    finally:
        if run.trace.recorder is not None:
            run.trace.recorder.forget()
    met = [(number, a, b) for (number, _), a, b in zip(run.inputs.starts, ones, counted, strict=True) if a is not None]
    if len(met) != 1:
        return None
    number, a, b = met[0]
    read = (a != 0).flatten().nonzero()[:, 0]
    reader = (b.flatten()[read].double() / a.flatten()[read].double()).round().long()
    if len(read) != count or not torch.equal(reader.sort()[0], torch.arange(1, count + 1, device=reader.device)):
        return None
    at = torch.empty_like(reader)
    at[reader - 1] = read + 1
    return Positions(run, number, at.reshape(operand.shape))


def part(path: str, entries: Tensor) -> str:
    """An index expression for entries of an input, the same for all samples; entries: bool, with the samples first."""
    if bool(entries.all()):
        return path
    one = entries.any(0)
    for axis in range(one.ndim):
        chosen = one.any(tuple(d for d in range(one.ndim) if d != axis)) if one.ndim > 1 else one
        shape = [-1 if d == axis else 1 for d in range(one.ndim)]
        if not bool(chosen.all()) and torch.equal(one, chosen.reshape(shape).expand(one.shape)):
            places = chosen.nonzero()[:, 0].tolist()
            index = str(places[0]) if len(places) == 1 else str(places)
            return f"{path}[{', '.join([':'] * (axis + 1) + [index])}]"
    return f"{int(entries.sum())} of the {entries.numel()} entries of {path}"
