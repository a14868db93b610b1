"""Makes text of unknown origin visible: characters that steer a terminal or reorder a line are shown, never obeyed.

This makes text safe to *print*. The code that writes HTML or SVG escapes it in addition.
"""

from __future__ import annotations

import unicodedata

LONGEST = 2000
"""The most letters of a token or label that are shown. A longer one is cut, and says so."""

_JOINERS = "\u200c\u200d"  # they shape Persian, Indic scripts and emoji; after ASCII they only hide


def visible(text: object, *, longest: int = LONGEST, lines: bool = False) -> str:
    """The text, in which a sign replaces every control character and every invisible letter.

    Args:
        text: any object; `str` converts it.
        longest: the largest length. Longer texts are cut, and their length is given.
        lines: whether line breaks are kept.
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
    """A letter itself, or its sign: ␛ for escape, ⟨U+202E⟩ for an override of the direction."""
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


def quoted(path: object) -> str:
    """A path in a message: between quotes, as it was typed. `repr` would double the backslashes of Windows."""
    return f"'{visible(path, longest=400)}'"


def cell(text: object) -> str:
    """Text for a cell of a CSV file. A leading quote keeps a spreadsheet from reading it as a formula.

    For text only: write numbers as numbers.
    """
    shown = visible(text, longest=10**9)
    return f"'{shown}" if shown.lstrip()[:1] in ("=", "+", "-", "@", "|", "%") else shown
