"""What takes the place of units that are removed. A replacement is a small frozen value, `replace(x, gone, generator)`.

Index letters: m rows, D samples of data. `gone` marks the entries that are removed; it broadcasts with `x`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from relprop.errors import InputError
from relprop.evaluation.fingerprints import Fingerprints
from relprop.evaluation.imputation import impute
from relprop.evaluation.subject import Subject
from relprop.evaluation.units import UnitMap


@dataclass(frozen=True, eq=False)
class Replacement:
    """The base of replacements.

    A subclass defines `draw`, which is called once per sample, and `values`, which is called on many rows at once. If
    what takes an entry's place does not depend on what else is gone, `draw` returns it all and `values` need not be
    defined.

    Attributes:
        alone: whether `draw` takes one sample at a time, as it must where it draws random numbers.
    """

    alone: ClassVar[bool] = True

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """What is needed for a sample `x` of shape (1, ...), whatever is removed from it."""
        raise NotImplementedError

    def values(self, x: Tensor, gone: Tensor, drawn: Tensor) -> Tensor:
        """The new entries, in the shape of `x` (m, ...). Only those where `gone` is True are used."""
        return drawn

    def __call__(self, x: Tensor, gone: Tensor, generator: torch.Generator) -> Tensor:
        """`x` of shape (m, ...) with the entries replaced that `gone` marks."""
        drawn = torch.cat([self.draw(one[None], generator) for one in x])
        return torch.where(gone, self.values(x, gone, drawn).to(x.dtype), x)

    def rows(self, subject: Subject, units: UnitMap, samples: Tensor, gone: Tensor, drawn: Tensor) -> Any:
        """The model's inputs with units removed: row j is sample `samples[j]` without the units `gone[j]`."""
        x = subject.main.index_select(0, samples)
        entries = units.entries(gone, samples)
        return subject.rows(samples, torch.where(entries, self.values(x, entries, drawn).to(x.dtype), x))

    def check(self, subject: Subject) -> None:
        """Refuses inputs on which it cannot act."""

    def fingerprint(self) -> bytes:
        """A digest of all that it holds."""
        return hashlib.sha256(Fingerprints(None).of(self).encode()).digest()

    def __repr__(self) -> str:
        given = [each for each in fields(self) if getattr(self, each.name) is not each.default]
        plain = (f"{each.name}={_said(getattr(self, each.name))}" for each in given)
        return f"{type(self).__name__}({', '.join(plain)})"


