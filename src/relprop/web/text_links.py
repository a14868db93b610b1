"""A text and what was asked of it, as a link holds them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from relprop.errors import InputError
from relprop.web.settings import LONGEST_LINK, PageSettings, fields_of, settings_of

LONGEST_LINKED = 1000
"""The most letters of a text that a link holds."""
_FLAGS = ("words", "parts", "lines")


@dataclass(frozen=True)
class LinkedText:
    """A text and what was asked of it, as a link holds them.

    Attributes:
        text: the text; one of more than `LONGEST_LINKED` letters is not in the link.
        target: what is explained, as it is written in its field.
        against: what it is set against, likewise.
        composites: the names of the composites.
        words: whether the tokens of words are joined.
        gamma: the gamma of those composites that have one; None is their own.
        first: the rule of the first layer.
        parts: whether blocks and heads are shown.
        lines: whether each line is a text of its own.
    """

    text: str = ""
    target: str = ""
    against: str = ""
    composites: tuple[str, ...] = ("auto",)
    words: bool = False
    gamma: float | None = None
    first: str = "composite"
    parts: bool = False
    lines: bool = False

    def link(self) -> str:
        """The part of a link that restores them: what differs from the defaults."""
        usual = LinkedText()
        given = {name: value for name, value in vars(self).items() if value != getattr(usual, name)}
        if len(self.text) > LONGEST_LINKED:
            del given["text"]
        if "composites" in given:
            given["composites"] = ",".join(self.composites)
        given |= {name: "1" for name in _FLAGS if name in given}
        # A lone surrogate has no place in an address.
        return f"?{urlencode(given, safe=',', errors='replace')}"

    @property
    def rules(self) -> PageSettings:
        """The rules that are asked for."""
        return PageSettings(composites=self.composites, gamma=self.gamma, first=self.first)

    @classmethod
    def of_link(cls, query: str) -> LinkedText:
        """What a link holds. Names that are none of ours are passed over.

        Raises:
            InputError: a value is none.
            CompositeError: it names a composite that does not exist.
        """
        if len(query) > 4 * LONGEST_LINK:
            raise InputError(f"the link has {len(query):,} letters; settings have {4 * LONGEST_LINK:,} at most.")
        given = dict(fields_of(query))
        rules = settings_of(
            {
                "composites": given.get("composites", "auto").split(","), "gamma": given.get("gamma"),
                "first": given.get("first"),
            }
        )  # fmt: skip
        for name in ("target", "against"):
            target_of(given.get(name))
        return cls(
            given.get("text", "")[:LONGEST_LINKED], given.get("target", ""), given.get("against", ""), rules.composites,
            gamma=rules.gamma, first=rules.first, **{name: given.get(name) == "1" for name in _FLAGS},
        )  # fmt: skip


def target_of(given: Any) -> int | str | None:
    """A token as a visitor wrote it, `id:464` for its number; None where nothing is written.

    Raises:
        InputError: it is too long.
    """
    text = "" if given is None else str(given)
    if not text.strip():
        return None
    if len(text) > 100:
        raise InputError("a token has at most 100 letters.")
    return int(text.strip()[3:]) if re.fullmatch(r"\s*id:\d{1,9}\s*", text) else text
