"""How a result was made: the attributes that every kind of result has."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    rules: list[tuple[Place, Rule | None]] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    model: Identity | None = None
    ledger: Ledger = field(default_factory=lambda: Ledger([]))
    notices: list[str] = field(default_factory=list)
