"""Relevance of tokens: tinted text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from relprop.errors import InputError
from relprop.rendering import colours
from relprop.rendering.colours import RED_BLUE, Floats, Palette
from relprop.rendering.drawing import Drawing, wrapped
from relprop.rendering.fonts import fit, width
from relprop.rendering.legend import colour_bar
from relprop.rendering.marks import FAINT, INK, LINE, SMALL, Line, Mark, Rect, Text
from relprop.rendering.scale import Scale, note, number, scale_for, to_array
from relprop.rendering.visible import visible

STYLES = ("plain", "words", "wordpiece", "sentencepiece", "byte_level")
_SPECIAL = re.compile(
    r"\[(CLS|SEP|PAD|UNK|MASK|BOS|EOS)\]|</?(s|pad|unk|mask|bos|eos)>|<\|[^|\s]*\|>|<(start|end)_of_turn>"
)
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# Relevance below this fraction of the scale is not underlined: a line says "for" or "against" at a glance.
UNDERLINED = 0.05
_LETTERS, _LINE_HEIGHT, _GAP = 14, 26, 5
# The least width of a drawing, so that the title of a short text has room.
_LEAST = 480


@dataclass(frozen=True)
class Token:
    """A token as it is shown.

    Attributes:
        text: the token as it reads, with its spaces and line breaks.
        value: its relevance.
        special: whether it is one of the network's own, such as `[CLS]`.
    """

    text: str
    value: float
    special: bool = False

    @property
    def starts_word(self) -> bool:
        """Whether it begins a word: it is special, or starts with a space."""
        return self.special or self.text[:1].isspace()


@dataclass(frozen=True, eq=False)
class TokenMap:
    """A text with the relevance of its tokens, and their scale. Build one with `TokenMap.of`."""

    tokens: tuple[Token, ...]
    scale: Scale
    palette: Palette = RED_BLUE

    @classmethod
    def of(
        cls,
        tokens: Sequence[str],
        relevance: torch.Tensor | ArrayLike,
        *,
        style: str | None = None,
        special: Sequence[bool] | None = None,
        merge: bool = False,
        percentile: float | None = None,
        limit: float | Scale | None = None,
        palette: Palette | str = RED_BLUE,
    ) -> TokenMap:
        """Builds a map from tokens and their relevance.

        Args:
            tokens: the tokens, as the tokenizer names them or as they read.
            relevance: the relevance of each token, `(T,)`; the features of `(T, D)` are summed.
            style: how tokens are spelled: "plain" (as they read), "words" (a space belongs between them), "wordpiece"
                (`##ing`), "sentencepiece" (`▁The`) or "byte_level" (`ĠThe`); None guesses from the tokens.
            special: which tokens are the network's own; None recognises them by their brackets.
            merge: whether to join the tokens of a word, and add up their relevance.
            percentile: end of the scale, as a percentile of absolute relevance.
            limit: end of the scale.
            palette: the colours, or their name.

        Raises:
            InputError: tokens and relevance do not match, or there is no such style, palette or scale.
        """
        values = to_array(relevance)
        if values.ndim == 2 and len(values) == len(tokens):
            with np.errstate(invalid="ignore", over="ignore"):  # as in a sum of channels
                values = values.sum(1)
        if values.shape != (len(tokens),) or not len(tokens):
            raise InputError(
                f"relevance has the shape {values.shape} for {len(tokens)} tokens; give one number each, or (T, D)."
            )
        found = read(tokens, values, style=style, special=special)
        if merge:
            found = merge_words(found)
        scale = scale_for([[token.value for token in found]], percentile=percentile, limit=limit)
        return cls(tuple(found), scale, colours.palette(palette))

    @property
    def values(self) -> Floats:
        """The relevance of each token."""
        return np.array([token.value for token in self.tokens])

    @property
    def scaled(self) -> Floats:
        """The values as fractions of the limit, -1 to 1; NaN where they are not finite."""
        return self.scale(self.values)

    @property
    def note(self) -> str:
        """What a reader should know before trusting the colours; empty for an ordinary text."""
        return note(self.values, self.scale, "token")

    def drawing(self, room: float = 720, *, bar: bool = True, marked: int | None = None) -> Drawing:
        """The text in wrapped lines, each token on its colour. A line under it is solid for, dotted against.

        Lines break between words, and within a word that does not fit a line.

        Args:
            room: the length of the lines, in pixels.
            bar: whether the scale is drawn below, with what is to be noted.
            marked: the number of a token that gets a frame.
        """
        grounds: list[Mark] = []
        marks: list[Mark] = []  # above all grounds: the ground of a token would cover part of the letter before it
        x, y, longest, gap = 0.0, 0.0, min(_LEAST, room), False
        for place, (token, scaled) in enumerate(zip(self.tokens, self.scaled, strict=True)):
            x += _GAP if x and (gap or token.special) else 0
            breaks = token.text.count("\n") if not token.special else 0
            text = visible(token.text.replace("\n", ""), longest=60)
            sign = " " * bool(breaks) + "↵" * min(breaks, 3)  # a separate mark: few fonts have it
            long = min(width(text, _LETTERS), room - width(sign, _LETTERS)) + width(sign, _LETTERS)
            word = _word_width(self.tokens, place) if token.starts_word else long
            if x and x + (word if word <= room else long) > room:
                x, y = 0.0, y + _LINE_HEIGHT
                text = text.lstrip(" ") or text
                long = min(width(text, _LETTERS), room - width(sign, _LETTERS)) + width(sign, _LETTERS)
            ahead, _, behind = spaces(text)
            before = width(ahead, _LETTERS) if text[:1] == " " else 0.0
            tinted = max(
                long - before - (width(behind, _LETTERS) if behind else 0.0), 1.0
            )  # the colour ends with the word
            fill, ink = colours.hexadecimal(float(scaled), self.palette), colours.ink_on(float(scaled))
            edge = INK if place == marked else LINE if token.special else None
            grounds.append(
                Rect(
                    x + before, y, tinted, _LINE_HEIGHT - 5, fill, edge, f"{visible(token.text)}: {number(token.value)}"
                )
            )
            marks.append(Text(x, y + 3, fit(text, long - width(sign, _LETTERS), _LETTERS), _LETTERS, ink))
            if sign:
                marks.append(Text(x + long, y + 3, sign, _LETTERS, ink, "end"))
            if abs(scaled) >= UNDERLINED:
                start, stop = x + before + 1, x + before + tinted - 1
                ends = (start, y + _LINE_HEIGHT - 4), (stop, y + _LINE_HEIGHT - 4)
                marks.append(Line(ends, INK, 1, dashed=bool(scaled < 0)))
            x, gap = x + long, token.special
            longest = max(longest, x)
            if breaks:
                x, y = 0.0, y + _LINE_HEIGHT * breaks
        bottom = y + _LINE_HEIGHT
        if bar:
            below, long = self._below(room, bottom + 8)
            marks, bottom, longest = [*marks, *below.marks], below.height, max(longest, long)
        return Drawing(min(longest, room), bottom, (*grounds, *marks), self.described())

    def _below(self, room: float, top: float) -> tuple[Drawing, float]:
        """The scale and the note, from `top` on, and the length of the note."""
        bar = colour_bar(min(280, room), self.scale, self.palette)
        marks, bottom, longest = list(bar.at(0, top)), top + bar.height, 0.0
        if self.note:
            x = bar.width + 12 if room - bar.width > 200 else 0.0
            below = top if x else top + bar.height + 2
            for line in wrapped(self.note, room - x, SMALL):
                marks.append(Text(x, below, line, SMALL, FAINT))
                longest = max(longest, x + width(line, SMALL))
                below += SMALL + 4
            bottom = max(bottom, below)
        return Drawing(room, bottom, tuple(marks)), longest

    def described(self) -> str:
        """The text and its strongest tokens, in words."""
        order = np.argsort(-np.abs(np.nan_to_num(self.values)))[:5]
        strongest = ", ".join(f"{visible(self.tokens[i].text).strip()} {number(self.tokens[i].value)}" for i in order)
        return f"Text with relevance; strongest: {strongest}."


def spaces(text: str) -> tuple[str, str, str]:
    """The spaces before a word, the word, and the spaces after it. A token of spaces alone is a word."""
    word = text.strip(" ")
    if not word:
        return "", text, ""
    start = text.index(word)
    return text[:start], word, text[start + len(word) :]


def _word_width(tokens: Sequence[Token], start: int) -> float:
    """The width of the word that begins at a token."""
    stop = next((n for n in range(start + 1, len(tokens)) if tokens[n].starts_word), len(tokens))
    return sum(width(visible(token.text, longest=60), _LETTERS) for token in tokens[start:stop])


def read(
    tokens: Sequence[str],
    values: Sequence[float] | Floats,
    *,
    style: str | None = None,
    special: Sequence[bool] | None = None,
) -> list[Token]:
    """Tokens as they read, with their spaces; see `TokenMap.of`."""
    if style is None:
        style = guess_style(tokens)
    if style not in STYLES:
        raise InputError(f"there is no style {style!r} of tokens; there are: {', '.join(STYLES)}.")
    own = [bool(_SPECIAL.fullmatch(token)) for token in tokens] if special is None else list(special)
    if len(own) != len(tokens):
        raise InputError(f"special has {len(own)} entries for {len(tokens)} tokens.")
    found = []
    for position, (token, value, mine) in enumerate(zip(tokens, values, own, strict=True)):
        text = token if mine else _reads(token, style, first=position == 0 or own[position - 1])
        found.append(Token(text, float(value), mine))
    return found


def guess_style(tokens: Sequence[str]) -> str:
    """The style in which tokens are spelled, guessed from their marks."""
    ordinary = [token for token in tokens if not _SPECIAL.fullmatch(token)]
    if any(token.startswith("##") and len(token) > 2 for token in ordinary):
        return "wordpiece"
    if any(token.startswith("▁") for token in ordinary):
        return "sentencepiece"
    if any(token.startswith(("Ġ", "Ċ")) for token in ordinary):
        return "byte_level"
    if len(ordinary) > 1 and not any(token[:1].isspace() or token[-1:].isspace() for token in ordinary):
        return "words"
    return "plain"


def merge_words(tokens: Sequence[Token]) -> list[Token]:
    """Merges the tokens of each word, and sums their relevance. Special tokens stay by themselves."""
    words: list[list[Token]] = []
    for token in tokens:
        if not words or token.starts_word or words[-1][-1].special:
            words.append([])
        words[-1].append(token)
    return [
        Token("".join(token.text for token in word), sum(token.value for token in word), word[0].special)
        for word in words
    ]


def _reads(token: str, style: str, first: bool) -> str:
    if style == "words":
        return token if first else f" {token}"
    if style == "wordpiece":
        if token.startswith("##") and len(token) > 2:
            return token[2:]
        return token if first or re.fullmatch(r"[.,;:!?)\]'’%]", token) else f" {token}"
    if style == "sentencepiece":
        byte = _BYTE.fullmatch(token)
        return bytes([int(byte[1], 16)]).decode("latin-1") if byte else token.replace("▁", " ")
    if style == "byte_level":
        return _from_bytes(token)
    return token


def _byte_letters() -> dict[str, int]:
    """The letters that byte-level tokenizers (Radford et al. 2019) write for the 256 bytes, each with its byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(rest)}


_BYTES = _byte_letters()


def _from_bytes(token: str) -> str:
    if any(letter not in _BYTES for letter in token):
        return token
    try:
        return bytes(_BYTES[letter] for letter in token).decode()
    except UnicodeDecodeError:
        return token  # only a part of a letter: shown as the tokenizer writes it
