"""References in texts, sounds and series: the part of a sample where a unit looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from relprop.concepts.conditional import conditional
from relprop.errors import InputError

AROUND = 6
"""Tokens on each side of the one that counts."""
MOST = 0.8
"""The part of the positive relevance that a stretch of a series holds; of all sizes, if negative relevance prevails."""


@dataclass(frozen=True)
class Snippet:
    """A part of a sample, with the relevance that passes a unit.

    Attributes:
        sample: the number of the sample in the data set.
        label: its class, if the data have labels.
        value: the relevance or activation of the unit in it.
        position: the position in the sample that counts: where the unit had most, or for a layer with other positions than the
            sample's, the one with the most relevance through the unit.
        start: the first position of the part.
        length: the number of positions of the whole sample.
        relevance: the relevance through the unit, from the sample's own class, at each position of the part, (t,); for
            series (C, t).
        content: the part: ids (t,), or a series (C, t).
        tokens: the tokens of the part as they read, with their spaces: by the tokenizer of the index, or else the ids. None
            for series.
    """

    sample: int
    label: int | None
    value: float
    position: int
    start: int
    length: int
    relevance: Tensor
    content: Tensor
    tokens: list[str] | None = None

    @property
    def stop(self) -> int:
        """The position after the last one of the part."""
        return self.start + self.content.shape[-1]

    @property
    def text(self) -> str:
        """The tokens in a line, with the one that counts in brackets. Empty for a series."""
        if self.tokens is None:
            return ""
        parts, at = list(self.tokens), self.position - self.start
        word = parts[at]
        parts[at] = f"{' ' * (len(word) - len(word.lstrip(' ')))}[{word.strip(' ')}]"
        return "".join(parts).strip()

    def __str__(self) -> str:
        where = self.text or f"positions {self.start} to {self.stop - 1} of {self.length}"
        return f"{self.value:+.4g}  sample {self.sample}: {where}"


def is_text(x: Tensor) -> bool:
    """Whether a sample is one of ids, (T,)."""
    return x.ndim == 1 and not x.is_floating_point()


def is_series(x: Tensor) -> bool:
    """Whether a sample is a sound (T,) or a series, (C, T) or (T, C)."""
    return x.is_floating_point() and x.ndim in (1, 2)


def snippets(unit: Any, by: str, most: int, around: int | None) -> list[Snippet]:
    """The references of a unit as parts of texts or series, without near-duplicates.

    Raises:
        InputError: the index has no model and data at hand, or the samples are neither ids nor series.
    """
    index = unit.index
    if index.model is None or index.dataset is None:
        raise InputError("snippets need the model and the data: relprop.load_index(folder, model, dataset).")
    if around is not None and (not isinstance(around, int) or isinstance(around, bool) or around < 0):
        raise InputError(f"around must be the number of positions on each side, 0 or more, or None; got {around!r}.")
    found: list[Snippet] = []
    time, place = _places(index, unit.layer)
    for reference in unit.references(by):
        if len(found) == most:
            break
        x, label = sample_of(index, reference.sample)
        relevance = conditional(index, x[None], label, unit.layer, [unit.unit])[0][0]
        values, content = (t if is_text(x) else lines(t, time) for t in (relevance, x))
        per_position = values if values.ndim == 1 else values.sum(0)
        length = content.shape[-1]
        position = int(per_position.argmax()) if place is None else min(reference.position[place], length - 1)
        start, stop = _stretch(per_position, position, AROUND if around is None and is_text(x) else around)
        part = content[..., start:stop]
        if any(_alike(part, other.content) for other in found):
            continue  # near-duplicates show nothing new
        names = tokens_of(index, x.tolist())[start:stop] if is_text(x) else None
        found.append(
            Snippet(
                reference.sample, label, reference.value, position, start, length, values[..., start:stop], part, names
            )
        )
    return found


def sample_of(index: Any, number: int) -> tuple[Tensor, int | None]:
    """A text or series of the data, and its label.

    Raises:
        InputError: the sample is neither.
    """
    item = index.dataset[number]
    x, label = (item[0], int(item[1])) if isinstance(item, (tuple, list)) else (item, None)
    if not (is_text(x) or is_series(x)):
        raise InputError(
            f"snippets are of ids (T,), sounds (T,) or series (C, T); samples have shape {tuple(x.shape)} and {x.dtype}. "
            "Pictures are drawn by show()."
        )
    return x, label


def time_axis(index: Any, layer: str) -> int:
    """The axis of time in a series of the data: 1 for (C, T), 0 for (T, C)."""
    return _places(index, layer)[0]


def _places(index: Any, layer: str) -> tuple[int, int | None]:
    """The axis of time in a sample, and the place of the sample's positions in those of the layer, if it has them."""
    of = index.layers[layer]
    sizes = [n for axis, n in enumerate(of.shape) if axis != of.axis]
    x, _ = sample_of(index, index.about["rows"][0][0])  # of.shape is what the layer gave for this one
    if x.ndim == 1:
        return 0, 0 if sizes and sizes[0] == len(x) else None
    fits = [axis for axis in (0, 1) if sizes and x.shape[axis] == sizes[0]]
    if len(fits) == 1:
        return fits[0], 0
    recurrent = any(isinstance(m, nn.RNNBase) and m.batch_first for m in index.model.modules())
    return (0 if of.axis == 1 or (len(of.shape) == 1 and recurrent) else 1), 0 if fits else None


