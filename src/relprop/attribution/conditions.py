"""Conditions: which hidden units relevance must pass, as values. `units(...)`, `&`, `|`, `~`.

A condition is an indicator of paths from an input to the score. With `T(u)` the paths through the units u of a layer and
`A(u)` those that avoid them, `T(u) + A(u)` are all paths, and the operators are those of sets: `a & b` is the product of
two indicators, `~a` is `1 - a`, and `a | b` is `a + (1 - a) b`. So every condition is a sum of *terms* that share no
path, and each term is a product of `T` and `A` (`terms`). Achtibat et al. 2023 write theta for one `T` per layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from relprop.errors import InputError
from relprop.signatures import public

Place = tuple[str, str, "int | None", int]
"""Where units are: the path of the layer, "output" or "input", the number of the run, and the number of the tensor."""


@dataclass(frozen=True)
class Term:
    """Paths that pass all of `through` and avoid all of `around`."""

    through: tuple[Units, ...] = ()
    around: tuple[Units, ...] = ()

    def __and__(self, other: Term) -> Term:
        return Term(self.through + other.through, self.around + other.around)

    def complement(self) -> list[Term]:
        """All other paths, as terms without a common path: `1 - f g = (1 - f) + f (1 - g)`."""
        found, passed = [], Term()
        for one in self.through:
            found.append(passed & Term(around=(one,)))
            passed = passed & Term(through=(one,))
        for one in self.around:
            found.append(passed & Term(through=(one,)))
            passed = passed & Term(around=(one,))
        return found


class Condition:
    """Which hidden units relevance must pass. `a & b`: through both, `a | b`: through either, `~a`: around."""

    def __and__(self, other: Any) -> Condition:
        return BothConditions(self, _checked("&", other))

    def __or__(self, other: Any) -> Condition:
        return Either(self, _checked("|", other))

    def __invert__(self) -> Condition:
        return Around(self)

    def __bool__(self) -> bool:
        raise InputError("a condition is neither true nor false: write a & b, a | b and ~a, not and, or and not.")

    def terms(self) -> list[Term]:
        """The condition as a sum of terms that share no path."""
        raise NotImplementedError

    def named(self, names: Any) -> Condition:
        """The condition with each layer's module or path replaced by `names(layer)`."""
        raise NotImplementedError

    def part(self, rows: slice, count: int) -> Condition:
        """The condition for some of `count` samples."""
        raise NotImplementedError

    def __str__(self) -> str:
        raise NotImplementedError


def _checked(sign: str, other: Any) -> Condition:
    if not isinstance(other, Condition):
        raise InputError(f"{sign} joins two conditions, such as relprop.units('layer')[3]; got {other!r}.")
    return other


@dataclass(frozen=True, eq=False)
class BothConditions(Condition):
    """Paths that fulfil two conditions."""

    one: Condition
    other: Condition

    def terms(self) -> list[Term]:
        return [a & b for a in self.one.terms() for b in self.other.terms()]

    def named(self, names: Any) -> Condition:
        return BothConditions(self.one.named(names), self.other.named(names))

    def part(self, rows: slice, count: int) -> Condition:
        return BothConditions(self.one.part(rows, count), self.other.part(rows, count))

    def __str__(self) -> str:
        return " and ".join(f"({c})" if isinstance(c, Either) else str(c) for c in (self.one, self.other))


@dataclass(frozen=True, eq=False)
class Either(Condition):
    """Paths that fulfil at least one of two conditions."""

    one: Condition
    other: Condition

    def terms(self) -> list[Term]:
        first = self.one.terms()
        return first + [a & b for a in _complement(first) for b in self.other.terms()]

    def named(self, names: Any) -> Condition:
        return Either(self.one.named(names), self.other.named(names))

    def part(self, rows: slice, count: int) -> Condition:
        return Either(self.one.part(rows, count), self.other.part(rows, count))

    def __str__(self) -> str:
        return f"{self.one} or {self.other}"


