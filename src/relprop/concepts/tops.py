"""The largest values of each unit over a stream of samples, with the sample and the position of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tops:
    """The largest values of each unit, the largest first; equal values by the number of the sample.

    Attributes:
        values: (U, k), float32; -inf where there are fewer samples.
        samples: (U, k), int32; -1 where there are fewer.
        positions: (U, k), int32: where in the layer's output, without the units' axis; packed, see `packed`.
    """

    values: Tensor
    samples: Tensor
    positions: Tensor

    @classmethod
    def empty(cls, units: int, keep: int) -> Tops:
        """No sample yet."""
        none = torch.full((units, keep), -1, dtype=torch.int32)
        return cls(torch.full((units, keep), -torch.inf), none, none.clone())

    def add(self, values: Tensor, samples: Tensor, positions: Tensor) -> Tops:
        """With more samples: values and positions (N, U), samples (N,), with numbers above those so far."""
        return self._best(
            torch.cat([self.values, values.T.float()], 1),
            torch.cat([self.samples, samples.int().expand(values.shape[1], -1)], 1),
            torch.cat([self.positions, positions.T.int()], 1),
        )

    def merge(self, other: Tops) -> Tops:
        """The tops of two disjoint sets of samples: those of their union, exactly."""
        values, samples, positions = (
            torch.cat([a, b], 1)
            for a, b in (
                (self.values, other.values),
                (self.samples, other.samples),
                (self.positions, other.positions),
            )
        )
        order = samples.argsort(dim=1, stable=True)
        return self._best(values.gather(1, order), samples.gather(1, order), positions.gather(1, order))

    def _best(self, values: Tensor, samples: Tensor, positions: Tensor) -> Tops:
        # A stable sort keeps equal values in the order of samples.
        order = values.argsort(dim=1, descending=True, stable=True)[:, : self.values.shape[1]]
        return Tops(values.gather(1, order), samples.gather(1, order), positions.gather(1, order))


def packed(flat: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Flat positions in a tensor of a shape as one number each, from which `place` reads the coordinates without the shape.

    So samples may differ in size. Each axis takes an equal part of 31 bits; a single one takes all.
    """
    bits = 31 // max(len(shape), 1)
    if any(n > 1 << bits for n in shape):
        raise ValueError(f"an index holds positions of up to {1 << bits} along each of {len(shape)} axes; got {shape}")
    total = torch.zeros_like(flat)
    for axis in reversed(range(len(shape))):
        total += (flat % shape[axis]) << (bits * (len(shape) - 1 - axis))
        flat = flat // shape[axis]
    return total


def place(position: int, axes: int) -> tuple[int, ...]:
    """The coordinates of a packed position."""
    bits = 31 // max(axes, 1)
    return tuple((position >> (bits * (axes - 1 - axis))) & ((1 << bits) - 1) for axis in range(axes))
