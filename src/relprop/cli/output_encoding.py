"""Output in any encoding: what a terminal or a pipe cannot encode is written in letters that it can."""

from __future__ import annotations

import codecs
import sys
import unicodedata
from typing import Any, TextIO

_NAME = "relprop.spelled"
_ASCII = "relprop_ascii"
_SPELLED = {
    "█": "#", "▀": "#", "▄": "#", "▌": "#", "▐": "#", "│": "|", "─": "-", "−": "-", "–": "-", "—": "-", "…": "...", "·": ".", "±": "+/-",
    "×": "x", "↵": "\\n", "→": "->", "≥": ">=", "≤": "<=", "“": '"', "”": '"', "‘": "'", "’": "'", "•": "*", "\u2400": " ",
}  # fmt: skip


def spelled(text: str) -> str:
    """The text in ASCII: signs by signs that look like them, letters without their accents, others as escapes."""
    found = []
    for letter in text:
        plain = _SPELLED.get(letter)
        if plain is None:
            bare = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
            plain = bare or letter.encode("ascii", "backslashreplace").decode()
        found.append(plain)
    return "".join(found)


def _handle(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return spelled(error.object[error.start : error.end]), error.end


def _plain_ascii(name: str) -> codecs.CodecInfo | None:
    """ASCII under a name of its own. Click takes a stream in ASCII for a mistake, and writes UTF-8 into it."""
    if name != _ASCII:
        return None
    known = codecs.lookup("ascii")
    return codecs.CodecInfo(
        known.encode, known.decode, known.streamreader, known.streamwriter, known.incrementalencoder, known.incrementaldecoder,
        _ASCII,
    )  # fmt: skip


def encode_anything() -> None:
    """From now on, stdout and stderr take every letter."""
    codecs.register_error(_NAME, _handle)
    codecs.register(_plain_ascii)
    for stream in (sys.stdout, sys.stderr):
        change: Any = getattr(stream, "reconfigure", None)
        if change is not None and not utf8(stream):
            ascii_ = codecs.lookup(stream.encoding).name == "ascii"
            change(encoding=_ASCII if ascii_ else stream.encoding, errors=_NAME)


def utf8(stream: TextIO) -> bool:
    """Whether a stream encodes every letter."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("_", "-").startswith(("utf", "cp65001"))