@dataclass(frozen=True, eq=False)
class Around(Condition):
    """Paths that do not fulfil a condition."""

    inner: Condition

    def __invert__(self) -> Condition:
        return self.inner

    def terms(self) -> list[Term]:
        return _complement(self.inner.terms())

    def named(self, names: Any) -> Condition:
        return Around(self.inner.named(names))

    def part(self, rows: slice, count: int) -> Condition:
        return Around(self.inner.part(rows, count))

    def __str__(self) -> str:
        inside = str(self.inner)
        return f"around {inside.removeprefix('through ')}" if isinstance(self.inner, Units) else f"not ({inside})"


def _complement(terms: list[Term]) -> list[Term]:
    """The paths of none of the terms."""
    found = [Term()]
    for term in terms:
        found = [a & b for a in found for b in term.complement()]
    return found


@dataclass(frozen=True, eq=False)
class Units(Condition):
    """Units of one layer. Made by `relprop.units`; an index chooses among them."""

    layer: Any
    at: str = "output"
    run: int | None = None
    part_of: int = 0
    index: Any = None
    mask: Tensor | None = None
    directions: Tensor | None = None
    axis: int | None = None
    rows: tuple[int, int] | None = None
    per: tuple[int, ...] | None = None

    def __getitem__(self, index: Any) -> Units:
        """The units at this index into what the layer gives for one sample, as NumPy and torch index."""
        if self.index is not None or self.mask is not None or self.directions is not None:
            raise InputError(
                f"{self} already names its units. Write the index once, relprop.units({self.path!r})[...]; "
                "units of either of two choices are a | b."
            )
        return replace(self, index=index)

    def each(self, *axes: int) -> Units:
        """For graphs: one node for each index along these axes of one sample, such as tokens and neurons, `each(0, 1)`."""
        if not axes or not all(isinstance(axis, int) and not isinstance(axis, bool) for axis in axes):
            raise InputError(f"each takes the axes of one sample whose entries are nodes, as each(0, 1); got {axes!r}.")
        return replace(self, per=axes)

    @property
    def path(self) -> str:
        """The path of the layer, or its class while the model is not known."""
        return self.layer if isinstance(self.layer, str) else type(self.layer).__name__

    @property
    def place(self) -> Place:
        return self.path, self.at, self.run, self.part_of

    @property
    def said(self) -> str:
        """The units alone, for messages."""
        return str(self).removeprefix("through ")

    def terms(self) -> list[Term]:
        return [Term(through=(self,))]

    def named(self, names: Any) -> Condition:
        return replace(self, layer=names(self.layer))

    def part(self, rows: slice, count: int) -> Condition:
        return self if self.mask is None or len(self.mask) != count else replace(self, rows=(rows.start, rows.stop))

    def __str__(self) -> str:
        where = f"the {self.at} of {self.path}" if self.at == "input" else self.path
        if self.part_of:
            where = f"tensor {self.part_of} of {where}"
        if self.run is not None:
            where += f" in run {self.run}"
        if self.mask is not None:
            return f"through units of {where} by a mask"
        if self.directions is not None:
            count = 1 if self.directions.ndim == 1 else len(self.directions)
            return f"through {count} direction{'s' * (count > 1)} of {where}"
        return f"through {_indexed(self.index)} of {where}" if self.index is not None else f"through {where}"


def _indexed(index: Any) -> str:
    """An index in words: "unit 3", "units 3, 97", "units [42, 7:9, :]"."""
    if isinstance(index, Tensor):
        index = index.tolist() if index.dtype != torch.bool else index.nonzero().squeeze(-1).tolist()
    if isinstance(index, tuple):
        return f"units [{', '.join(map(_one, index))}]"
    return f"units {_one(index)}" if isinstance(index, (slice, list, range)) else f"unit {_one(index)}"