def _said(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor of shape {tuple(value.shape)}"
    return getattr(value, "__qualname__", None) or repr(value)


@dataclass(frozen=True, eq=False, repr=False)
class ConstantValue(Replacement):
    """A number, the same everywhere."""

    alone: ClassVar[bool] = False

    value: float = 0.0

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The number in the shape of the sample."""
        return torch.full_like(x, self.value)


@dataclass(frozen=True, eq=False, repr=False)
class SampleMean(Replacement):
    """The mean of the sample; of pictures and series, that of each channel."""

    alone: ClassVar[bool] = False

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The mean in the shape of the sample."""
        axes = list(range(2, x.ndim)) or [1]
        return x.mean(axes, keepdim=True).expand_as(x)

    def check(self, subject: Subject) -> None:
        """Refuses ids, which have no mean."""
        _numbers(self, subject)


@dataclass(frozen=True, eq=False, repr=False)
class DataMean(Replacement):
    """The mean of the data at the same place.

    Args:
        data: samples, (D, ...).
    """

    alone: ClassVar[bool] = False

    data: Tensor

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The mean in the shape of the sample."""
        return self.data.to(x.device).double().mean(0, keepdim=True).to(x.dtype).expand_as(x)

    def check(self, subject: Subject) -> None:
        """Refuses ids, and data of another shape."""
        _numbers(self, subject)
        _alike(self.data, subject)


@dataclass(frozen=True, eq=False, repr=False)
class Blur(Replacement):
    """The sample, blurred by a Gaussian along all axes but channels.

    Args:
        sigma: its standard deviation in entries; None takes a twentieth of the longest axis.
    """

    alone: ClassVar[bool] = False

    sigma: float | None = None

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The blurred sample."""
        sigma = self.sigma if self.sigma is not None else max(x.shape[2:]) / 20
        radius = max(1, round(3 * sigma))
        line = torch.arange(-radius, radius + 1, device=x.device, dtype=torch.float64)
        kernel = torch.exp(-0.5 * (line / sigma) ** 2)
        kernel = (kernel / kernel.sum()).to(x.dtype)
        found = x
        for axis in range(2, x.ndim):
            flat = found.movedim(axis, -1)
            shape = flat.shape
            padded = F.pad(flat.reshape(-1, 1, shape[-1]), (radius, radius), mode="replicate")
            found = F.conv1d(padded, kernel[None, None]).reshape(shape).movedim(-1, axis)
        return found

    def check(self, subject: Subject) -> None:
        """Refuses inputs without an axis to blur along."""
        _numbers(self, subject)
        if subject.main.ndim < 3:
            raise InputError(f"{self!r} needs pictures or series; the inputs have shape {tuple(subject.main.shape)}.")
        if self.sigma is not None and not self.sigma > 0:
            raise InputError(f"sigma must be above 0; got {self.sigma!r}.")


@dataclass(frozen=True, eq=False, repr=False)
class NoisyLinear(Replacement):
    """Noisy linear imputation: each missing pixel is a weighted mean of its eight neighbours, plus noise.

    Direct neighbours weigh 1/6, diagonal ones 1/12, and those outside of the picture nothing. The system is solved by
    conjugate gradients, all rows at once. A picture of which nothing is left becomes its mean.

    Args:
        noise: the standard deviation of the noise.

    References:
        Rong et al. 2022, "A consistent and efficient evaluation strategy for attribution methods", ICML (ROAD).
    """

    noise: float = 0.01

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The noise of the sample, the same whatever is removed from it."""
        return (self.noise * torch.randn(x.shape, generator=generator, dtype=torch.float64)).to(x)

    def values(self, x: Tensor, gone: Tensor, drawn: Tensor) -> Tensor:
        """The solution, with noise."""
        return impute(x, gone) + drawn

    def check(self, subject: Subject) -> None:
        """Refuses what is not a picture."""
        if subject.main.ndim != 4 or not subject.main.is_floating_point():
            raise InputError(
                f"{self!r} needs pictures, (N, C, H, W); the inputs have shape {tuple(subject.main.shape)}."
            )


@dataclass(frozen=True, eq=False, repr=False)
class Inpainting(Replacement):
    """A function of the user's.

    Args:
        function: takes rows (m, ...) and what is gone, boolean (m, ...), which broadcasts with the rows; returns the
            rows with new values. Only those of missing entries are used.
    """

    alone: ClassVar[bool] = False

    function: Callable[[Tensor, Tensor], Tensor]

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Nothing."""
        return x

    def values(self, x: Tensor, gone: Tensor, drawn: Tensor) -> Tensor:
        """What the function returns.

        Raises:
            InputError: its shape is not that of the rows.
        """
        found = self.function(x, gone.expand_as(x))
        if not isinstance(found, Tensor) or found.shape != x.shape:
            raise InputError(
                f"the function of {self!r} must return rows of shape {tuple(x.shape)}; got "
                f"{tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__}."
            )
        return found


@dataclass(frozen=True, eq=False, repr=False)
class Marginal(Replacement):
    """The entries of another sample, drawn from the data; one for each sample, whatever is removed.

    Args:
        data: samples, (D, ...).
    """

    data: Tensor

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The other sample: not the sample itself, unless the data hold nothing else."""
        others = (~_same(self.data, x)).nonzero()[:, 0]
        pool = others if len(others) else torch.arange(len(self.data))
        index = int(pool[int(torch.randint(len(pool), (1,), generator=generator))])
        return self.data[index : index + 1].to(x)

    def check(self, subject: Subject) -> None:
        """Refuses data of another shape."""
        _alike(self.data, subject)


@dataclass(frozen=True, eq=False, repr=False)
class Conditional(Replacement):
    """The mean of those samples of the data that are nearest to the sample in the entries that are left.

    Args:
        data: samples, (D, ...).
        nearest: how many samples.
    """

    data: Tensor
    nearest: int = 1

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Which samples of the data are the sample itself, (1, D)."""
        return _same(self.data, x)[None].to(x.device)

    def values(self, x: Tensor, gone: Tensor, drawn: Tensor) -> Tensor:
        """The mean of the nearest."""
        data = self.data.to(x.device)
        table, rows = data.flatten(1).double(), x.flatten(1).double()
        left = (~gone).expand_as(x).flatten(1).double()
        distance = (left * rows**2).sum(1)[:, None] - 2 * (left * rows) @ table.T + left @ (table**2).T
        # The sample itself would give everything away; it counts only where there is nothing else.
        distance = torch.where(drawn & ~drawn.all(1, keepdim=True), float("inf"), distance)
        near = distance.topk(min(self.nearest, len(data)), largest=False).indices
        return table[near].mean(1).reshape(x.shape)

    def check(self, subject: Subject) -> None:
        """Refuses ids, and data of another shape."""
        _numbers(self, subject)
        _alike(self.data, subject)
        if not isinstance(self.nearest, int) or self.nearest < 1:
            raise InputError(f"nearest is a number of samples, an int above 0; got {self.nearest!r}.")


def _same(data: Tensor, x: Tensor) -> Tensor:
    return (data == x.to(data)).flatten(1).all(1).cpu()


def _numbers(replacement: Replacement, subject: Subject) -> None:
    if not subject.main.is_floating_point():
        raise InputError(
            f"{replacement!r} needs numbers; the inputs are ids ({subject.main.dtype}). For tokens there are Token, Delete "
            "and Unattended."
        )


def _alike(data: Tensor, subject: Subject) -> None:
    if not isinstance(data, Tensor) or not len(data) or data.shape[1:] != subject.main.shape[1:]:
        shape = tuple(data.shape) if isinstance(data, Tensor) else type(data).__name__
        raise InputError(f"data must have samples of shape {tuple(subject.main.shape[1:])} as rows; got {shape}.")
