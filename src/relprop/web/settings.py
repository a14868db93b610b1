"""What was asked of a network, as a value: from the controls of a page or a link, and back into a link."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from relprop.composites import NAMES
from relprop.composites.named import unknown
from relprop.errors import CompositeError, InputError

FIRST = {
    "composite": "as the composite says",
    "flat": "flat",
    "wsquare": "w²",
    "zbox": "z-box",
    "zplus": "z⁺",
    "epsilon": "epsilon",
}
"""The rules that may be chosen for the first layer, and their names on the page."""
FORMS = {
    "rows": "each row is a sample",
    "channels": "one series, channels first: (1, C, T)",
    "steps": "one series, steps first: (1, T, C)",
    "flat": "one series without channels: (1, T)",
}
"""How the numbers of a file become the network's inputs. A table has a column for each channel, and a row for each step."""
MOST_COMPOSITES = 4
"""The most composites beside each other: each costs an explanation."""
LONGEST_LINK = 4000
"""The most letters of a link's settings."""
_NUMBERS = {"gamma": (0.0, 100.0), "strength": (0.0, 1.0), "percentile": (50.0, 100.0)}
_SMOOTHEST = 64
_MOST_COLUMNS = 1000
_MOST_FIELDS = 50


@dataclass(frozen=True)
class PageSettings:
    """What was asked.

    Attributes:
        target: the class or token to explain, by number; None is the likeliest.
        against: what it is set against; None is nothing.
        composites: the names of the composites, side by side.
        gamma: the gamma of those composites that have one; None is their own.
        first: the rule of the first layer, a key of `FIRST`.
        strength: how strong the map is on the picture; 0 shows the picture alone.
        smooth: the side of the box over which each pixel is spread.
        percentile: the end of the colour scale.
        example: the number of the example that is shown; None is none of them.
        row: the row of a table; None is the first.
        form: how a file of numbers is read, a key of `FORMS`, or "auto" for what the network takes.
        without: the columns of a table that are left out; None leaves out those without numbers.

    Raises:
        InputError: a value is out of range.
        CompositeError: there is no such composite, or there are too many.
    """

    target: int | None = None
    against: int | None = None
    composites: tuple[str, ...] = ("auto",)
    gamma: float | None = None
    first: str = "composite"
    strength: float = 1.0
    smooth: int = 1
    percentile: float = 99.5
    example: int | None = None
    row: int | None = None
    form: str = "auto"
    without: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        names = self.composites
        if not 1 <= len(names) <= MOST_COMPOSITES or len(set(names)) < len(names):
            raise CompositeError(f"choose one to {MOST_COMPOSITES} different composites; got {len(names)}.")
        for name in names:
            if name != "auto" and name not in NAMES:
                raise unknown(name)
        if self.first not in FIRST:
            raise InputError(f"there is no rule {self.first!r} for the first layer; there are: {', '.join(FIRST)}.")
        if self.form != "auto" and self.form not in FORMS:
            raise InputError(f"there is no form {self.form[:40]!r} of a file; there are: auto, {', '.join(FORMS)}.")
        for name, (low, high) in _NUMBERS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:  # NaN lies nowhere
                raise InputError(f"{name} is {value}; it lies from {low:g} to {high:g}.")
        if not 1 <= self.smooth <= _SMOOTHEST:
            raise InputError(f"smooth is {self.smooth}; it is a side in pixels, from 1 to {_SMOOTHEST}.")
        for name in ("target", "against", "example", "row"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 2**31:
                raise InputError(f"{name} is {value}; classes are numbered from 0.")
        if self.against is not None and self.against == self.target:
            raise InputError(f"class {self.target} cannot be set against itself: choose another class.")

    def link(self) -> str:
        """The part of a link that restores these settings, `?target=281&smooth=2`: what differs from the defaults."""
        usual = PageSettings()
        given = {name: getattr(self, name) for name in vars(self) if getattr(self, name) != getattr(usual, name)}
        if "composites" in given:
            given["composites"] = ",".join(self.composites)
        if "without" in given:  # the name of a column may hold anything
            given["without"] = json.dumps(self.without)
        link = f"?{urlencode(given, safe=',')}"
        return link if len(link) <= LONGEST_LINK or self.without is None else self.changed(without=None).link()

    @classmethod
    def of_link(cls, query: str) -> PageSettings:
        """The settings of a link. Names that are none of ours are passed over, as links of mail programs bring some.

        Raises:
            InputError: a value is none.
            CompositeError: it names a composite that does not exist.
        """
        if len(query) > LONGEST_LINK:
            raise InputError(f"the link has {len(query):,} letters; settings have {LONGEST_LINK:,} at most.")
        found: dict[str, Any] = {}
        for name, text in fields_of(query):
            if name in ("target", "against", "smooth", "example", "row"):
                found[name] = _number(name, text, int)
            elif name in _NUMBERS:
                found[name] = _number(name, text, float)
            elif name == "composites":
                found[name] = tuple(text.split(","))
            elif name in ("first", "form"):
                found[name] = text
            elif name == "without":
                found[name] = _names(text)
        return cls(**found)

    def changed(self, **values: Any) -> PageSettings:
        """The same with other values."""
        return replace(self, **values)


def fields_of(query: str) -> list[tuple[str, str]]:
    """The names and values of a link.

    Raises:
        InputError: it has too many.
    """
    try:
        return parse_qsl(query.lstrip("?"), max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise InputError(f"the link has more than {_MOST_FIELDS} settings.") from None


def _names(text: str) -> tuple[str, ...]:
    """The names of columns in a link, a list in JSON."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or len(found) > _MOST_COLUMNS or not all(isinstance(each, str) for each in found):
        raise InputError(f"without is {text[:40]!r}; it must be a list of the names of columns.")
    return tuple(found)


def settings_of(values: Mapping[str, Any]) -> PageSettings:
    """The settings of a page's controls, whose values come from anywhere.

    Raises:
        InputError: a value is none.
        CompositeError: there is no such composite.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if value is None or value == "":
            continue
        if name == "composites":
            found[name] = (value,) if isinstance(value, str) else tuple(map(str, value))
        elif name in ("first", "form"):
            found[name] = str(value)
        elif name == "without":
            found[name] = _names(str(value))
        else:
            found[name] = _number(name, value, float if name in _NUMBERS else int)
    return PageSettings(**found)


def _number(name: str, value: Any, kind: type) -> Any:
    try:
        if isinstance(value, bool) or (isinstance(value, str) and len(value) > 40):
            raise ValueError
        found = kind(value)
        if isinstance(value, float) and found != value:
            raise ValueError
        return found
    except (TypeError, ValueError, OverflowError):
        what = "a whole number" if kind is int else "a number"
        raise InputError(f"{name} is {str(value)[:40]!r}; it must be {what}.") from None
