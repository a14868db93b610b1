"""The decisions of a run whose model checkpoints parts of itself: a recomputed operation must get the rule it got before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from relprop.composites.places import Place
from relprop.engine.registry import Entry
from relprop.engine.replay import replaying
from relprop.errors import UnsupportedOperationError
from relprop.torch_private.state import saved_elsewhere, saving_hooks


@dataclass(frozen=True)
class Decision:
    """The decision at a place, kept for the recomputation of a checkpointed part."""

    place: Place
    rule: Any
    nz: bool


class Journal:
    """The decisions at the places of a checkpointed part, by function, in the order in which they were made.

    Attributes:
        active: whether a part of the model will be recomputed in the backward pass.
        latest: the decision put in force last by a recomputation; None before the first one.
        hooks: the hooks on saved tensors that the caller set or that keep copies. All others belong to a checkpoint.
    """

    def __init__(self) -> None:
        self.active = False
        self.hooks = saving_hooks()
        self._decisions: dict[Callable[..., Any], list[Decision]] = {}
        self.latest: Decision | None = None

    def inside(self) -> bool:
        """Whether a checkpointed part runs now: what it saves is not kept, but made again."""
        return saved_elsewhere(self.hooks)

    def notice(self) -> None:
        """Notes that there is a checkpoint."""
        self.active = True

    @property
    def replayed(self) -> Decision | None:
        """The decision in force while a part is recomputed; None in the forward pass."""
        return self.latest if self.latest is not None and replaying() else None

    def write(self, place: Place, rule: Any, nz: bool) -> None:
        """Keeps a decision for the recomputation. Called while a part of the model will be recomputed."""
        self._decisions.setdefault(place.function, []).append(Decision(place, rule, nz))

    def forget(self, place: Place) -> None:
        """Takes back the last decision, if it was about this place."""
        met = self._decisions.get(place.function, [])
        if met and met[-1].place is place:
            met.pop()

    def replay(self, entry: Entry, module: nn.Module | None, nz_hidden: bool) -> Place:
        """Puts the decision in force that was made when a recomputed operation first ran, and returns its place."""
        met = self._decisions.get(entry.function, [])
        found = [decision for decision in met if decision.place.module is module] or met
        if not found and entry.family in ("structure", "selection"):
            self.latest = Decision(Place(entry.family, entry.function), None, nz_hidden)
            return self.latest.place
        if not found or any(d.rule != found[0].rule or d.nz != found[0].nz for d in found):
            raise UnsupportedOperationError(
                f"{entry.function.__name__} runs again in a checkpointed part of the model, and the composite has several "
                "rules for it there: leave the first layers out of the checkpoint, or name the rule by module path."
            )
        self.latest = found[0]
        return self.latest.place
