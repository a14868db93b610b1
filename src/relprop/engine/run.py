"""The state of one propagation: what ran where, which composite decides, what was cut."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary, ref

import torch
from torch import Tensor, nn

from relprop.composites.composite import UNDECIDED, Composite
from relprop.composites.named import automatic
from relprop.composites.places import Place
from relprop.engine.applied import Applications
from relprop.engine.chance import State
from relprop.engine.cuts import Cuts
from relprop.engine.notes import Note
from relprop.engine.recorder import Recorder
from relprop.engine.registry import Entry
from relprop.engine.tokens import Lookup
from relprop.engine.undo import Undo
from relprop.errors import RuleError, UnsupportedOperationError
from relprop.rules import Rule
from relprop.rules.base import WEIGHTED
from relprop.torch_private.calls import running_module
from relprop.torch_private.state import graph_task, saved_elsewhere, saving_hooks


@dataclass(frozen=True)
class Decision:
    """What was decided at a place, for the recomputation of a checkpointed part."""

    place: Place
    rule: Any
    nz: bool


class Run:
    """One forward pass and its backward passes.

    Args:
        composite: the rules, or None to decide at the end of the forward pass ("auto").
        model: for module paths; None for a plain function.
        strict: whether an unknown operation is an error (else its native gradient is used and recorded).
        adopt: whether live tensors that come from outside are inputs (they are constants otherwise).
        recorder: what records what each operation absorbs.

    Attributes:
        final: whether the backward pass that runs is the last one, so that memory can be given back on the way.
        shared: live tensors, by the memory in which a tensor without gradients lies as well; weakly.
        notes: all that were written, weakly. Where a model writes into a tensor, a node that holds one may be held by it.
        rewritten: what was written into, weakly.
        exposed: those whose memory left torch, with their count of changes, a copy, and what is told of it.
        starts: the inputs that carry relevance, by their number among all.
        written: the last operations that wrote without being followed: into which memory, and what is told of them.
        random: where the generators stood when the last checkpointed block began.
        generators: those that the model was seen to draw from.
        samples: how many there are along the first axis of the inputs.
        mixing: whether an operation did not show that it keeps them apart.
        plain: tensors with a plain graph of their own, of which the model may take a gradient.
        own_from: how many module calls deep a gradient that is taken is the model's own; None where none can be.
        calling: whether the model's forward runs now, and nothing of the caller's.
        asking: whether the caller's own tensors ask for a gradient, so that the model sees such.
        copying: whether the model overwrites what a rule still needs, so that copies are kept.
    """

    def __init__(
        self,
        composite: Composite | None,
        model: Any = None,
        *,
        strict: bool = True,
        adopt: bool = False,
        recorder: Recorder | None = None,
    ) -> None:
        self._composite = composite
        self.model = model
        self.strict = strict
        self.adopt = adopt
        self.final = False
        self.recorder = recorder
        self.families: set[str] = set()
        self.traits: set[str] = set()
        self.scans: set[int | None] = set()
        self.weighted = 0
        self.placements: dict[int, tuple[Place, Rule | None]] = {}
        self._order = 0
        self._names_everything = composite is not None and composite.names_everything
        self.constants: WeakValueDictionary[int, Tensor] = WeakValueDictionary()  # offloaded weights must be free to go
        self.plain: WeakValueDictionary[int, Tensor] = WeakValueDictionary()
        self.own_from: int | None = None
        self.asking = True
        self.calling = False
        self.copying = False
        self._buffers: set[int] | None = None
        self.applications = Applications()
        self.followed: set[Any] = set()
        self.severed: deque[str] = deque(maxlen=8)
        self.cuts = Cuts()
        self.written: deque[tuple[int, str]] = deque(maxlen=32)
        self.shared: dict[int, Any] = {}
        self.exposed: list[tuple[Tensor, int, Tensor, str]] = []
        self.notes: list[ref[Note]] = []
        self.rewritten: list[ref[Tensor]] = []
        self.starts: list[tuple[int, Tensor]] = []
        self.generators: dict[int, torch.Generator] = {}
        self.random: State = []
        self.unknown: Counter[str] = Counter()
        self.checkpointed = False
        self.hooks = saving_hooks()  # of the caller, or those that keep copies: no checkpoint's
        self._journal: dict[Any, list[Decision]] = {}
        self._replayed: Decision | None = None
        self.inputs: set[int] = set()
        self.ids = False
        self.lookups: list[Lookup] = []
        self.positions = False
        self.samples = 1
        self.mixing = False
        self.heads: dict[int, Callable[..., None]] = {}
        self.sinks: list[tuple[str, Tensor]] = []
        self.paths: dict[int, list[str]] = {}
        if isinstance(model, nn.Module):
            for name, module in model.named_modules(remove_duplicate=False):
                self.paths.setdefault(id(module), []).append(name)

    @property
    def composite(self) -> Composite:
        """The composite in force; the first look decides what "auto" stands for."""
        if self._composite is None:
            self._composite = automatic(self.families | self.traits | ({"lookup"} if self.lookups else set()))
        return self._composite

    @property
    def undecided(self) -> bool:
        """Whether "auto" has not made its choice yet."""
        return self._composite is None

    @property
    def nz(self) -> bool:
        """Whether exact zeros may carry relevance at the place now reached."""
        if self._replayed is not None and replaying():
            return self._replayed.nz
        if self._composite is None:
            return self.weighted == 0
        return self._composite.unproportional_hidden or (self._composite.unproportional_first and not self.weighted)

    @property
    def nz_hidden(self) -> bool:
        return self._composite is not None and self._composite.unproportional_hidden

    @property
    def nz_first(self) -> bool:
        """Whether exact zeros of the inputs may carry relevance, now that the composite is known."""
        return self.nz_hidden or (self.weighted > 0 and self.composite.unproportional_first)

    def place(self, entry: Entry, operands: int) -> Place | None:
        """Where the operation now being called stands; counts weighted layers.

        A weighted operation without a constant operand is a product. Operations that move or select values have no
        rule and no place, unless the composite may name them and they are no mere frame around visible steps.
        """
        if entry.family in ("structure", "selection") and (not self._names_everything or entry.decomposes):
            return None
        product = operands > 1 and entry.family in ("linear", "conv", "bilinear")
        return self.locate(entry, "product" if product else entry.family)

    def locate(self, entry: Entry, family: str) -> Place:
        """The place of an operation of any family."""
        module = running_module()
        if replaying():
            self._replayed = self._recall(entry, module)
            return self._replayed.place
        self.checkpointed = self.checkpointed or saved_elsewhere(self.hooks)
        paths = tuple(self.paths.get(id(module), ())) if module is not None else ()
        place = Place(family, entry.function, module, paths, order=self._order)
        self._order += 1
        self.families.add(family)
        if family in WEIGHTED and family != "batch_norm":
            place.index = self.weighted
            self.weighted += 1
        return place

    def rule(self, place: Place) -> Any:
        """The rule for a place: a rule, None for the default, or `UNDECIDED` until the backward pass."""
        if self._replayed is not None and replaying():
            return self._replayed.rule
        rule = self._rule(place)
        if self.checkpointed:
            self._journal.setdefault(place.function, []).append(Decision(place, rule, self.nz))
        return rule

    def forget(self, place: Place) -> None:
        """Takes back a place that an operation turned out not to stand at."""
        if replaying():
            return
        self.placements.pop(place.order, None)
        met = self._journal.get(place.function, [])
        if met and met[-1].place is place:
            met.pop()

    def _recall(self, entry: Entry, module: nn.Module | None) -> Decision:
        """What was decided when a checkpointed operation ran for the first time."""
        met = self._journal.get(entry.function, [])
        found = [decision for decision in met if decision.place.module is module] or met
        if not found and entry.family in ("structure", "selection"):
            return Decision(Place(entry.family, entry.function), None, self.nz_hidden)
        if not found or any(d.rule != found[0].rule or d.nz != found[0].nz for d in found):
            raise UnsupportedOperationError(
                f"{entry.function.__name__} runs again in a checkpointed part of the model, and the composite has several "
                "rules for it there: leave the first layers out of the checkpoint, or name the rule by module path."
            )
        return found[0]

    def _rule(self, place: Place) -> Any:
        if self._composite is None:
            if place.index is not None or place.family == "product":
                return UNDECIDED
            self.placements[place.order] = (place, None)
            return None
        rule = self._composite.rule(place)
        if rule is not UNDECIDED:
            self.placements[place.order] = (place, rule)
        return rule

    def decide(self, place: Place) -> Rule | None:
        """The rule for a place whose decision had to wait for the end of the forward pass."""
        if place.last is None:
            place.last = place.index == self.weighted - 1
        rule = self.composite.rule(place)
        self.placements[place.order] = (place, rule)
        return rule

    @property
    def rules(self) -> list[tuple[Place, Rule | None]]:
        """Where a rule was asked for, and which one acted, in the order of execution; places without their modules."""
        return [(place.recorded(), rule) for place, rule in self._acted()]

    def _acted(self) -> list[tuple[Place, Rule | None]]:
        return [self.placements[order] for order in sorted(self.placements)]

    def refuse(self, entry: Entry, what: str, shapes: str) -> UnsupportedOperationError:
        place = Place(entry.family, entry.function, *self._here())
        return UnsupportedOperationError(f"{place}, given {shapes}: {what}")

    def owns(self, constant: Tensor) -> bool:
        """Whether a constant is the model's: a parameter, a buffer, or made of such alone. Then it is no one sample's."""
        if self._buffers is None:
            self._buffers = {id(t) for t in self.model.buffers()} if isinstance(self.model, nn.Module) else set()
        return (
            isinstance(constant, nn.Parameter)
            or self.constants.get(id(constant)) is constant
            or id(constant) in self._buffers
        )

    def derive(self, result: Any, operands: Iterable[Any], written: Any) -> None:
        """Notes that a result is a constant of the model where all its operands are; what is written into may cease."""
        listed = (a if isinstance(a, (list, tuple)) else (a,) for a in operands)
        given = [t for some in listed for t in some if isinstance(t, Tensor)]
        owned = bool(given) and all(self.owns(t) for t in given)
        if owned and isinstance(result, Tensor):
            self.constants[id(result)] = result
        if not owned and isinstance(written, Tensor):
            self.constants.pop(id(written), None)
            self.constants.pop(id(written._base), None)

    def cut(self, name: str, how: str, operand: Tensor, result: Any) -> None:
        """Remembers where relevance could not follow: for messages, and to say which input it was."""
        if replaying():
            return
        self.severed.append(f"{name}{how} in {self.where()}")
        self.cuts.note(f"{name}{how}", self.where, operand, result)

    def where(self) -> str:
        """The module now running, for messages."""
        _, paths = self._here()
        if paths and paths[0]:
            return f"module '{paths[0]}'"
        return "the model's own forward"

    def attended(self, result: Tensor, arranged: Callable[[Tensor], Tensor] | None = None) -> None:
        """Shows what the heads of an attention made to whom asked for it in this module, (N, heads, T, features)."""
        if self.heads and not replaying():
            see = self.heads.get(id(running_module()))
            if see is not None:
                see(result, arranged)

    def sink(self, constant: Tensor) -> Tensor:
        """A position encoding, made to report the relevance that ends in it."""
        leaf = constant.detach().requires_grad_()
        self.sinks.append((next(iter(self._here()[1]), ""), leaf))
        return leaf

    def is_sink(self, tensor: Tensor) -> bool:
        """Whether a tensor is the position encoding that was made to report last."""
        return bool(self.sinks) and self.sinks[-1][1] is tensor

    def abandon(self) -> None:
        """Takes what was written into out of a graph whose backward pass did not end.

        A node holds what it was given until its backward pass; where that was written into with what the node returned,
        it holds the node in turn, and torch has no way to see that.
        """
        for written in self.rewritten:
            tensor = written()
            if tensor is not None:
                tensor = tensor if tensor._base is None else tensor._base
                if tensor.grad_fn is not None:
                    tensor.detach_()

    def close(self) -> None:
        """Lets go of the graph, which holds this run: no garbage collector sees a circle that leads through its nodes."""
        self.applications = Applications()
        self.heads.clear()
        self.lookups.clear()
        self.sinks.clear()
        self.starts.clear()
        self.shared.clear()
        self.exposed.clear()
        for reference in self.notes:
            if (note := reference()) is not None:
                note.clear()
        self.notes.clear()
        self.rewritten.clear()
        self.cuts.close()
        if self.recorder is not None:
            self.recorder.close()

    def _here(self) -> tuple[nn.Module | None, tuple[str, ...]]:
        module = running_module()
        return module, tuple(self.paths.get(id(module), ()))

    def unmatched(self) -> None:
        """Refuses an entry that named places but could act on none of them."""
        composite = self.composite
        for key, rule in composite.entries:
            met = [place for place, _ in self._acted() if key.match(place)]
            if met and not any(place.family in rule.families for place in met):
                kinds = ", ".join(sorted({place.family for place in met}))
                raise RuleError(
                    f"{rule!r} cannot act on what '{key}' names ({kinds}: {met[0]}); "
                    f"it acts on: {', '.join(sorted(rule.families))}."
                )


_outside: dict[int, set[object]] = {}
"""The calls of ours that run in the hooks and functions of backward passes, by the numbers of these."""


@contextmanager
def outside() -> Iterator[None]:
    """A call of ours, as a whole: where it is made inside a backward pass, that is not the one of its own graph."""
    task = graph_task()
    this = object()
    with Undo() as undo:
        undo.later(lambda: _within(task, this))
        _outside.setdefault(task, set()).add(this)
        yield


def _within(task: int, call: object) -> None:
    calls = _outside.get(task, set())
    calls.discard(call)
    if not calls:
        _outside.pop(task, None)


def replaying() -> bool:
    """Whether our backward pass runs: what arrives now is a checkpoint's recomputation."""
    task = graph_task()
    return task != -1 and task not in _outside
