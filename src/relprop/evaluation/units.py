"""Units: what is removed as one. Each entry of the main input belongs to a unit, or to none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.errors import InputError

NAMES = ("entries", "pixels", "patches", "steps", "features", "tokens", "words")


@dataclass(frozen=True, eq=False)
class UnitMap:
    """A map from entries to units.

    Attributes:
        name: what the units are, in words.
        at: the number of the unit of each entry, -1 for none. Its shape is (N, ...) or (1, ...), and it broadcasts
            with the main input.
        count: the largest number of units of a sample.
        counts: the number of units of each sample, (N,) or (1,).
        gathered: how relevance is gathered in a unit, in words.
    """

    name: str
    at: Tensor
    count: int
    counts: Tensor
    gathered: str = "sum over the unit"

    def of(self, samples: Tensor) -> Tensor:
        """The maps of some samples; one row where all samples share a map."""
        return self.at if len(self.at) == 1 else self.at.index_select(0, samples)

    def entries(self, gone: Tensor, samples: Tensor) -> Tensor:
        """The entries of some units: from (m, count) to (m, ...) in the shape of the map, boolean."""
        at = self.of(samples)
        flat = at.reshape(len(at), -1).expand(len(gone), -1)
        inside = gone.gather(1, flat.clamp(min=0)) & (flat >= 0)
        return inside.reshape(len(gone), *at.shape[1:])

    def gather(self, values: Tensor) -> Tensor:
        """Relevance summed within each unit: from (N, ...) to (N, count), float64. Units that a sample lacks get 0."""
        if values.ndim != self.at.ndim:
            raise InputError(
                f"a map of shape {tuple(values.shape)} does not fit units of shape {tuple(self.at.shape)}."
            )
        at = self.at.expand(len(values), *(max(a, b) for a, b in zip(self.at.shape[1:], values.shape[1:], strict=True)))
        if values.shape[1:] != at.shape[1:]:
            try:
                values = values.expand(at.shape)
            except RuntimeError:
                raise InputError(
                    f"a map of shape {tuple(values.shape)} does not fit units of shape {tuple(self.at.shape)}."
                ) from None
        flat, at = values.double().reshape(len(values), -1), at.reshape(len(values), -1)
        found = flat.new_zeros(len(values), self.count + 1)
        return found.scatter_add_(1, torch.where(at < 0, self.count, at), flat)[:, :-1]

    def present(self, samples: int) -> Tensor:
        """Which units each sample has, (N, count)."""
        counts = self.counts.expand(samples)
        return torch.arange(self.count, device=counts.device) < counts[:, None]


def units_of(given: Any, main: Tensor, inputs: Any, path: str) -> UnitMap:
    """The units that a user asks for; None chooses by the shape of the main input.

    Raises:
        InputError: there are no such units, or they do not fit.
    """
    if isinstance(given, UnitMap):
        return given
    if given is None:
        given = _usual(main)
    if isinstance(given, tuple) and len(given) == 2 and given[0] in ("patches", "steps") and isinstance(given[1], int):
        return _named(given[0], main, inputs, given[1])
    if isinstance(given, str):
        return _named(given, main, inputs, None)
    if isinstance(given, Tensor):
        return _mapped(given, main)
    if isinstance(given, Sequence) and all(isinstance(group, (list, tuple, range)) for group in given):
        return _groups(given, main)
    raise InputError(
        f"units must be one of {', '.join(map(repr, NAMES))}, ('patches', side), a tensor of unit numbers, or a list of "
        f"groups of features; got {given!r}."
    )


def _usual(main: Tensor) -> Any:
    if not main.is_floating_point():
        return "tokens"
    if main.ndim == 4:
        return ("patches", max(1, round(max(main.shape[2:]) / 14)))
    return {2: "features", 3: "steps"}.get(main.ndim, "entries")


def _named(name: str, main: Tensor, inputs: Any, size: int | None) -> UnitMap:
    shape = tuple(main.shape[1:])
    device = main.device
    if name == "entries":
        return _plain("entries", torch.arange(main[0].numel(), device=device).reshape(1, *shape))
    if name in ("pixels", "patches"):
        if main.ndim != 4:
            raise InputError(f"units={name!r} needs pictures, (N, C, H, W); the inputs have shape {tuple(main.shape)}.")
        high, wide = shape[1:]
        side = 1 if name == "pixels" else size if size is not None else max(1, round(max(high, wide) / 14))
        if not 0 < side <= max(high, wide):
            raise InputError(f"patches have a side from 1 to {max(high, wide)}; got {side}.")
        rows, columns = torch.arange(high, device=device) // side, torch.arange(wide, device=device) // side
        at = rows[:, None] * (int(columns[-1]) + 1) + columns
        what = "pixels" if side == 1 else f"patches of {side} x {side} pixels"
        return _plain(what, at[None, None], "sum over channels, then over the unit")
    if name == "features":
        if main.ndim != 2:
            raise InputError(f"units='features' needs tables, (N, F); the inputs have shape {tuple(main.shape)}.")
        return _plain("features", torch.arange(shape[0], device=device)[None])
    if name == "steps":
        if main.ndim != 3:
            raise InputError(
                f"units='steps' needs series, (N, C, T); the inputs have shape {tuple(main.shape)}. For series with time "
                "first, (N, T, C), pass units=torch.arange(T)[None, :, None]."
            )
        at = torch.arange(shape[1], device=device) // (size or 1)
        what = "time steps" if not size or size == 1 else f"windows of {size} time steps"
        return _plain(what, at[None, None], "sum over channels, then over the unit")
    if name in ("tokens", "words"):
        return _tokens(name, main, inputs)
    raise InputError(f"there are no units {name!r}; there are: {', '.join(NAMES)}, and ('patches', side).")


def _plain(name: str, at: Tensor, gathered: str = "sum over the unit") -> UnitMap:
    count = int(at.max()) + 1
    return UnitMap(name, at, count, torch.tensor([count], device=at.device), gathered)


def _mapped(at: Tensor, main: Tensor) -> UnitMap:
    """A map of the user's, such as superpixels."""
    if at.is_floating_point() or at.dtype == torch.bool or at.is_complex():
        raise InputError(f"units as a tensor hold the number of each entry's unit, integers; got {at.dtype}.")
    given, at = tuple(at.shape), at.long().to(main.device)
    pictures = main.ndim == 4 and at.ndim in (2, 3) and at.shape[-2:] == main.shape[2:]
    if pictures:
        at = at[None, None] if at.ndim == 2 else at[:, None]
    elif at.ndim == 1 and main.ndim == 2:
        at = at[None]
    elif at.ndim == 1 and main.ndim == 3:
        at = at[None, None]
    fits = at.ndim == main.ndim and all(a in (1, b) for a, b in zip(at.shape, main.shape, strict=True))
    if not fits:
        raise InputError(f"units of shape {given} do not fit inputs of shape {tuple(main.shape)}.")
    if not bool((at >= 0).any()):
        raise InputError("units hold no unit: every number is below 0, which marks entries that are never removed.")
    rows = [_dense(row) for row in at]
    counts = torch.tensor([count for _, count in rows], device=at.device)
    return UnitMap(
        "given units", torch.stack([row for row, _ in rows]), int(counts.max()), counts,
        "sum over channels, then over the unit" if pictures else "sum over the unit",
    )  # fmt: skip


