"""Notes: what the engine remembers of a live tensor, kept as an attribute of the tensor itself."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relprop.engine.run import Run
from relprop.engine.tensor_attributes import NOTE
from relprop.torch_private.autograd_graph import leaf_of, notes_on

NOTE_NAME = NOTE.name
"""The attribute of a note. What runs at every operand reads it directly: a call costs more than what it does."""


class Note:
    """What the engine remembers of a live tensor.

    It holds for the tensor's numbers at that time. `version` shows whether they were overwritten since, even by a view.

    Attributes:
        run: the run that made the tensor.
        version: the tensor's version when the note was written.
        move: where its entries were before they were moved or copied; None if they are new numbers.
        chain: the elementwise function of another tensor that it is, if it is one.
        forked: whether a tensor was made from this one that may meet it again.
        later: the note of the same tensor after it was written into.
        layer: the weighted layer that made it, with that layer's `input`.
        scaled: that layer and a factor per channel, if the tensor was scaled.
        roles: what else it is known to be, by the name of the role (see `engine.roles`).
    """

    __slots__ = (
        "__weakref__",
        "chain",
        "forked",
        "input",
        "later",
        "layer",
        "move",
        "roles",
        "run",
        "scaled",
        "version",
    )  # fmt: skip

    def __init__(self, run: Run, version: int = 0) -> None:
        self.version = version
        self.move: Move | None = None
        self.chain: Chain | None = None
        self.forked = False
        self.later: Note | None = None
        self.layer: Any = None
        self.input: Tensor | None = None
        self.scaled: tuple[Any, Tensor] | None = None
        self.roles: dict[str, Any] | None = None
        self.run = run
        run.writes.notes.append(weakref.ref(self))

    def clear(self) -> None:
        """Forgets everything but the run, and releases all tensors."""
        self.version, self.forked = 0, False
        self.move = self.chain = self.later = self.layer = self.input = self.scaled = self.roles = None

    def starts(self) -> None:
        """Forgets which function of another tensor it is: an activation of it starts here."""
        self.chain = None

    def role(self, name: str) -> Any:
        """What is known of the tensor in this role; None if it does not have the role."""
        return None if self.roles is None else self.roles.get(name)

    def give(self, name: str, value: Any) -> None:
        """Notes a role."""
        if self.roles is None:
            self.roles = {name: value}
        else:
            self.roles[name] = value


class Chain(NamedTuple):
    """A tensor as an elementwise function of another: `step` of `source`, with its entries then moved by `moves`.

    `note` and `version` are the source's at that time, for a later write gives the source new numbers. The source is None
    where those numbers are gone: then only the function and the note are known.
    """

    step: Any
    source: Tensor | None = None
    moves: tuple[Move, ...] = ()
    note: Note | None = None
    version: int = 0


class Move(NamedTuple):
    """One operation that moved the entries of a tensor; `function` is None if they stayed in place."""

    note: Note
    shape: torch.Size
    function: Callable[..., Any] | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    part: int | None

    def __call__(self, t: Tensor) -> Tensor:
        """Applies the same move to another tensor of that shape."""
        if self.function is None:
            return t
        result = self.function(t, *self.args, **self.kwargs)
        return result if self.part is None else result[self.part]


def note_of(tensor: Tensor) -> Note | None:
    """The engine's note on a tensor, if it has one."""
    return getattr(tensor, NOTE_NAME, None)


def continues(note: Note) -> bool:
    """Whether a tensor is known to be an elementwise function of a tensor that is still there."""
    return note.chain is not None and note.chain.source is not None


def role_of(value: Any, name: str) -> Any:
    """What is known of a live tensor in a role; None if it does not have the role."""
    note = note_of(value) if isinstance(value, Tensor) and value.requires_grad else None
    return None if note is None or note.roles is None else note.roles.get(name)


def noted(run: Run, tensor: Tensor) -> Note:
    """This run's note on a live tensor; a new one if there is none."""
    note: Note | None = getattr(tensor, NOTE_NAME, None)
    return note if note is not None and note.run is run else renew(run, tensor)


def adopt(run: Run, result: Any) -> None:
    """Notes on all live tensors of a result that an operation of this run returned them."""
    if isinstance(result, Tensor):
        if result.requires_grad:
            note = getattr(result, NOTE_NAME, None)
            if note is None or note.run is not run:
                note = renew(run, result)
            note.version = result._version
    elif isinstance(result, (list, tuple)):
        for item in result:
            adopt(run, item)
    elif isinstance(result, dict):
        for item in result.values():
            adopt(run, item)


def renew(run: Run, tensor: Tensor) -> Note:
    """Writes a new note on a live tensor that was written into. A view remains a part of its base."""
    old: Note | None = getattr(tensor, NOTE_NAME, None)
    note = Note(run, tensor._version)
    setattr(tensor, NOTE_NAME, note)  # as `NOTE.put`, at every operation
    if old is not None and old.run is run:
        run.writes.rewritten.append(weakref.ref(tensor))
        old.later = note
        # a copy has numbers of its own, however often both were overwritten
        if old.move is not None and tensor._is_view() and (base := old.move.note.later) is not None:
            while base.later is not None:
                base = base.later
            if base.version == note.version:
                note.move = old.move._replace(note=base)
    return note


def begin(run: Run, tensor: Tensor) -> Tensor:
    """A live tensor at which relevance enters the run, with the values of a leaf."""
    live = tensor.clone()
    notes_on(live.grad_fn)["relprop"] = run
    renew(run, live)
    if run.trace.recorder is not None:
        run.trace.recorder.start(live, sink=run.inputs.is_sink(tensor))
    return live


def descends(run: Run, tensor: Tensor) -> bool:
    """Whether a tensor's history leads back to this run's inputs."""
    stack, seen = [tensor.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if notes_on(node).get("relprop") is run or id(leaf_of(node)) in run.inputs.live:
            return True
        stack += [child for child, _ in node.next_functions]
    return False
