"""How a result was made: the attributes that every kind of result has."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from relprop.composites import Composite, Place
from relprop.results.identity import Identity
from relprop.results.ledger import Ledger
from relprop.results.outputs import Outputs
from relprop.rules import Rule


@dataclass(kw_only=True)
class Made(Outputs):
    """How a result was made, for reports.

    Attributes:
        composite: the composite that acted; its name says what "auto" picked.
        rules: each place for which a rule was looked up, and the rule that acted (None: the operation's default).
        unknown: operations whose native gradient was used because of `strict=False`, with their number of calls.
        model: the name of the model that was explained.
        ledger: with `ledger=True`, what absorbed the residual (see `Relevance`); for a generation, that of each token.
        notices: what its reader should know (see `Relevance`).
    """

    composite: Composite
    rules: list[tuple[Place, Rule | None]] = field(default_factory=list, repr=False)
    unknown: dict[str, int] = field(default_factory=dict, repr=False)
    model: Identity | None = field(default=None, repr=False)
    ledger: Ledger = field(default_factory=lambda: Ledger([]), repr=False)
    notices: list[str] = field(default_factory=list, repr=False)


def how_made(result: Any) -> dict[str, Any]:
    """How a result was made, for one that is computed from it: `Topics(names=..., **how_made(R))`."""
    return {each.name: getattr(result, each.name) for each in fields(Made)}
