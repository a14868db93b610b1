"""What a condition does at one layer: weights on the units, or a projection on directions, as a linear map on `G`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.conditions import Units
from relprop.errors import InputError


@dataclass(frozen=True)
class Filter:
    """A linear map on `G` at a layer.

    Attributes:
        weights: factors that broadcast with the tensor of the layer, its first axis being 1 or that of samples.
        basis: orthonormal directions (k, d) on which to project, along `axis` of the whole tensor; None without.
        rest: whether to keep what is orthogonal to them instead.
    """

    weights: Tensor | None = None
    basis: Tensor | None = None
    axis: int = -1
    rest: bool = False

    def __call__(self, g: Tensor) -> Tensor:
        if self.basis is not None:
            basis = self.basis.to(g)
            moved = g.movedim(self.axis, -1)
            part = ((moved @ basis.mT) @ basis).movedim(-1, self.axis)
            g = g - part if self.rest else part
        return g if self.weights is None else g * self.weights.to(g)

    def complement(self) -> Filter:
        """What the filter stops."""
        if self.basis is not None:
            return Filter(basis=self.basis, axis=self.axis, rest=not self.rest)
        assert self.weights is not None
        return Filter(1 - self.weights)

    def times(self, other: Filter, said: str) -> Filter:
        """Both filters."""
        if self.basis is not None or other.basis is not None:
            raise InputError(
                f"{said}: directions cannot be joined with other units of the same layer, because what passes both would "
                "depend on their order. Give all directions at once, directions=torch.stack([...])."
            )
        assert self.weights is not None and other.weights is not None
        return Filter(self.weights * other.weights)

    def only(self, rows: Tensor) -> Filter:
        """The filter for some samples; those of the others pass nothing."""
        shape = [-1] + [1] * ((2 if self.weights is None else self.weights.ndim) - 1)
        return Filter(
            rows.reshape(shape).double() * (1 if self.weights is None else self.weights),
            self.basis,
            self.axis,
            self.rest,
        )


def filter_of(units: Units, shape: torch.Size, samples: int) -> Filter:
    """The filter of units of a layer whose tensor has this shape.

    Raises:
        InputError: the units are out of range, none, or do not fit the layer.
    """
    inner = tuple(shape[1:])
    if units.mask is not None:
        return Filter(_mask(units, shape, samples))
    if not shape or shape[0] != samples:
        raise InputError(
            f"{units.said}: the layer gives a tensor of shape {tuple(shape)}, whose first axis is not that of the {samples} "
            "samples, so an index cannot tell the units of one sample. Give mask= in the shape of the whole tensor."
        )
    if units.directions is not None:
        return _projection(units, inner)
    weights = torch.zeros(inner, dtype=torch.float64)
    if units.index is None:
        return Filter(weights.add_(1)[None])
    index = list(units.index) if isinstance(units.index, range) else units.index
    _check_index(units, index if isinstance(index, tuple) else (index,), inner)
    try:
        weights[index] = 1.0
    except (IndexError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{units.said}: the layer gives {inner} for one sample, which this does not index: {error}."
        ) from None
    if not weights.any():
        raise InputError(
            f"{units.said}: this selects no unit of the {inner} that the layer gives for one sample, so no relevance would pass."
        )
    return Filter(weights[None])


def _check_index(units: Units, index: tuple[Any, ...], shape: tuple[int, ...]) -> None:
    """Refuses numbers that lie outside of the layer."""
    for one in index:
        if not (one is Ellipsis or isinstance(one, (slice, list, range, Tensor)) or hasattr(one, "__index__")):
            raise InputError(f"{units.said}: units are numbers, slices, lists, tensors and booleans; got {one!r}.")
    given = [i for i in index if i is not Ellipsis]
    if len(given) > len(shape) and not any(isinstance(i, Tensor) and i.dtype == torch.bool for i in given):
        raise InputError(f"{units.said}: {len(given)} indices, but the layer gives {shape} for one sample.")
    after = index[::-1].index(Ellipsis) if any(i is Ellipsis for i in index) else 0
    axes = [*range(len(given) - after), *range(len(shape) - after, len(shape))] if after else list(range(len(given)))
    for one, axis in zip(given, axes, strict=False):
        if isinstance(one, Tensor) and one.dtype == torch.bool:
            if tuple(one.shape) != shape[axis : axis + one.ndim]:
                raise InputError(
                    f"{units.said}: the booleans have shape {tuple(one.shape)}, the layer gives {shape} for one sample."
                )
            return
        numbers = (
            one.reshape(-1).tolist()
            if isinstance(one, Tensor)
            else list(one)
            if isinstance(one, (list, range))
            else [one]
        )
        if isinstance(one, (list, range, Tensor)) and not numbers:
            raise InputError(f"{units.said}: the list is empty, so no relevance would pass.")
        for number in numbers:
            if isinstance(number, bool) and len(numbers) not in (shape[axis], 0):
                raise InputError(f"{units.said}: {len(numbers)} booleans for {shape[axis]} units.")
            if isinstance(number, float) or (isinstance(number, int) and not -shape[axis] <= number < shape[axis]):
                raise InputError(
                    f"{units.said}: there is no unit {number} along axis {axis} of one sample, which has {shape[axis]}, 0 to "
                    f"{shape[axis] - 1}. The layer gives {shape} for one sample."
                )


def _mask(units: Units, shape: torch.Size, samples: int) -> Tensor:
    """The weights of a mask, with the axis of samples in front."""
    assert units.mask is not None
    mask = units.mask.detach()
    if units.rows is not None:
        mask = mask[units.rows[0] : units.rows[1]]
    inner = tuple(shape[1:])
    if mask.ndim == len(shape) and len(mask) in (1, shape[0]):
        fits = all(a in (1, b) for a, b in zip(mask.shape[1:], inner, strict=True))
    else:
        fits = mask.ndim <= len(inner) and all(a in (1, b) for a, b in zip(mask.shape[::-1], inner[::-1], strict=False))
        mask = mask.reshape([1] * (len(shape) - mask.ndim) + list(mask.shape)) if fits else mask
    if not fits:
        raise InputError(
            f"{units.said}: the mask has shape {tuple(units.mask.shape)}, and the layer gives {inner} for each of {samples} "
            f"samples. Give one that broadcasts with {inner}, or with {tuple(shape)} for one mask per sample."
        )
    if not bool(mask.any()):
        raise InputError(f"{units.said}: the mask is 0 everywhere, so no relevance would pass.")
    return mask.double()


def _projection(units: Units, shape: tuple[int, ...]) -> Filter:
    """The projection on the span of directions."""
    assert units.directions is not None
    vectors = units.directions.detach().double()
    vectors = vectors[None] if vectors.ndim == 1 else vectors
    size = vectors.shape[1]
    axes = [axis for axis, length in enumerate(shape) if length == size]
    if units.axis is not None:
        axis = units.axis + len(shape) if units.axis < 0 else units.axis
        axes = [axis] if 0 <= axis < len(shape) and shape[axis] == size else []
    if len(axes) != 1:
        why = "say which, axis=" if axes else "none has that length"
        raise InputError(
            f"{units.said}: the directions have {size} entries, and the layer gives {shape} for one sample: "
            f"{'axes ' + str(axes) + ' have that length: ' if axes else ''}{why}."
        )
    u, s, _ = torch.linalg.svd(vectors.T, full_matrices=False)
    basis = u[:, s > 1e-10 * s.max()].T
    if not len(basis):
        raise InputError(f"{units.said}: the directions are 0, so no relevance would pass.")
    return Filter(basis=basis, axis=axes[0] + 1)
