"""What is explained of each sample: one target, several, or the classes with the largest outputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from relprop.data.items import Item
from relprop.data.keep import spelled
from relprop.errors import InputError, TargetError

_TOP = re.compile(r"top:([1-9][0-9]*)")


@dataclass(frozen=True, eq=False)
class AskedTargets:
    """The targets of each sample.

    Attributes:
        each: the targets. One is None for the predicted class, "label" or the name of another column, a list with one
            per sample, or any target that `attribute` takes for all samples.
        top: how many of the largest outputs are explained, in place of `each`; None for `each`.
        several: whether the arrays of the run have an axis of targets.
    """

    each: tuple[Any, ...]
    top: int | None = None
    several: bool = False

    @classmethod
    def of(cls, target: Any, targets: Any, count: int | None) -> AskedTargets:
        """Reads the arguments `target` and `targets`.

        Args:
            target: the first of them.
            targets: the second.
            count: how many samples there are; None if that is not known.

        Raises:
            InputError: both are given, `targets` is no list, or a list does not have one target per sample.
        """
        if targets is not None:
            if target is not None:
                raise InputError("target= is one target for each sample, and targets= is several: pass one of them.")
            if not isinstance(targets, (list, tuple)) or not targets:
                raise InputError(f"targets= is a list of targets that are explained for each sample; got {targets!r}.")
        if isinstance(target, str) and target.startswith("top:"):
            found = _TOP.fullmatch(target)
            if found is None:
                raise InputError(f"target={target!r}: top:K has a positive number K, such as top:3.")
            return cls((), int(found[1]), True)
        each = tuple(_listed(one, count) for one in ([target] if targets is None else targets))
        return cls(each, None, targets is not None)

    def __len__(self) -> int:
        return self.top or len(self.each)

    def for_batch(self, items: Sequence[Item], numbers: Sequence[int], columns: Sequence[str]) -> list[Any]:
        """Each target of a batch: a list where samples have targets of their own, else one for all of them.

        Raises:
            InputError: a sample has no target in the column that holds them.
        """
        return [
            [self._of(one, number, item, columns) for number, item in zip(numbers, items, strict=True)]
            if isinstance(one, list) or in_column(one, columns) else one
            for one in self.each
        ]  # fmt: skip

    def check(self, number: int, item: Item, columns: Sequence[str]) -> None:
        """Refuses a sample without a target.

        Raises:
            InputError: a target is asked of its columns, and not there.
        """
        for one in self.each:
            self._of(one, number, item, columns)

    def _of(self, one: Any, number: int, item: Item, columns: Sequence[str]) -> Any:
        if in_column(one, columns):
            found = item.label if one == "label" else item.columns.get(one)
            if found is None:
                raise InputError(f"the sample has no {one}, and target={one!r} asks for it.")
            return found
        return one[number] if isinstance(one, list) else one

    def described(self) -> Any:
        """The targets, for the fingerprint of a run."""
        if self.top is not None:
            return f"top:{self.top}"
        found = [one if one is None or isinstance(one, (str, int)) else spelled(one) for one in self.each]
        return found if self.several else found[0]


def in_column(target: Any, columns: Sequence[str]) -> bool:
    """Whether a column of the source holds these targets."""
    return isinstance(target, str) and (target == "label" or target in columns)


def largest(first: Any, count: int, each: Callable[[list[Any]], list[Any]]) -> list[Any]:
    """The explanations of the largest outputs, of which the first is there.

    Args:
        first: the explanation of the largest, with the outputs (N, classes).
        count: how many are explained.
        each: explains the lists of targets that it gets, each with one target per sample.

    Raises:
        TargetError: there are no such outputs, or fewer.
    """
    output = first.output
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise TargetError(f"target='top:{count}' needs a network whose outputs are (N, classes).")
    if output.shape[1] < count:
        raise TargetError(f"target='top:{count}', and the network has {output.shape[1]} outputs.")
    order = output.detach().argsort(dim=1, descending=True, stable=True)
    return [first, *(each([order[:, rank].tolist() for rank in range(1, count)]) if count > 1 else [])]


def _listed(target: Any, count: int | None) -> Any:
    target = target.tolist() if isinstance(target, Tensor) else target
    if isinstance(target, list):
        if count is None:
            raise InputError("target= is a list, and the source has no length: name a column, such as target='label'.")
        if len(target) != count:
            raise InputError(f"target= has {len(target)} targets, and the source {count} samples.")
    return target