def _one(index: Any) -> str:
    if isinstance(index, slice):
        ends = ("" if end is None else str(end) for end in (index.start, index.stop))
        return ":".join(ends) + (f":{index.step}" if index.step is not None else "")
    if isinstance(index, Tensor):
        index = index.tolist()
    if isinstance(index, (list, tuple, range)) and len(index) > 8:
        return f"{', '.join(map(str, index[:6]))}, ... ({len(index)} in all)"
    if isinstance(index, (list, tuple, range)):
        return ", ".join(map(str, index))
    return "..." if index is Ellipsis else str(index)


@public("relprop.units")
def units(
    layer: str | nn.Module,
    *,
    at: str = "output",
    run: int | None = None,
    part: int = 0,
    mask: Tensor | None = None,
    directions: Tensor | None = None,
    axis: int | None = None,
) -> Units:
    """Hidden units of a layer, as a condition on relevance: `units("blocks.14")[[3, 97]]`.

    An index chooses units from what the layer gives for one sample, without the axis of samples: channels, then
    positions, or tokens, then features. Without an index, all units count. `a & b` are the paths through both, in
    whatever order they are written; `a | b` those through either; `~a` those around.

    Args:
        layer: the path of a module, or the module. A path followed by `.heads` names the heads of its attention, of
            shape (heads, T, features) for one sample. The path of a recurrent layer followed by `.steps` names the state
            that it hands from step to step, and `.cells` the cell of an LSTM; `run` is the number of the step. Layers
            and directions of a stack are `.steps_l1`, `.steps_l0_reverse`, as torch names parameters.
        at: "output" or "input" of the layer.
        run: which run of a layer that runs several times, from 0; negative numbers count from the end.
        part: which of the tensors that the layer returns (or takes); 0 is the first, as the output sequence of an LSTM.
        mask: weights of the units in place of an index: a tensor of the shape of one sample (or one that broadcasts
            with it), or with one row per sample. Booleans choose.
        directions: vectors in place of units, (d,) or (k, d): relevance of the part of the activation in their
            span. For one direction v of length 1 that is `(v h) (v G)`.
        axis: the axis of one sample along which directions lie. By default the only axis of length d.

    Returns:
        A condition for `attribute(..., through=)`.

    Raises:
        InputError: an argument cannot be what it is, such as a mask that is not a tensor.

    References:
        Achtibat et al. 2023, "From attribution maps to human-understandable explanations through concept relevance
        propagation", Nature Machine Intelligence 5.
    """
    if not isinstance(layer, (str, nn.Module)):
        raise InputError(f"units takes the path of a layer or its module; got {layer!r}.")
    if at not in ("output", "input"):
        raise InputError(f"at must be 'output' or 'input'; got {at!r}.")
    for name, number in (("run", run), ("part", part), ("axis", axis)):
        if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
            raise InputError(f"{name} must be an int; got {number!r}.")
    for name, given in (("mask", mask), ("directions", directions)):
        if given is not None and not isinstance(given, Tensor):
            raise InputError(f"{name} must be a tensor; got {type(given).__name__}.")
    if mask is not None and directions is not None:
        raise InputError("mask and directions exclude each other: give one, and join two conditions with &.")
    if mask is not None and (mask.is_complex() or not bool(torch.isfinite(mask.double()).all())):
        raise InputError("mask must hold real, finite weights.")
    if directions is not None and not (
        directions.is_floating_point() and directions.ndim in (1, 2) and bool(torch.isfinite(directions).all())
    ):
        raise InputError(
            f"directions must be finite floating-point vectors of shape (d,) or (k, d); got {directions.dtype} of shape "
            f"{tuple(directions.shape)}."
        )
    return Units(layer, at, run, part, None, mask, directions, axis)


def words(through: Condition | Sequence[Condition | None] | None) -> str | list[str] | None:
    """A condition in words, or a list with one per sample; None without one."""
    if through is None or isinstance(through, Condition):
        return None if through is None else str(through)
    return ["no condition" if one is None else str(one) for one in through]
