"""A composite: an ordered mapping from places to rules. The first match wins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, NamedTuple

from torch import nn

from relprop.composites.places import FamilyMatcher, First, Last, Matcher, Path, Place, families, matcher, parts
from relprop.errors import CompositeError, RuleError
from relprop.rules import Rule
from relprop.rules.base import PROTOCOLS, UNDECIDED, Way
from relprop.signatures import public

MOVING = frozenset({"structure", "selection"})
"""The families whose operations only move or select values."""


class Asked(NamedTuple):
    """What the engine asks of a composite at every operation.

    Attributes:
        by_family: the rule of each family, if the entries name families alone; else None.
        names_everything: whether an entry may name operations that only move or select values.
        nz_hidden: whether a rule that gives relevance to zeros may act on a hidden layer.
        nz_first: whether one may act on the first layer; without it none acts anywhere.
    """

    by_family: dict[str, Rule] | None
    names_everything: bool
    nz_hidden: bool
    nz_first: bool


UNCHOSEN = Asked(None, False, False, True)
"""The answers while "auto" has not chosen yet. Later, a rule may give relevance to zeros of the inputs."""


def _pairs(entries: Any) -> list[tuple[Any, Any]]:
    """Pairs of a place and a rule.

    Raises:
        CompositeError: an entry is not such a pair.
    """
    if isinstance(entries, str):
        raise CompositeError(
            f"a composite is made of places and rules; a named one is composite={entries!r}, as a str."
        )
    listed = list(entries) if isinstance(entries, Iterable) else [entries]
    for pair in listed:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            hint = f" Say where it acts, as in Composite({{'conv': {pair!r}}})." if isinstance(pair, Rule) else ""
            raise CompositeError(f"a composite takes a mapping, or pairs, of a place and a rule; got {pair!r}.{hint}")
    return [(place, rule) for place, rule in listed]


class Composite:
    """An ordered mapping from places to rules. In `a | b`, the entries of `a` come first.

    Args:
        entries: a mapping, or pairs, of a place and a rule. A place is a family's name (`"conv"`), `first`, `last`,
            `path(glob)`, `operation(function)`, `where(predicate)`, or a module type. An operation that no entry
            names has its own default (LRP-0 for weighted layers).
        name: the name to show.
        multiply_by_inputs: whether the result is input times modified gradient, as relevance is, or the modified
            gradient itself, as in the papers on guided backpropagation.

    Raises:
        CompositeError: an entry is not a pair, or its key is not a place.
        RuleError: a value is not a rule.

    A path that matches no module of the model is refused when the composite is used, and so is a rule that cannot act
    where it is put.
    """

    @public("relprop.Composite")
    def __init__(
        self,
        entries: Mapping[Any, Rule] | Iterable[tuple[Any, Rule]] = (),
        *,
        name: str = "custom",
        multiply_by_inputs: bool = True,
    ) -> None:
        pairs = entries.items() if isinstance(entries, Mapping) else _pairs(entries)
        self.entries: tuple[tuple[Matcher, Rule], ...] = tuple((matcher(key), rule) for key, rule in pairs)
        self.name = name
        self.multiply_by_inputs = multiply_by_inputs
        for place, rule in self.entries:
            if not isinstance(rule, Rule):
                hint = " Did you forget the parentheses?" if isinstance(rule, type) else ""
                raise RuleError(
                    f"a composite maps places to rules such as Epsilon(1e-6); '{place}' got {rule!r}.{hint}"
                )

    def rule(self, place: Place) -> Any:
        """The rule for a place; None for the default; `UNDECIDED` while `last` is not known."""
        if (by_family := self.asked.by_family) is not None:
            return by_family.get(place.family)
        for key, rule in self.entries:
            if place.family not in rule.families:
                continue
            answer = key.match(place)
            if answer is None:
                return UNDECIDED
            if answer:
                return rule
        return None

    @cached_property
    def asked(self) -> Asked:
        """What the engine asks at every operation, computed once.

        :meta private:
        """
        unproportional = [key for key, rule in self.entries if not rule.proportional]
        return Asked(
            by_family=self._by_family,
            names_everything=any(
                not isinstance(key, (First, Last)) and (families(key) or MOVING) & MOVING & rule.families
                for key, rule in self.entries
            ),
            nz_hidden=not all(map(_only_first, unproportional)),
            nz_first=bool(unproportional),
        )

    @property
    def _by_family(self) -> dict[str, Rule] | None:
        """The rule of each family, if the entries name families alone; else None, as where a subclass chooses."""
        if type(self).rule is not Composite.rule:
            return None
        found: dict[str, Rule] = {}
        for key, rule in self.entries:
            if type(key) is not FamilyMatcher:
                return None
            if key.family in rule.families:
                found.setdefault(key.family, rule)
        return found

    @cached_property
    def may_miss(self) -> tuple[tuple[Matcher, Rule], ...]:
        """The entries that may name a place on which their rule cannot act."""
        known = ((key, rule, families(key)) for key, rule in self.entries)
        return tuple((key, rule) for key, rule, named in known if named is None or not named <= rule.families)

    def check(self, modules: Callable[[], dict[str, nn.Module]]) -> None:
        """Refuses a path that matches no module of the model, and a rule that cannot act on the family it is given."""
        if not self._globs:
            return
        paths = modules()
        for glob in self._globs:
            if not any(fnmatchcase(path, glob) for path in paths):
                names = ", ".join(path for path in list(paths)[:12] if path) or "none: the model is a plain function"
                raise CompositeError(f"path({glob!r}) matches no module. Modules of this model: {names}, ...")

    @cached_property
    def _globs(self) -> list[str]:
        """The paths that entries name.

        Raises:
            RuleError: a rule cannot act on the family it is given.
        """
        found = []
        for key, rule in self.entries:
            known = families(key)
            if rule.way is Way.FORMULA and not rule.formulas and not rule.of_scans:
                raise RuleError(
                    f"{rule!r} acts on nothing: it defines none of the methods propagate, {', '.join(PROTOCOLS)}."
                )
            if known is not None and not known & rule.families:
                raise RuleError(
                    f"{rule!r} cannot act on '{key}'; it acts on: {', '.join(sorted(rule.families)) or 'nothing'}."
                )
            found += [part.glob for part in parts(key) if isinstance(part, Path)]
        return found

    def __or__(self, other: Composite) -> Composite:
        """`a | b`: the entries of `a`, then those of `b`."""
        if not isinstance(other, Composite):
            return NotImplemented
        return Composite(
            self.entries + other.entries,
            name=f"{self.name} | {other.name}",
            multiply_by_inputs=self.multiply_by_inputs and other.multiply_by_inputs,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Composite):
            return NotImplemented
        return self.entries == other.entries and self.multiply_by_inputs == other.multiply_by_inputs

    def __hash__(self) -> int:
        return hash((tuple(str(key) for key, _ in self.entries), self.multiply_by_inputs))

    def __repr__(self) -> str:
        return f"<Composite {self.name!r}: {len(self.entries)} entries>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Shows the table in a notebook."""
        printer.text(str(self))

    def __str__(self) -> str:
        rows = [(str(key), repr(rule)) for key, rule in self.entries] + [("everything else", "the operation's default")]
        width = max(len(place) for place, _ in rows)
        return "\n".join([f"composite {self.name!r} (first match wins)", *(f"  {p:<{width}}  {r}" for p, r in rows)])


def _only_first(key: Matcher) -> bool:
    return any(isinstance(part, First) for part in parts(key))
