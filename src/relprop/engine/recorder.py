"""How much relevance each operation absorbs, read off the graph during a backward pass.

An operation absorbs what arrives at its results minus what it passes to its live operands. Hooks read both off the
nodes at the edges between operations, so handlers take no part. At each edge one number per sample is read; one
operation gives it and another takes it, so the totals balance by construction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from relprop.engine.tensors import tensors_in
from relprop.numerics import nonzero, wide

Edge = tuple[Node, int]
INPUT = -1
"""Stands for the inputs in place of an operation's number."""
SINK = "positions"
"""The family of position encodings, where relevance ends."""
Made = tuple[str, str, str]
"""An operation: its family, its name, and the module that called it."""


class Held:
    """The value of a tensor on whose edge relevance is read. No copy is made unless it may be overwritten."""

    __slots__ = ("maker", "value", "version")

    def __init__(self, tensor: Tensor, maker: int, copied: bool) -> None:
        self.value = tensor.detach().clone() if copied else tensor.detach()
        self.version = self.value._version
        self.maker = maker

    @property
    def intact(self) -> bool:
        return self.value._version == self.version

    def copy(self) -> None:
        """Copies the value, before an overwrite."""
        self.value = self.value.clone()
        self.version = self.value._version


class Overwritten(Exception):
    """A value that the ledger reads was overwritten unseen. It must be copied when it is made."""


