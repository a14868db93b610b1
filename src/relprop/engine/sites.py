"""Sites: where each call stands, and which rule acts there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from relprop.composites.composite import MOVING, UNCHOSEN, Composite
from relprop.composites.named import automatic
from relprop.composites.places import Place
from relprop.engine.journal import Journal
from relprop.engine.model_view import NOWHERE, ModelView
from relprop.engine.registry import Entry
from relprop.engine.replay import replaying
from relprop.errors import RuleError
from relprop.rules import Rule
from relprop.rules.base import UNDECIDED, WEIGHTED
from relprop.torch_private.calls import module_above
from relprop.torch_private.state import graph_task, innermost_hooks, saved_elsewhere

_COUNTED = WEIGHTED - {"batch_norm"}
"""The families whose operations are the weighted layers that a composite counts."""
_ABOVE = 4
"""At least this many frames of the engine lie between the model and the search for the running module."""


class Sites:
    """Where the operations of one run stand, and the rule of each.

    Attributes:
        met: the families of operations that ran, and other properties of the network, by which "auto" chooses.
        weighted: how many weighted layers ran.
        placements: the places where a rule was requested, by their order, with the rule that acts.
        log: every operation with its place, for observers; None if there are none.
        journal: the decisions that a checkpoint's recomputation must find again.
        asked: what the composite is asked at every operation; "auto" knows less of it before `settle`.
    """

    def __init__(self, composite: Composite | None, model: ModelView, observed: bool = False) -> None:
        self._composite = composite
        self._model = model
        self.met: set[str] = set()
        self.log: list[tuple[Entry, Place | None]] | None = [] if observed else None
        self.weighted = 0
        self.placements: dict[int, tuple[Place, Rule | None]] = {}
        self._order = 0
        self.journal = Journal()
        self.asked = UNCHOSEN if composite is None else composite.asked
        self._aside = False

    @property
    def composite(self) -> Composite:
        """The composite in force; "auto" has none before `settle`."""
        if self._composite is None:
            raise RuntimeError("the composite of a run is settled when its forward pass has ended.")
        return self._composite

    def settle(self) -> None:
        """Makes "auto" choose by what the forward pass met. Called at its end."""
        if self._composite is None:
            self._composite = automatic(self.met)
            self.asked = self._composite.asked

    @property
    def undecided(self) -> bool:
        """Whether "auto" has not made its choice yet."""
        return self._composite is None

    @property
    def nz(self) -> bool:
        """Whether exact zeros may carry relevance at the current place."""
        if self.journal.latest is not None and (replayed := self.journal.replayed) is not None:
            return replayed.nz
        if self._aside:
            return False
        return self.asked.nz_hidden or (self.asked.nz_first and not self.weighted)

    def nz_after(self, place: Place | None) -> bool:
        """Whether exact zeros may carry relevance at an operation that was taken for the first layer and is not one."""
        return place is not None and place.first and self.asked.nz_first

    @property
    def nz_hidden(self) -> bool:
        return self.asked.nz_hidden

    @property
    def nz_first(self) -> bool:
        """Whether exact zeros of the inputs may carry relevance, now that the composite is known."""
        return self.nz_hidden or (self.weighted > 0 and self.composite.asked.nz_first)

    @contextmanager
    def beside(self) -> Iterator[None]:
        """A context whose operations are not part of the network: no composite names them, and they are not counted."""
        before, self._aside = self._aside, True
        try:
            yield
        finally:
            self._aside = before

    def trait(self, name: str) -> None:
        """Notes a property of the network, by which "auto" chooses."""
        if not self._aside:
            self.met.add(name)

    def stand(self, entry: Entry, operands: int) -> tuple[Place | None, Any]:
        """The place of the operation now being called, and the rule there. Counts weighted layers.

        A weighted operation without a constant operand is a product. Operations that move or select values have no rule
        and no place, unless the composite may name them and they do not decompose into visible steps.
        """
        family = entry.family
        if family in MOVING and (not self.asked.names_everything or entry.decomposes):
            if self.log is not None:
                self.log.append((entry, None))
            return None, None
        place = self.locate(entry, "product" if operands > 1 and family in _COUNTED else family)
        if self.log is not None:
            self.log.append((entry, place))
        by_family, journal = self.asked.by_family, self.journal
        if by_family is None or journal.active or self._aside:
            return place, self.rule(place)
        rule = by_family.get(place.family)
        self.placements[place.order] = (place, rule)
        return place, rule

    def locate(self, entry: Entry, family: str) -> Place:
        """The place of an operation, in this family."""
        module = module_above(_ABOVE)
        journal = self.journal
        if graph_task() != -1 and replaying():
            return journal.replay(entry, module, self.asked.nz_hidden)
        if not journal.active and innermost_hooks(True) is not journal.hooks and saved_elsewhere(journal.hooks):
            journal.notice()
        if self._aside:
            return Place(family, entry.function, module, order=self._order)
        paths, kind = self._model.standing.get(id(module), NOWHERE)
        index = None
        if family in _COUNTED:
            index = self.weighted
            self.weighted = index + 1
        order = self._order
        self._order = order + 1
        self.met.add(family)
        return Place(family, entry.function, module, paths, index, None, order, False, kind)

    def rule(self, place: Place) -> Any:
        """The rule for a place; None for the default; `UNDECIDED` until the backward pass."""
        journal = self.journal
        if journal.latest is not None and (replayed := journal.replayed) is not None:
            return replayed.rule
        if self._aside:
            return None
        rule: Any
        by_family = self.asked.by_family
        if by_family is not None:
            rule = by_family.get(place.family)
        elif self._composite is not None:
            rule = self._composite.rule(place)
        else:
            rule = UNDECIDED if place.index is not None or place.family == "product" else None
        if rule is not UNDECIDED:
            self.placements[place.order] = (place, rule)
        if journal.active:
            journal.write(place, rule, self.nz)
        return rule

    def forget(self, place: Place) -> None:
        """Takes back the latest place, which turned out not to be the operation's."""
        if replaying():
            return
        self.weighted -= place.index is not None
        self.placements.pop(place.order, None)
        self.journal.forget(place)

    def decide(self, place: Place) -> Rule | None:
        """The rule for a place that could not be decided before the end of the forward pass."""
        self.settle()
        place.settle(self.weighted)
        rule = self.composite.rule(place)
        self.placements[place.order] = (place, rule)
        return rule

    @property
    def rules(self) -> list[tuple[Place, Rule | None]]:
        """Each place where a rule was requested, and the rule that acted, in order of execution."""
        return [self.placements[order] for order in sorted(self.placements)]

    def release(self) -> None:
        """Lets go of the modules, at the end of a run whose places are part of a result."""
        for place, _ in self.placements.values():
            place.release()

    def unmatched(self) -> None:
        """Refuses an entry that matches places but cannot act on any of them."""
        for key, rule in self.composite.may_miss:
            met = [place for place, _ in self.rules if key.match(place)]
            if met and not any(place.family in rule.families for place in met):
                kinds = ", ".join(sorted({place.family for place in met}))
                raise RuleError(
                    f"{rule!r} cannot act on what '{key}' names ({kinds}: {met[0]}); "
                    f"it acts on: {', '.join(sorted(rule.families))}."
                )
