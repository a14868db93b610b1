"""What a run remembers of tensors that are written into, so that relevance is that of the numbers that were read."""

from __future__ import annotations

from collections import deque
from typing import Any
from weakref import ref

from torch import Tensor
from torch.autograd.graph import increment_version


class Writes:
    """The notes of a run, and the memory they tell of.

    Attributes:
        notes: all that were written, weakly. Where a model writes into a tensor, a node that holds one may be held by it.
        rewritten: what was written into, weakly.
        shared: live tensors, by the memory in which a tensor without gradients lies as well; weakly.
        exposed: those whose memory left torch, with their count of changes, a copy, and what is told of it.
        written: the last operations that wrote without being followed: into which memory, and what is told of them.
        copying: whether the model overwrites what a rule still needs, so that copies are kept.
    """

    def __init__(self, copying: bool = False) -> None:
        self.notes: list[ref[Any]] = []
        self.rewritten: list[ref[Tensor]] = []
        self.shared: dict[int, Any] = {}
        self.exposed: list[tuple[Tensor, int, Tensor, str]] = []
        self.written: deque[tuple[int, str]] = deque(maxlen=32)
        self.copying = copying

    def abandon(self) -> None:
        """Takes what was written into out of the graph.

        A node holds what it was given: its saved tensors until its backward pass, its operation's operands as long as it
        lives. Where these were written into with what the node returned, they hold the node in turn, and torch has no
        way to see that.
        """
        for written in self.rewritten:
            tensor = written()
            if tensor is None:
                continue
            whole = tensor if tensor._base is None else tensor._base
            if whole.grad_fn is not None:
                whole.detach_()
            if whole is not tensor:  # a view asks for its history anew where its base has changed
                increment_version(whole)
                _ = tensor.grad_fn

    def close(self) -> None:
        """Lets go of all tensors."""
        self.shared.clear()
        self.exposed.clear()
        for reference in self.notes:
            if (note := reference()) is not None:
                note.clear()
        self.notes.clear()
        self.rewritten.clear()
