"""The register as a readable table."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from relprop.engine.registry import FAMILIES, TABLE, Entry, Family
from relprop.errors import InputError


@dataclass(frozen=True)
class OperationRow:
    """One operation.

    Attributes:
        operation: its name.
        family: the family it belongs to.
        handler: the function that handles it, as "module.function" within `relprop.operations` if it is relprop's own.
        traits: what it does to the entries of its operand.
        gives: the roles of its result.
        spellings: the names under which it arrives, including its own.
        reason: why it is refused; "" for all other families.
    """

    operation: str
    family: str
    handler: str
    traits: tuple[str, ...]
    gives: tuple[str, ...]
    spellings: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        facts = [*self.traits, *(f"gives {role}" for role in self.gives)]
        return f"{self.operation:32} {self.family:12} {self.handler:44} {', '.join(facts)}".rstrip()


class Table(tuple[OperationRow, ...]):
    """The rows of `table()`. `print` shows them with the defaults of their families."""

    @property
    def families(self) -> tuple[Family, ...]:
        """The families, with their default handlers and what relevance does there."""
        return tuple(FAMILIES.values())

    def __str__(self) -> str:
        lone = {row.family for row in self} if len({row.family for row in self}) == 1 else FAMILIES.keys()
        families = [f"{family.name:16} {family.says}" for family in self.families if family.name in lone]
        return "\n".join([*families, "", *map(str, self)])

    __repr__ = __str__


def table(family: str | None = None) -> Table:
    """Every known operation: its family, its handler, and its traits.

    Args:
        family: show this family alone.

    Returns:
        A tuple of rows in the order of families and names, which `print` shows as a table.

    Raises:
        InputError: no family is called that.
    """
    if family is not None and family not in FAMILIES:
        raise InputError(f"unknown family {family!r}; one of: {', '.join(FAMILIES)}.")
    spelled: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for name, entry in TABLE.items():
        key = entry.family, _name(entry.function), _handler(entry), entry.traits, entry.gives, entry.reason
        spelled[key].add(_name(name))
    rows = (
        OperationRow(
            key[1],
            key[0],
            key[2],
            tuple(sorted(key[3])),
            tuple(role for role, _ in key[4]),
            tuple(sorted(names)),
            key[5],
        )
        for key, names in spelled.items()
        if family in (None, key[0])
    )
    order = list(FAMILIES)
    return Table(sorted(rows, key=lambda row: (order.index(row.family), row.operation, row.handler)))


def _name(function: Any) -> str:
    return getattr(function, "__name__", None) or str(function)


def _handler(entry: Entry) -> str:
    made = entry.handler
    name = f"{made.__module__}.{made.__qualname__}".replace(".<locals>", "")
    return name.removeprefix("relprop.operations.").removeprefix("relprop.engine.registry.")
