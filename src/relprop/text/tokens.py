"""The tokens of a text: their names, how they read, which are special, and which form a word.

Any tokenizer of the transformers library works, slow or fast. A fast one gives the place of each token in the text.
With a slow one, the marks in its tokens are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor

from relprop.errors import InputError

_START = ("▁", "Ġ")  # SentencePiece and byte-level BPE mark the token that begins a word
_IDEOGRAPH = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")  # written without spaces: each is a word


@dataclass(frozen=True)
class Tokens:
    """The tokens of one text.

    Attributes:
        ids: their ids.
        names: the tokens as the tokenizer names them, such as `ĠParis` or `##ing`.
        pieces: the tokens as they read, spaces included. A special token reads as its name.
        special: which are the model's own, such as `[CLS]`.
        words: the tokens of each word, as (start, stop).
        second: which belong to the second text of a pair.
        extra: the tokenizer's further outputs for the model, such as `token_type_ids`.
    """

    ids: list[int]
    names: list[str]
    pieces: list[str]
    special: list[bool]
    words: list[tuple[int, int]]
    second: list[bool]
    extra: dict[str, list[int]]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Choices:
    """A text and the answers to choose among.

    Attributes:
        rows: for each answer, the tokens of the text with it.
        answers: the answers.
    """

    rows: list[Tokens]
    answers: list[str]

    def joined(self) -> Tokens:
        """The tokens of all rows, one row after the other."""
        begins = [sum(map(len, self.rows[:k])) for k in range(len(self.rows))]
        parts = {
            name: [one for row in self.rows for one in getattr(row, name)]
            for name in ("ids", "names", "pieces", "special", "second")
        }
        words = [(a + at, b + at) for at, row in zip(begins, self.rows, strict=True) for a, b in row.words]
        return Tokens(**parts, words=words, extra={})


def read_text(tokenizer: Any, text: Any, **options: Any) -> Tokens | Choices:
    """The tokens of a text in any form that `explain_text` takes.

    Raises:
        InputError: as `tokenize`.
    """
    if isinstance(text, tuple) and len(text) == 2 and isinstance(text[1], (list, tuple)):
        if not text[1]:
            raise InputError(f"the text {text!r} has no answers to choose from: write (question, [answer, answer]).")
        return Choices([tokenize(tokenizer, (text[0], answer), **options) for answer in text[1]], list(text[1]))
    return tokenize(tokenizer, text, **options)


def listed(given: Any, name: str) -> Any:
    """An array or a column as a list; anything else as it is."""
    if isinstance(given, Tensor) or not hasattr(given, "__array__"):
        return given
    if not hasattr(given, "tolist"):
        raise InputError(f"{name} is a {type(given).__name__}: pass one of its columns, such as table['{name}'].")
    return given.tolist()


def read_texts(tokenizer: Any, texts: list[Any], alone: bool, **options: Any) -> list[Tokens | Choices]:
    """The tokens of each text. If there are several, an error says which text it is about."""
    found = []
    for n, text in enumerate(texts):
        try:
            found.append(read_text(tokenizer, text, **options))
        except InputError as error:
            if alone:
                raise
            raise InputError(f"text {n} of the list, counted from 0: {error.message}") from error
    return found


def tokenize(tokenizer: Any, text: Any, *, max_length: int | None = None, **template: Any) -> Tokens:
    """The tokens of a text, a pair of texts, or a chat (a list of messages).

    Raises:
        InputError: the text is of another type, or empty, or the tokenizer is not one, or has no chat template.
    """
    if not callable(tokenizer) or hasattr(tokenizer, "forward"):
        raise InputError(f"tokenizer is of type {type(tokenizer).__name__}: pass the model first, then its tokenizer.")
    options: dict[str, Any] = {}
    if max_length is not None:
        options = {"truncation": True, "max_length": max_length}
    if is_chat(text):
        text = chat(tokenizer, text, **template)
        options["add_special_tokens"] = False
    texts = text if isinstance(text, tuple) else (text,)
    if len(texts) > 2 or not all(isinstance(t, str) for t in texts):
        raise InputError(
            "a text is a str, a tuple of two (question and context, premise and hypothesis), or a chat, a list of "
            f"{{'role': ..., 'content': ...}}; got {text!r}."
        )
    if not all(t.strip() for t in texts):
        raise InputError(f"the text is empty: {text!r}. There is nothing to explain.")
    fast = bool(getattr(tokenizer, "is_fast", False))
    encoded = tokenizer(
        *texts, return_special_tokens_mask=True, **options, **({"return_offsets_mapping": True} if fast else {})
    )
    ids = [int(i) for i in encoded["input_ids"]]
    names = [str(name) for name in tokenizer.convert_ids_to_tokens(ids)]
    own = set(getattr(tokenizer, "all_special_ids", ())) - {getattr(tokenizer, "unk_token_id", None)}
    marked = encoded.get("special_tokens_mask") or [0] * len(ids)
    special = [bool(mark) or i in own for mark, i in zip(marked, ids, strict=True)]
    if all(special):
        raise InputError(f"the tokenizer finds no token in the text {text!r}, beside special ones.")
    which = encoded.sequence_ids(0) if fast else [None] * len(ids)
    extra = {
        key: list(value) for key, value in encoded.items()
        if key not in ("input_ids", "attention_mask", "special_tokens_mask", "offset_mapping") and len(value) == len(ids)
    }  # fmt: skip
    if fast:
        pieces, joined = _by_offsets(texts, encoded["offset_mapping"], which, names, special)
    else:
        pieces, joined = _by_marks(tokenizer, names, special)
    return Tokens(ids, names, pieces, special, _words(joined), [w == 1 for w in which], extra)


def tokens_of_ids(tokenizer: Any, ids: Sequence[int]) -> Tokens:
    """Tokens of which only the ids are known, such as generated ones."""
    ids = [int(i) for i in ids]
    names = [str(name) for name in tokenizer.convert_ids_to_tokens(ids)]
    own = set(getattr(tokenizer, "all_special_ids", ()))
    special = [i in own for i in ids]
    pieces, joined = _by_marks(tokenizer, names, special)
    return Tokens(ids, names, pieces, special, _words(joined), [False] * len(ids), {})


def readings(text: Tokens, wanted: str) -> list[range]:
    """The runs of tokens that read as `wanted`.

    Whole words are preferred to parts of words, and the same case to another. If none reads so: the tokens of that
    name, special ones included.
    """

    def search(told: str, fold: bool) -> list[range]:
        found = []
        for start in range(len(text)):
            read = ""
            for stop in range(start, len(text)):
                if text.special[stop]:
                    break
                read += text.pieces[stop]
                plain = " ".join(read.split())
                if (plain.casefold() if fold else plain) == told:
                    if text.pieces[start].strip() and text.pieces[stop].strip():
                        found.append(range(start, stop + 1))
                elif len(plain) > len(told) + 8:  # folding case may change the number of letters
                    break
        return found

    plain = " ".join(wanted.split())
    found = (search(plain, False) or search(plain.casefold(), True)) if plain else []
    starts, stops = {start for start, _ in text.words}, {stop for _, stop in text.words}
    whole = [some for some in found if some[0] in starts and some[-1] + 1 in stops]
    named = [range(k, k + 1) for k, name in enumerate(text.names) if name == wanted]
    return whole or found or named


def is_chat(text: Any) -> bool:
    """Whether this is a list of messages."""
    return isinstance(text, list) and bool(text) and all(isinstance(m, Mapping) for m in text)


def chat(tokenizer: Any, messages: Sequence[Mapping[str, Any]], **template: Any) -> str:
    """Messages in the chat format of the model, up to where its answer begins.

    Raises:
        InputError: the tokenizer has no chat template.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        raise InputError(
            "a list of messages needs a tokenizer with a chat template (tokenizer.chat_template); this one has none. "
            "Pass the text as a str."
        )
    options = {"add_generation_prompt": True, **template}
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **options))


