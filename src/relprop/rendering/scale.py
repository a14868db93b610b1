"""The scale of a map: the size of relevance that gets the deepest colour, and how it was chosen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from relprop.errors import InputError
from relprop.rendering.colours import Floats

# A map looks white if its largest size is below this fraction of its scale.
_FAINT = 0.05
USUAL = 99.5
"""Where the scale of a picture ends: the percentile of the sizes that are not 0.

Maps of pictures are heavy-tailed: on the scale of its largest pixel, a map of a photograph is nearly white.
"""


@dataclass(frozen=True)
class Scale:
    """A scale symmetric around zero: relevance from `-limit` to `limit`.

    Attributes:
        limit: the size drawn in the deepest colour; 0 if no finite value differs from 0.
        how: how it was chosen, in words, for captions; empty for the largest size of one map.
    """

    limit: float
    how: str = ""

    @classmethod
    def of(cls, *maps: torch.Tensor | ArrayLike, percentile: float | None = None) -> Scale:
        """The scale of the largest size in one map, or in several that are to be compared.

        Args:
            *maps: relevance of any shape.
            percentile: scale by this percentile of absolute relevance instead, and clip larger values. A few extreme
                values then do not leave the rest pale, but the deepest colour hides differences. Captions say so.

        Raises:
            InputError: the percentile is not above 0 and at most 100.
        """
        if percentile is not None and not 0.0 < percentile <= 100.0:
            raise InputError(f"percentile is {percentile}; it lies above 0 and up to 100.")
        arrays = [to_array(m) for m in maps]
        sizes = np.concatenate([np.abs(a[np.isfinite(a)]).ravel() for a in arrays]) if arrays else np.array([])
        shared = f"shared by {len(arrays)} maps" if len(arrays) > 1 else ""
        if sizes.size == 0:
            return cls(0.0, shared)
        if percentile is None or percentile == 100.0:
            return cls(float(sizes.max()), shared)
        how = f"clipped at percentile {percentile:g}"
        return cls(float(np.percentile(sizes, percentile)), f"{how}, {shared}" if shared else how)

    @classmethod
    def usual(cls, *maps: torch.Tensor | ArrayLike) -> Scale:
        """The usual scale of pictures: of the pixels that are not 0, at most one in 200 lies beyond it.

        A map of fewer pixels is not clipped.
        """
        arrays = [to_array(m) for m in maps]
        sizes = np.concatenate([np.abs(a[np.isfinite(a) & (a != 0.0)]).ravel() for a in arrays] or [np.array([])])
        shared = f"shared by {len(arrays)} maps" if len(arrays) > 1 else ""
        if sizes.size == 0:
            return cls(0.0, shared)
        limit = float(np.percentile(sizes, USUAL, method="higher"))
        clipped = f"clipped at percentile {USUAL:g}" if limit < sizes.max() else ""
        return cls(limit, ", ".join(filter(None, [clipped, shared])))

    @classmethod
    def fixed(cls, limit: float) -> Scale:
        """A scale with a given limit.

        Raises:
            InputError: the limit is not a positive finite number.
        """
        if not (np.isfinite(limit) and limit > 0.0):
            raise InputError(f"limit is {limit}; a fixed scale needs a positive number.")
        return cls(float(limit), "fixed")

    def __call__(self, values: torch.Tensor | ArrayLike) -> Floats:
        """The values as fractions of the limit, -1 to 1; NaN where they are not finite."""
        array = to_array(values)
        array = np.where(np.isfinite(array), array, np.nan)
        if self.limit <= 0.0:
            return np.where(np.isnan(array), np.nan, np.sign(array))
        # A tiny limit makes the quotient overflow; it is clipped to 1 either way.
        with np.errstate(over="ignore"):
            return np.clip(array / self.limit, -1.0, 1.0)

    def beyond(self, values: torch.Tensor | ArrayLike) -> int:
        """The number of finite values beyond the limit."""
        array = to_array(values)
        return int(np.count_nonzero(np.isfinite(array) & (np.abs(array) > self.limit)))


def scale_for(
    maps: Iterable[torch.Tensor | ArrayLike],
    *,
    percentile: float | None = None,
    limit: float | Scale | None = None,
    pictures: bool = False,
) -> Scale:
    """One scale for some maps: the given limit or scale, else one chosen from their values.

    Without limit and percentile it is the usual one for pictures, and that of the largest size for others.
    """
    if isinstance(limit, Scale):
        return limit
    if limit is not None:
        if percentile is not None:
            raise InputError("give percentile or limit, not both: each of them sets the end of the scale.")
        return Scale.fixed(limit)
    return Scale.usual(*maps) if pictures and percentile is None else Scale.of(*maps, percentile=percentile)


def note(values: torch.Tensor | ArrayLike, scale: Scale | None = None, unit: str = "value") -> str:
    """What a reader should know before trusting the colours; empty for an ordinary map on its own scale."""
    array = to_array(values)
    finite = np.isfinite(array)
    notes = []
    if not finite.all():
        notes.append(f"{array.size - int(np.count_nonzero(finite))} of {array.size} values are not finite")
    if finite.any():
        inside = array[finite]
        if not inside.any():
            notes.append("all zero")
        elif inside.size == 1:
            notes.append(f"a single {unit}, {inside[0]:.3g}")
        elif inside.min() == inside.max():
            notes.append(f"constant, {inside[0]:.3g} everywhere{' else' * (not finite.all())}")
    if scale is not None:
        if scale.how:
            notes.append(f"scale {scale.how}")
        largest = float(np.abs(array[finite]).max(initial=0.0))
        if 0.0 < largest < _FAINT * scale.limit:
            notes.append(f"looks white: its largest size is {largest:.2g}")
        if beyond := scale.beyond(array):
            notes.append(f"{beyond} {unit}{'s' * (beyond > 1)} beyond")
    return "; ".join(notes)


def to_array(values: torch.Tensor | ArrayLike) -> Floats:
    """Real numbers as a float64 array, from tensors of any dtype and device (NumPy has no bfloat16).

    Raises:
        InputError: the values are not real numbers.
    """
    if isinstance(values, torch.Tensor) and not values.is_complex():
        values = values.detach().cpu().to(torch.float64).numpy()
    try:
        array = np.asarray(values)
        if not np.iscomplexobj(array):
            return array.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        pass
    what = f"{values.dtype} numbers" if isinstance(values, (torch.Tensor, np.ndarray)) else f"a {type(values).__name__}"
    raise InputError(f"relevance is drawn of real numbers, such as a tensor or an array; got {what}.")


def number(value: float) -> str:
    """A number for people: three digits, with a hyphen as the minus sign, which every font has."""
    return f"{value:.3g}"