def _dense(row: Tensor) -> tuple[Tensor, int]:
    """The numbers 0, 1, ... in place of any; what is below 0 becomes -1."""
    used = row[row >= 0].unique()
    dense = torch.searchsorted(used, row.clamp(min=0).contiguous())
    return torch.where(row < 0, -1, dense), len(used)


def _groups(groups: Sequence[Sequence[int]], main: Tensor) -> UnitMap:
    if main.ndim != 2:
        raise InputError(
            f"groups of features need tables, (N, F); the inputs have shape {tuple(main.shape)}. Pass a tensor of unit "
            "numbers instead."
        )
    at = torch.full((main.shape[1],), -1, dtype=torch.long, device=main.device)
    for number, group in enumerate(groups):
        for feature in group:
            if not 0 <= feature < main.shape[1] or at[feature] >= 0:
                raise InputError(
                    f"each feature, 0 to {main.shape[1] - 1}, belongs to at most one group; {feature} does not."
                )
            at[feature] = number
        if not len(group):
            raise InputError(f"group {number} is empty.")
    return _plain("groups of features", at[None])


def _tokens(name: str, main: Tensor, inputs: Any) -> UnitMap:
    """Tokens or words; padding and the model's own tokens belong to no unit."""
    if main.ndim not in (2, 3):
        raise InputError(f"units={name!r} needs texts, (N, T) or (N, T, D); the inputs have shape {tuple(main.shape)}.")
    count, length = main.shape[:2]
    free = torch.ones(count, length, dtype=torch.bool, device=main.device)
    if isinstance(inputs, dict) or hasattr(inputs, "keys"):
        if "attention_mask" in inputs and inputs["attention_mask"].shape == free.shape:
            free &= inputs["attention_mask"].bool()
        if "special_tokens_mask" in inputs:
            free &= ~inputs["special_tokens_mask"].bool()
    encodings = getattr(inputs, "encodings", None)
    if encodings is not None:
        own = torch.tensor([encoding.special_tokens_mask for encoding in encodings], dtype=torch.bool)
        free &= ~own.to(free.device)
    if name == "words":
        if encodings is None:
            raise InputError(
                "units='words' needs the answer of a fast tokenizer, which knows the word of each token; pass it as "
                "inputs, or pass units= as a tensor of word numbers."
            )
        words = [[-1 if word is None else word for word in encoding.word_ids] for encoding in encodings]
        at = torch.where(free, torch.tensor(words, device=main.device), -1)
    else:
        at = torch.where(free, free.long().cumsum(1) - 1, -1)
    if not bool((at >= 0).any(1).all()):
        raise InputError("a text has no token that may be removed.")
    found = _mapped(at[..., None] if main.ndim == 3 else at, main)
    return UnitMap(name, found.at, found.count, found.counts, "sum over features, then over the unit")