def _by_offsets(
    texts: Sequence[str], offsets: Sequence[tuple[int, int]], which: Sequence[int | None], names: Sequence[str],
    special: Sequence[bool],
) -> tuple[list[str], list[bool]]:  # fmt: skip
    """How tokens read, and whether each continues the word before it, from their offsets in the text."""
    pieces, joined = [], []
    last: tuple[int | None, int] = (None, 0)
    for (start, end), number, name, own in zip(offsets, which, names, special, strict=True):
        if own or number is None:
            pieces.append(name)
            joined.append(False)
            if number is not None:
                last = (number, end)
            continue
        text, before = texts[number], last[1] if last[0] == number else 0
        piece = text[before:end] if end > before else ""
        pieces.append(piece)
        inside = start < before  # a part of a letter: byte-level tokens may cut one
        inside = inside or (
            bool(pieces) and pieces[-1].strip(" ") == "" and before > 0
        )  # after a space that is a token
        touching = start == before and before > 0 and last[0] == number
        joined.append(inside or (touching and _joins(text[before - 1], text[start : start + 1])))
        last = (number, max(end, before))
    return pieces, joined


def _by_marks(tokenizer: Any, names: Sequence[str], special: Sequence[bool]) -> tuple[list[str], list[bool]]:
    """The same, from the marks in the tokens."""
    read = getattr(tokenizer, "convert_tokens_to_string", lambda some: " ".join(some))
    starts = any(name.startswith(_START) for name in names)
    pieces: list[str] = []
    joined: list[bool] = []
    for at, (name, own) in enumerate(zip(names, special, strict=True)):
        if own:
            pieces.append(name)
            joined.append(False)
            continue
        continues = (
            not name.startswith(_START)
            if starts
            else name.startswith("##") or (at > 0 and names[at - 1].endswith("@@"))
        )
        continues = continues and at > 0 and not special[at - 1]
        plain = str(read([name])).removeprefix("##").removesuffix("@@").strip(" ")
        space = "" if continues or at == 0 or (special[at - 1] and not name.startswith(_START)) else " "
        before = pieces[at - 1][-1:] if at else ""
        pieces.append(space + plain)
        joined.append(continues and _joins(before, plain[:1]))
    return pieces, joined


def _joins(left: str, right: str) -> bool:
    """Whether two letters that touch belong to one word."""
    return all(
        (letter.isalnum() or letter in "'’_") and not _IDEOGRAPH.match(letter) for letter in (left, right) if letter
    )


def _words(joined: Sequence[bool]) -> list[tuple[int, int]]:
    starts = [at for at, continues in enumerate(joined) if not continues]
    return list(pairwise([*starts, len(joined)]))
