"""Texts as sources: files, tables, lists, and data sets whose samples are texts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relprop.data.items import Item, plain
from relprop.data.tabular import TABLES, opened_table, typed
from relprop.errors import InputError
from relprop.rendering.visible import quoted
from relprop.text.tokens import Tokens, is_chat, listed, tokenize

COLUMNS = ("text", "sentence", "document", "content", "review", "question")
"""The columns that hold the text if none is named, the first of them first."""
FILES = (".txt", ".md")
_MOST_BYTES = 2**24
"""The longest file that is read as one text."""
_Found = tuple[str, Sequence[str], Callable[[int], Item], Sequence[str], Callable[[int], Mapping[str, Any]] | None]


@dataclass(frozen=True, eq=False)
class TextReading:
    """How a sample becomes tokens.

    Attributes:
        tokenizer: the network's tokenizer.
        max_length: texts are cut to this many tokens; None leaves them as they are.
        column: the column of the text, or two for pairs of texts; None takes the first of `COLUMNS`.
    """

    tokenizer: Any
    max_length: int | None = None
    column: str | Sequence[str] | None = None

    def item(self, found: Any) -> Item:
        """A sample from what a source gives: a text, a pair, a chat, (text, label), or a dict of columns.

        Raises:
            InputError: it is none of these, or the text has no tokens.
        """
        if isinstance(found, Mapping):
            cells = {str(name): plain(value) for name, value in found.items()}
            names = self.named(list(cells))
            text = cells[names] if isinstance(names, str) else tuple(cells[name] for name in names)
            return Item(self.tokens(text), cells.get("label"), cells)
        label = None
        if isinstance(found, tuple) and len(found) == 2 and _answers(found[1]):
            raise InputError(
                "the text has answers to choose among, which take a row each: relprop.explain_text explains such texts."
            )
        if isinstance(found, (tuple, list)) and len(found) == 2 and not isinstance(found[1], (str, Mapping)):
            found, label = found
        found = tuple(found) if isinstance(found, list) and not is_chat(found) else found
        return Item(self.tokens(found), plain(label), {} if label is None else {"label": plain(label)})

    def tokens(self, text: Any) -> Tokens:
        """The tokens of a text.

        Raises:
            InputError: it has none.
        """
        return tokenize(self.tokenizer, text, max_length=self.max_length)

    def named(self, names: Sequence[str]) -> str | tuple[str, ...]:
        """The column of the text, or the two of a pair.

        Raises:
            InputError: there is no such column.
        """
        if self.column is None:
            found = next((name for name in COLUMNS if name in names), None)
            if found is None:
                raise InputError(f"no column of {', '.join(names)} is known to hold the text: name it with column=.")
            return found
        wanted = (self.column,) if isinstance(self.column, str) else tuple(self.column)
        if missing := [name for name in wanted if name not in names]:
            raise InputError(f"there is no column {missing[0]!r}; there are {', '.join(names)}.")
        if len(wanted) > 2:
            raise InputError(f"column= names the column of the text, or two for pairs of texts; got {list(wanted)}.")
        return wanted if len(wanted) == 2 else wanted[0]


def texts_of(given: Any, reading: TextReading) -> _Found:
    """The kind, the keys, a function that gives a sample, the columns, and one that gives them, of a source of texts.

    Raises:
        InputError: it is no source of texts.
    """
    if isinstance(given, (str, os.PathLike)):
        return _of_path(Path(given), reading)
    given = listed(given, "source")
    if isinstance(given, tuple) or (is_chat(given) and all("role" in message for message in given)):
        raise InputError("a source of texts is a list of them; got one text. Write source=[text].")
    if hasattr(given, "__getitem__") and hasattr(given, "__len__") and not isinstance(given, Mapping):
        columns = getattr(given, "column_names", None)  # of a data set of Hugging Face
        names = columns if isinstance(columns, list) else []
        return "texts", [str(n) for n in range(len(given))], lambda n: reading.item(given[n]), names, None
    raise InputError(
        "a source of texts is a list of them, a table (.csv, .jsonl, .parquet), a file with a text on each line "
        f"({', '.join(FILES)}), a folder of such files with a text each, or a data set; got {type(given).__name__}."
    )


def vocabulary(tokenizer: Any) -> list[str]:
    """The tokens by their ids, as the tokenizer names them.

    Raises:
        InputError: it does not tell how many there are.
    """
    if not hasattr(tokenizer, "__len__"):
        raise InputError("the tokenizer has no length, so that its vocabulary cannot be kept with the run.")
    return [str(name) for name in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))]


def vocabulary_sha256(tokenizer: Any) -> str:
    """What tells one vocabulary from another."""
    return hashlib.sha256("\0".join(vocabulary(tokenizer)).encode("utf-8", "surrogatepass")).hexdigest()


def _of_path(path: Path, reading: TextReading) -> _Found:
    if path.is_dir():
        names = sorted(
            (Path(base) / name).relative_to(path).as_posix()
            for base, _, inside in os.walk(path)
            for name in inside
            if name.lower().endswith(FILES)
        )
        if not names:
            raise InputError(f"the source {quoted(path)} is empty: it holds no texts ({', '.join(FILES)}).")
        return "text files", names, lambda n: reading.item(_content(path / names[n])), [], None
    if not path.is_file():
        raise InputError(f"there is no file or folder {quoted(path)}.")
    if path.suffix.lower() in TABLES:
        names, count, row = opened_table(path)
        reading.named(names)

        def one(n: int) -> Item:
            return reading.item(
                {name: cell if name in _as_it_is(reading, names) else typed(cell) for name, cell in row(n).items()}
            )

        return "texts of a table", [str(n) for n in range(count)], one, names, row
    lines = [(n, line) for n, line in enumerate(_content(path, None).splitlines()) if line.strip()]
    if not lines:
        raise InputError(f"the source {quoted(path)} is empty: it has no text.")
    return "lines", [str(n) for n, _ in lines], lambda n: reading.item(lines[n][1]), [], None


def _answers(found: Any) -> bool:
    return isinstance(found, list) and bool(found) and all(isinstance(one, str) for one in found)


def _as_it_is(reading: TextReading, names: Sequence[str]) -> tuple[str, ...]:
    """The columns of the text, whose cells stay as they are: "12" is a text, too."""
    found = reading.named(names)
    return (found,) if isinstance(found, str) else found


def _content(path: Path, most: int | None = _MOST_BYTES) -> str:
    if most is not None and path.stat().st_size > most:
        raise InputError(f"{quoted(path)} has more than {most // 2**20} MiB: it is not one text.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{quoted(path)} is not a text in UTF-8: {error}.") from error