def lines(x: Tensor, time: int) -> Tensor:
    """A series with its channels first, (C, T)."""
    return x[None] if x.ndim == 1 else x if time == 1 else x.T


def tokens_of(index: Any, ids: Sequence[int]) -> list[str]:
    """The tokens of ids as they read, by the tokenizer of the index; without one, the ids."""
    tokenizer = index.tokenizer
    if tokenizer is None:
        return [f"{' ' * (n > 0)}{i}" for n, i in enumerate(ids)]
    found = tokenizer.convert_ids_to_tokens(ids) if hasattr(tokenizer, "convert_ids_to_tokens") else tokenizer(ids)
    if not isinstance(found, (list, tuple)) or len(found) != len(ids) or not all(isinstance(t, str) for t in found):
        raise InputError(f"the tokenizer must give one str for each of {len(ids)} ids; got {found!r}.")
    from relprop.rendering.text import read

    return [one.text + " " * one.special for one in read(found, [0.0] * len(found))]


def check_tokenizer(tokenizer: Any) -> None:
    """Refuses what gives no tokens for ids.

    Raises:
        InputError: it is neither a tokenizer nor a function.
    """
    if tokenizer is not None and not hasattr(tokenizer, "convert_ids_to_tokens") and (
        not callable(tokenizer) or isinstance(tokenizer, type)
    ):  # fmt: skip
        raise InputError(
            f"tokenizer must have convert_ids_to_tokens, or be a function from a list of ids to their tokens; got {tokenizer!r}."
        )


def _stretch(relevance: Tensor, position: int, around: int | None) -> tuple[int, int]:
    """The first position of the part, and the one after its last."""
    length = len(relevance)
    if around is not None:
        return max(0, position - around), min(length, position + around + 1)
    relevance = relevance.detach().double()
    positive = relevance.clamp(min=0) if float(relevance.sum()) > 0 else relevance.abs() + 1e-300
    running = positive.cumsum(0) / positive.sum()
    ends = (1 - MOST) / 2
    start, stop = int((running < ends).sum()), int((running < 1 - ends).sum()) + 1
    return max(0, min(start, position, length - 8)), min(length, max(stop, position + 1, start + 8))


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether two parts are nearly the same."""
    if a.shape != b.shape:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    one, other = ((t - t.mean()).flatten().double() for t in (a, b))
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0)) > 0.98