class Recorder:
    """Records how much relevance each operation of a run passes on, in each backward pass.

    Args:
        copied: whether values are copied when they are made, for models that overwrite them unseen.

    Attributes:
        entries: one for each operation, in the order of the forward pass.
        samples: the number of samples whose relevance a pass reads separately; 1 reads the total.
        apart: whether each tensor that was read had separate rows for each sample.
        nz: whether exact zeros carry relevance.
    """

    def __init__(self, copied: bool = False) -> None:
        self.entries: list[Made] = []
        self.samples = 1
        self.apart = True
        self.nz = False
        self._copied = copied
        self._held: dict[Edge, Held] = {}
        self._stored: defaultdict[int, list[Held]] = defaultdict(list)
        self._hooks: list[RemovableHandle] = []
        self._handed: list[tuple[int, int, Tensor]] = []

    def start(self, tensor: Tensor, sink: bool = False) -> None:
        """Registers a tensor where relevance ends: an input, rows of a lookup, or a position encoding."""
        maker = INPUT
        if sink:
            maker = len(self.entries)
            self.entries.append((SINK, "position encoding", ""))
        self._hold(tensor, edge_of(tensor), maker)

    def meet(self, operands: list[Tensor]) -> None:
        """Before an operation, registers views written into through their bases: the new node belongs to the writer."""
        for t in operands:
            if t._base is not None and t._base.requires_grad and edge_of(t) not in self._held:
                made = self._held.get(edge_of(t._base))
                if made is not None:
                    self._hold(t, edge_of(t), made.maker)

    def copy(self, tensor: Tensor, of: Tensor) -> None:
        """Records a copy under the operation that made the original."""
        made = self._held.get(edge_of(of))
        if made is not None:
            self._hold(tensor, edge_of(tensor), made.maker)

    def record(self, family: str, name: str, where: str, results: Any) -> None:
        """Records an operation that has just run."""
        number = len(self.entries)
        made = {edge: t for t in with_bases(results) if (edge := edge_of(t)) not in self._held}
        if not made:
            return
        self._watch({node for node, _ in made}, number)
        for edge, t in made.items():
            self._hold(t, edge, number)
        self.entries.append((family, name, where))

    def preserve(self, target: Any) -> None:
        """Copies values in a tensor's memory before the tensor is overwritten."""
        if isinstance(target, Tensor) and (stored := memory_of(target)) is not None:
            for held in self._stored.pop(stored, ()):
                if held.intact:
                    held.copy()

    def _hold(self, tensor: Tensor, edge: Edge, maker: int) -> None:
        stored = memory_of(tensor)
        held = self._held[edge] = Held(tensor, maker, self._copied or stored is None)
        if stored is not None and not self._copied:
            self._stored[stored].append(held)

    def _watch(self, nodes: set[Node], number: int) -> None:
        """Sets hooks on the nodes of one operation that pass gradients to operands known before."""
        stack, seen = list(nodes), set()
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            edges = [(place, edge) for place, edge in enumerate(node.next_functions) if edge[0] is not None]
            outer = [(place, self._held[edge]) for place, edge in edges if edge in self._held]
            stack += [edge[0] for _, edge in edges if edge[0] is not None and edge not in self._held]
            if outer:
                hook = node.register_hook(lambda gradients, _, outer=outer: self._hand_on(gradients, outer, number))
                self._hooks.append(hook)

    def _hand_on(self, gradients: tuple[Tensor | None, ...], outer: list[tuple[int, Held]], number: int) -> None:
        for place, held in outer:
            g = gradients[place]
            if g is not None:
                if not held.intact:
                    raise Overwritten
                self._handed.append((number, held.maker, self._per_sample(held, g)))

    def _per_sample(self, held: Held, g: Tensor) -> Tensor:
        """Relevance per sample, (N,), summed in float64. For inputs each product is rounded as in the result."""
        plain, g = _dense(held.value), _dense(g)
        value = plain if held.maker == INPUT else wide(plain)
        if value.is_complex():  # inside a Fourier transform: both parts carry relevance
            value, g = (torch.view_as_real(part.resolve_conj()) for part in (value, g))
        half = value.dtype is torch.float16  # it cannot represent the stand-in for a zero
        relevance = (nonzero(value) if self.nz and not half else value) * g.detach()
        relevance = relevance.nan_to_num(0.0, torch.inf, -torch.inf)  # memory that was not filled yet, times 0
        total = torch.float64 if relevance.device.type != "mps" else torch.float32
        if self.samples == 1:
            return relevance.sum(dtype=total).reshape(1)
        if relevance.ndim == 0 or relevance.shape[0] % self.samples:
            self.apart = False
            return relevance.sum(dtype=total).expand(self.samples) / self.samples
        return relevance.reshape(self.samples, -1).sum(1, dtype=total)

    def balance(self, edge: Edge, seed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The totals since the last call, in float64 on the CPU.

        Args:
            edge: the score's edge.
            seed: the relevance given to it, (N,).

        Returns:
            What each operation absorbed, (operations, N); what ended in the inputs, (N,); what each edge passed on,
            (edges, N).
        """
        edges = torch.zeros(len(self._handed), self.samples, dtype=torch.float64)
        by_device: defaultdict[torch.device, list[int]] = defaultdict(list)
        for n, (_, _, handed) in enumerate(self._handed):
            by_device[handed.device].append(n)
        for numbers in by_device.values():  # one transfer per device
            edges[numbers] = torch.stack([self._handed[n][2] for n in numbers]).cpu().double()
        kept = torch.zeros(len(self.entries) + 1, self.samples, dtype=torch.float64)
        kept[self._held[edge].maker] += seed.detach().cpu().double()
        givers, takers = ([one[side] % len(kept) for one in self._handed] for side in (0, 1))
        kept.index_add_(0, torch.tensor(givers, dtype=torch.int64), edges, alpha=-1)
        kept.index_add_(0, torch.tensor(takers, dtype=torch.int64), edges)
        self._handed.clear()
        return kept[:-1], kept[-1], edges

    def balance_of(
        self, started: list[tuple[Edge, Tensor]], stopped: list[tuple[Edge, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """The totals of a pass that started at several edges, and in which some relevance was stopped at others.

        Args:
            started: edges with the relevance that started there, (N,).
            stopped: edges with the relevance that went no further, (N,).
        """
        (first, seed), *more = started
        kept, ended, _ = self.balance(first, seed)
        for sign, some in ((1, more), (-1, stopped)):
            for edge, amount in some:
                (kept if (maker := self._held[edge].maker) != INPUT else ended[None])[maker] += (
                    sign * amount.cpu().double()
                )
        return kept, ended

    def begin_pass(self, samples: int, nz: bool) -> None:
        """Sets, before a backward pass, the number of samples it reads and whether exact zeros carry relevance."""
        self.samples, self.apart, self.nz = samples, True, nz

    def forget(self) -> None:
        """Discards what other backward passes through the graph have recorded."""
        self._handed.clear()

    def close(self) -> None:
        """Releases the graph. The garbage collector cannot see the cycle of its nodes and their hooks."""
        for hook in self._hooks:
            hook.remove()
        for holder in (self._hooks, self._held, self._stored, self._handed):
            holder.clear()


def edge_of(tensor: Tensor) -> Edge:
    """Where a tensor's gradient arrives in the graph."""
    edge = get_gradient_edge(tensor)
    return edge.node, edge.output_nr


def memory_of(tensor: Tensor) -> int | None:
    """The memory a tensor lies in; None if it cannot be told, as for some subclasses."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError, ValueError):  # ValueError: a parameter that is made at the first call
        return None


def with_bases(value: Any) -> Iterator[Tensor]:
    """The live tensors of a result and their bases, which were written into or are internal to the operation."""
    for t in tensors_in(value):
        if t.requires_grad:
            yield t
            if t._base is not None and t._base.requires_grad:
                yield t._base


def _dense(t: Tensor) -> Tensor:
    """A tensor with a number in each place. Where a nested or sparse one has none, nothing is lost: there is no relevance."""
    if t.is_nested:
        return torch.nested.to_padded_tensor(t.detach(), 0.0)
    return t if t.layout is torch.strided else t.detach().to_dense()
