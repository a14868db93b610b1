"""The ledger: which operation kept how much relevance for its constants, stabilisers and offsets.

What arrives at an operation's results less what it hands to its live operands is what it absorbed. Both sides are
read off the graph by hooks on the nodes at the edge between one operation and the next, so no handler takes part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge

from relprop.numerics import nonzero

Edge = tuple[Node, int]

CAUSES = {
    "conv": "biases and stabilisers",
    "linear": "biases and stabilisers",
    "bilinear": "biases and stabilisers",
    "batch_norm": "biases and stabilisers",
    "activation": "activations that are not 0 at 0",
    "softmax": "softmax",
    "attention": "attention",
    "norm": "normalisation",
    "sum": "constants in sums",
    "product": "products",
    "division": "divisions",
    "recurrent": "recurrent layers",
}
"""What absorbed relevance, by family of operations."""
OTHER = "other constants"


@dataclass
class Entry:
    """What one call of one operation absorbed.

    Attributes:
        family: its family.
        name: the operation.
        where: the module that called it.
        absorbed: relevance, shape (N,), float64.
    """

    family: str
    name: str
    where: str
    absorbed: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    @property
    def cause(self) -> str:
        return CAUSES.get(self.family, OTHER)


class Ledger(Mapping[str, Tensor]):
    """Where the residual went: a mapping from a cause to the relevance it absorbed, shape (N,), float64.

    The sum over all causes is the residual, but for rounding; a cause that kept nothing but rounding is left out. `entries` has one line per call of an operation, and
    `print(ledger)` shows the largest.
    """

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        causes: dict[str, Tensor] = {}
        for entry in entries:
            causes[entry.cause] = causes[entry.cause] + entry.absorbed if entry.cause in causes else entry.absorbed
        sizes = {cause: float(kept.abs().max()) for cause, kept in causes.items()}
        rounding = 1e-12 * max(sizes.values(), default=0.0)
        self._causes = {cause: kept for cause, kept in causes.items() if sizes[cause] > rounding}

    def __getitem__(self, cause: str) -> Tensor:
        return self._causes[cause]

    def __iter__(self) -> Iterator[str]:
        return iter(self._causes)

    def __len__(self) -> int:
        return len(self._causes)

    def __bool__(self) -> bool:
        return bool(self.entries)

    @staticmethod
    def joined(parts: list[Ledger]) -> Ledger:
        """The ledger of one batch from those of its parts."""
        rows = zip(*(part.entries for part in parts), strict=True)
        return Ledger([Entry(r[0].family, r[0].name, r[0].where, torch.cat([e.absorbed for e in r])) for r in rows])

    def sample(self, index: int | slice) -> Ledger:
        """The ledger of some samples."""
        return Ledger([Entry(e.family, e.name, e.where, e.absorbed[index]) for e in self.entries])

    def __str__(self) -> str:
        rows = [(f"{e.name} ({e.family}) in {e.where}", e.absorbed.tolist()) for e in self.entries]
        rows = sorted(rows, key=lambda row: -max(map(abs, row[1]), default=0.0))[:12]
        width = max((len(name) for name, _ in rows), default=0)
        return "\n".join(f"{name:<{width}}  {' '.join(f'{v:10.4g}' for v in kept)}" for name, kept in rows)

    __repr__ = __str__


class Recorder:
    """Books what each operation of a run hands on, backward pass by backward pass."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._values: dict[Edge, tuple[Tensor, int]] = {}
        self._balance: dict[int, float] = defaultdict(float)

    def start(self, tensor: Tensor) -> None:
        """A tensor with which relevance ends: an input, or rows an embedding looked up."""
        self._values[edge_of(tensor)] = (_value(tensor), -1)

    def record(self, family: str, name: str, where: str, results: Any) -> None:
        """Books one operation, just called."""
        number = len(self.entries)
        made = {edge: t for t in tensors(results) if (edge := edge_of(t)) not in self._values}
        if not made:
            return
        self._watch({node for node, _ in made}, number)
        self._values.update({edge: (_value(t), number) for edge, t in made.items()})
        self.entries.append(Entry(family, name, where))

    def _watch(self, nodes: set[Node], number: int) -> None:
        """Hooks on the nodes of one operation that hand gradients to operands known before."""
        stack, seen = list(nodes), set()
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            edges = [(place, edge) for place, edge in enumerate(node.next_functions) if edge[0] is not None]
            outer = [(place, *self._values[edge]) for place, edge in edges if edge in self._values]
            stack += [edge[0] for _, edge in edges if edge[0] is not None and edge not in self._values]
            if outer:
                node.register_hook(lambda gradients, _, outer=outer: self._hand_on(gradients, outer, number))

    def _hand_on(self, gradients: tuple[Tensor | None, ...], outer: list[tuple[int, Tensor, int]], number: int) -> None:
        for place, value, maker in outer:
            g = gradients[place]
            if g is not None:
                handed = float((value * g.double()).sum())
                self._balance[number] -= handed
                self._balance[maker] += handed

    def close(self, edge: Edge, seed: float) -> list[float]:
        """What each operation absorbed since the last call, given what was handed to the score."""
        self._balance[self._values[edge][1]] += seed
        kept = [self._balance[number] for number in range(len(self.entries))]
        self._balance.clear()
        return kept


def edge_of(tensor: Tensor) -> Edge:
    """Where a tensor's gradient arrives in the graph."""
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def _value(tensor: Tensor) -> Tensor:
    """A copy to read relevance with: an exact zero may carry some (see `numerics`)."""
    return nonzero(tensor.detach().double())


def tensors(value: Any) -> Iterator[Tensor]:
    """The live tensors of a result."""
    if isinstance(value, Tensor):
        if value.requires_grad:
            yield value
            if value._is_view() and value._base is not None and value._base.requires_grad and value._version:
                yield value._base
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
