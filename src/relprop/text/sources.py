"""Sources in a prompt: where their tokens are, and what the model says without them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.results.sources import LeftOut, Sources
from relprop.text.tokens import is_chat

_END = re.compile(r"[.!?…。！？]+[\"'”’)\]]*(?=\s|$)|[。！？]|\n+")
"""Where a sentence ends."""
Answered = tuple[Tensor, Tensor]
"""The score and the log-probability of each generated token."""


def check_sources(prompt: Any, sources: Any, verify: Any) -> dict[str, str]:
    """The sources by their names.

    Raises:
        InputError: a source is no text, or the prompt does not have it exactly once.
    """
    if not isinstance(verify, int) or isinstance(verify, bool) or verify < 0:
        raise InputError(f"verify must be the number of sources to leave out, 0 or more; got {verify!r}.")
    if sources is None:
        if verify:
            raise InputError("verify leaves sources out, so it needs sources=[...], texts that the prompt holds.")
        return {}
    if isinstance(sources, Mapping):
        named = dict(sources)
    elif isinstance(sources, (list, tuple)):
        named = {f"source {n}": text for n, text in enumerate(sources, 1)}
    else:
        raise InputError(f"sources must be a list of texts that the prompt holds, or a dict of them; got {sources!r}.")
    if not named:
        raise InputError("the list of sources is empty.")
    whole = _texts(prompt)
    for name, text in named.items():
        if not isinstance(name, str) or not isinstance(text, str) or not text.strip():
            raise InputError(f"source {name!r} must be a text that is not empty; got {text!r}.")
        count = sum(part.count(text.strip()) for part in whole)
        if count != 1:
            raise InputError(
                f"{name!r} is {_short(text)!r}, which the prompt holds {count} times; each source must be in it exactly once, "
                "letter by letter."
            )
    return {name: text.strip() for name, text in named.items()}


def _texts(prompt: Any) -> list[str]:
    """The texts of a prompt or of the messages of a chat."""
    if is_chat(prompt):
        return [m["content"] for m in prompt if isinstance(m.get("content"), str)]
    return [prompt] if isinstance(prompt, str) else []


def spans(pieces: Sequence[str], sources: Mapping[str, str]) -> list[tuple[int, int]]:
    """The tokens of each source. White space is not compared, because tokenizers change it.

    Raises:
        InputError: a source is not found among the tokens, or two share a token.
    """
    letters = [(letter, at) for at, piece in enumerate(pieces) for letter in piece.casefold() if not letter.isspace()]
    read = "".join(letter for letter, _ in letters)
    found: list[tuple[int, int]] = []
    for name, text in sources.items():
        wanted = "".join(text.casefold().split())
        start = read.find(wanted)
        if start < 0 or read.find(wanted, start + 1) >= 0:
            raise InputError(f"{name!r} cannot be told among the tokens of the prompt: {_short(text)!r}.")
        begin, end = letters[start][1], letters[start + len(wanted) - 1][1] + 1
        if any(a < end and begin < b for a, b in found):
            raise InputError(f"{name!r} shares a token with another source: its relevance would count twice.")
        found.append((begin, end))
    return found


def sentences(pieces: Sequence[str]) -> list[tuple[int, int]]:
    """The tokens of each sentence; what follows the last full stop belongs to the last sentence if it has no letters."""
    text = "".join(pieces)
    ends = [match.end() for match in _END.finditer(text)]
    bounds, lengths = [0], [len(piece) for piece in pieces]
    for end in ends:
        stop, read = 0, 0
        for length in lengths:
            if read >= end:
                break
            read += length
            stop += 1
        if stop > bounds[-1] and any(c.isalnum() for piece in pieces[bounds[-1] : stop] for c in piece):
            bounds.append(stop)
    if bounds[-1] < len(pieces):
        if len(bounds) > 1 and not any(c.isalnum() for piece in pieces[bounds[-1] :] for c in piece):
            bounds[-1] = len(pieces)
        else:
            bounds.append(len(pieces))
    return list(itertools.pairwise(bounds))


def by_sources(
    names: Sequence[str],
    places: list[tuple[int, int]],
    pieces: Sequence[str],
    relevance: Tensor,
    scores: Tensor,
    prompt: int,
) -> Sources:
    """The relevance of the sources, without any that was left out."""
    ends = sentences(pieces)
    rows = torch.stack([relevance[a:b].sum(0) for a, b in ends]).double()
    of_sources = torch.stack([rows[:, a:b].sum(1) for a, b in places], 1)
    totals = torch.stack([scores[a:b].sum() for a, b in ends]).double()
    read, written = rows[:, :prompt].sum(1), rows[:, prompt:].sum(1)
    said = ["".join(pieces[a:b]).strip() for a, b in ends]
    return Sources(
        list(names), places, said, ends, of_sources, read - of_sources.sum(1), written, totals - rows.sum(1), totals
    )


def verified(found: Sources, most: int, sources: Mapping[str, str], prompt: Any, answer: Callable[[Any], Answered], whole: Answered) -> list[LeftOut]:  # fmt: skip
    """What happens to each sentence if one of the strongest sources is left out.

    Args:
        found: the relevance of the sources.
        most: how many to leave out, one at a time.
        sources: their texts by name.
        prompt: the prompt.
        answer: gives the score and log-probability of each generated token after another prompt.
        whole: those after the prompt itself.
    """
    order = found.of_answer.abs().argsort(descending=True, stable=True)[:most].tolist()
    texts = list(sources.values())
    left: list[LeftOut] = []
    for k in order:
        fallen = [a.double() - b.double() for a, b in zip(whole, answer(without(prompt, texts[k])), strict=True)]
        sums = [torch.stack([part[a:b].sum() for a, b in found.ends]) for part in fallen]
        left.append(LeftOut(k, sums[0], sums[1]))
    return left


def without(prompt: Any, source: str) -> Any:
    """The prompt without a source."""
    if isinstance(prompt, str):
        return prompt.replace(source, "", 1)
    return [
        {**m, "content": m["content"].replace(source, "", 1)} if isinstance(m.get("content"), str) else m
        for m in prompt
    ]


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= 60 else f"{plain[:59]}…"
