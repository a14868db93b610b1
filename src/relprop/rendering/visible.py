"""Text of unknown origin made visible: what steers a terminal or reorders a line is shown, never obeyed.

This makes text safe to *print*; what is put into HTML or SVG is escaped besides, by those who write it.
"""

from __future__ import annotations

import unicodedata

LONGEST = 2000
"""Letters of one token or label that are shown; a longer one is cut, and says so."""

_JOINERS = "\u200c\u200d"  # they shape Persian, Indic and emoji; after ASCII they only hide


def visible(text: object, *, longest: int = LONGEST, lines: bool = False) -> str:
    """The text with every control and invisible letter replaced by a sign for it.

    Args:
        text: anything; it is converted by `str`.
        longest: longer texts are cut, and their length is given.
        lines: whether line breaks may stay.
    """
    whole = str(text)
    shown = whole if len(whole) <= longest else whole[:longest]
    if not shown.isprintable():
        before = ["", *shown]
        shown = "".join(
            letter if (lines and letter == "\n") or (letter in _JOINERS and previous > "\x7f") else sign(letter)
            for previous, letter in zip(before, shown, strict=False)
        )
    return shown if len(whole) <= longest else f"{shown}… ({len(whole):,} characters)"


def sign(letter: str) -> str:
    """A letter itself, or what stands for it: ␛ for escape, ⟨U+202E⟩ for an override of the direction."""
    code = ord(letter)
    if letter.isprintable():
        return letter
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if unicodedata.category(letter) == "Zs":
        return " "  # a no-break or thin space is a space to the eye
    return f"⟨U+{code:04X}⟩"


def cell(text: object) -> str:
    """Text for a cell of a CSV file: a leading quote keeps a spreadsheet from taking it for a formula.

    Numbers are not for this: write them as numbers.
    """
    shown = visible(text, longest=10**9)
    return f"'{shown}" if shown.lstrip()[:1] in ("=", "+", "-", "@", "|", "%") else shown
