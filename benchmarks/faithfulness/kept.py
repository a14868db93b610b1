"""What a page holds already, so that one network can be measured again without the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

SEARCH, CONFIRMATION, GLANCE = "The search", "Would another default be better?", "At a glance"


@dataclass
class Written:
    """The measured parts of a page.

    Attributes:
        glance: the row of each network in the first table.
        networks: the lines of each network's section, by its title.
        searches: the rows of the table of searches, by their networks.
        confirmations: the rows of the table of other defaults, by their networks.
    """

    glance: dict[str, list[str]] = field(default_factory=dict)
    networks: dict[str, list[str]] = field(default_factory=dict)
    searches: dict[str, list[str]] = field(default_factory=dict)
    confirmations: dict[str, list[str]] = field(default_factory=dict)


def read(page: str) -> Written:
    """The parts of a page that an earlier run wrote."""
    titled = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    sections = {each.split("\n", 1)[0]: ["## " + line if n == 0 else line for n, line in enumerate(each.split("\n"))]
                for each in titled}  # fmt: skip
    rows = {name: _rows(sections.pop(name, [])) for name in (GLANCE, SEARCH, CONFIRMATION)}
    by_network = {re.sub(r" \(\d+\)$", "", name): lines for name, lines in rows[GLANCE].items()}
    return Written(by_network, sections, rows[SEARCH], rows[CONFIRMATION])


def _rows(lines: Sequence[str]) -> dict[str, list[str]]:
    """The rows of a table under what their first cell says."""
    found: dict[str, list[str]] = {}
    for line in [line for line in lines if line.startswith("| ")][1:]:
        found.setdefault(line.split(" | ")[0].removeprefix("| "), []).append(line)
    return found
