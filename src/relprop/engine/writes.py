"""What a run remembers of writes into tensors, so that relevance belongs to the numbers that were read."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any
from weakref import ref

from torch import Tensor
from torch.autograd.graph import increment_version

from relprop.torch_private.saved import let_go_of_saved
from relprop.torch_private.weak import strong


class Writes:
    """The notes of a run, and the memory of its tensors.

    Attributes:
        notes: all notes, weakly. After an in-place write, a note may hold a node that holds the note.
        rewritten: the tensors that were written into, weakly.
        shared: live tensors, weakly, by their memory, if a tensor without gradients shares it.
        exposed: tensors whose memory left torch, with their version, a copy, and a text for messages.
        written: the last operations that wrote without being followed: the memory, and a text for messages.
        copying: whether the model overwrites values that a rule still needs, so that copies are kept.
    """

    def __init__(self, copying: bool = False) -> None:
        self.notes: list[ref[Any]] = []
        self.rewritten: list[ref[Tensor]] = []
        self.shared: dict[int, Any] = {}
        self.exposed: list[tuple[Tensor, int, Tensor, str]] = []
        self.written: deque[tuple[int, str]] = deque(maxlen=32)
        self.copying = copying

    def share(self, memory: int, live: Tensor) -> None:
        """Notes that a tensor without gradients shares the memory of a live one."""
        self.shared[memory] = weakref.ref(live)

    def abandon(self, failed: bool = False) -> None:
        """Detaches the tensors that were written into.

        A node holds its saved tensors until its backward pass, and its operation's operands for as long as it lives. If
        such a tensor was overwritten with the node's result, it holds the node in turn. Torch cannot see this cycle.

        Args:
            failed: whether a backward pass met an overwritten tensor. Then the nodes also let go of what they saved.
        """
        nodes: list[Any] = []
        for written in self.rewritten:
            tensor = strong(written)
            if tensor is None:
                continue
            whole = tensor if tensor._base is None else tensor._base
            if whole.grad_fn is not None:
                nodes.append(whole.grad_fn)
                whole.detach_()
            if failed or whole is not tensor:  # a view rebuilds its history when its base has changed
                increment_version(whole)
                of_part = whole.is_complex() != tensor.is_complex() and not whole.requires_grad
                if of_part:  # of a part of complex numbers, torch cannot rebuild a history that is none
                    whole.requires_grad_()
                _ = tensor.grad_fn
                if of_part:
                    whole.requires_grad_(False)
        if failed:
            let_go_of_saved(nodes)

    def close(self) -> None:
        """Releases all tensors."""
        self.shared.clear()
        self.exposed.clear()
        for reference in self.notes:
            if (note := reference()) is not None:
                note.clear()
        self.notes.clear()
        self.rewritten.clear()
