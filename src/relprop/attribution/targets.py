"""Targets say what is explained. Each form of target becomes one score per sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.labels import FEW, near_labels
from relprop.attribution.mistaken import REFUSALS, no_output
from relprop.errors import RelpropError, TargetError, TargetIndexError
from relprop.results.contrast import Contrast
from relprop.results.forms import Form
from relprop.torch_private.recorded import recording
from relprop.trees import batch_of

_MANY = 16
"""Of more targets than this, equal ones are looked at once."""


def several(targets: Any) -> Sequence[Any]:
    """The list of targets. Refuses anything else, which would be taken apart or counted as one.

    Raises:
        TargetError: it is not a list, or it is empty.
    """
    if isinstance(targets, Tensor) or hasattr(targets, "__array__"):
        raise TargetError(
            f"targets is a {type(targets).__name__} of shape {tuple(targets.shape)}: give a list of targets; its entries are "
            "targets.tolist()."
        )
    if not isinstance(targets, (list, tuple, range)):
        raise TargetError(f"targets must be a list of targets; got {targets!r}. For one of them write [{targets!r}].")
    if not targets:
        raise TargetError("targets is empty: give at least one.")
    return targets


@dataclass(frozen=True)
class EntryTarget:
    """A target whose indices are a tensor of shape (N, axes), so that one graph serves all classes."""

    at: Tensor

    def __call__(self, output: Tensor) -> Tensor:
        if not self.at.shape[1]:
            return output
        rows = torch.arange(output.shape[0], device=output.device)
        return output[tuple([rows, *self.at.to(output.device).unbind(1)])]


@dataclass(frozen=True)
class ClassFinder:
    """Finds classes by their labels or numbers."""

    labels: Sequence[str] | None

    @property
    def known(self) -> int | None:
        return None if self.labels is None else len(self.labels)

    def __call__(self, target: Any, count: int) -> int:
        """The index of a class among that many.

        Raises:
            TargetError: there is no such class.
        """
        index = class_of(target, self.labels) if isinstance(target, str) else target
        if not -count <= index < count:
            raise TargetIndexError(f"target {target} is out of range: the model has {count} classes, 0 to {count - 1}.")
        return int(index) % count


@dataclass(frozen=True)
class Scored:
    """A target with a form of its own as a function of the output."""

    target: Form
    labels: Sequence[str] | None

    def __call__(self, output: Any) -> Tensor:
        return self.target.score(output, ClassFinder(self.labels))[0]


def as_entries(target: Any, output: Tensor, labels: Sequence[str] | None) -> Any:
    """The target with `EntryTarget` in place of classes, for an output of this shape. Callables and None stay.

    Raises:
        TargetError: as in `scores`.
    """
    if isinstance(target, Contrast):
        return Contrast(as_entries(target.positive, output, labels), as_entries(target.negative, output, labels))
    if isinstance(target, Form):
        return Scored(target, labels)
    if callable(target) or target is None or output.ndim == 0:
        return target
    return EntryTarget(torch.tensor(_indices(output, target, labels)).reshape(output.shape[0], -1))


def scores(output: Any, target: Any, labels: Sequence[str] | None) -> tuple[Tensor, Any]:
    """One score per sample, and the target as it was understood.

    Raises:
        TargetError: the target does not name one score per sample.
    """
    if callable(target):
        score = _called(target, output)
        if not isinstance(score, Tensor):
            raise TargetError(
                f"a callable target must return a tensor with one score per sample; got {type(score).__name__}."
            )
        batch = output.shape[0] if isinstance(output, Tensor) and output.ndim else None
        if score.ndim > 1 or (batch is not None and score.ndim == 1 and score.shape[0] != batch):
            raise TargetError(
                f"a callable target must return one score per sample, shape ({batch},); got {tuple(score.shape)}."
            )
        if score.is_complex():
            raise TargetError(
                f"a callable target must return real numbers; got {score.dtype}. Take .real, .imag or .abs()."
            )
        return score, target
    if isinstance(target, Form):
        return target.score(output, ClassFinder(labels))
    if isinstance(target, list) and any(isinstance(one, Form) for one in target):
        return _per_sample(output, target, labels)
    if isinstance(target, Contrast):
        a, first = scores(output, target.positive, labels)
        b, second = scores(output, target.negative, labels)
        return a - b, Contrast(first, second)
    if not isinstance(output, Tensor):
        raise TargetError(no_output(output))
    if output.is_complex():
        raise TargetError(
            f"the model's output is complex ({output.dtype}), and a score is a real number: pass a function of it, as in "
            "target=lambda output: output.flatten(1)[:, 0].abs()."
        )
    if output.ndim == 0:
        return _lone(output, target)
    if target is None:
        return _default(output)
    target = target if type(target) in _USUAL else _of_array(target)
    indices = _indices(output, target, labels)
    if indices.count(indices[0]) == len(indices):
        same: Any = (slice(None), *indices[0])
        return (output[same] if indices[0] else output), target
    rows = torch.arange(output.shape[0], device=output.device)
    columns = [torch.tensor([index[d] for index in indices], device=output.device) for d in range(output.ndim - 1)]
    return output[tuple([rows, *columns])] if columns else output, target


def _per_sample(output: Any, targets: list[Any], labels: Sequence[str] | None) -> tuple[Tensor, list[Any]]:
    """The score of each sample's own target, where some have a form of their own."""
    first = next(one for one in targets if isinstance(one, Form))
    batch = len(output) if isinstance(output, (list, tuple)) else batch_of(output)
    if len(targets) != batch:
        raise TargetError(_counted(len(targets), batch))
    found, understood = [], []
    for n, target in enumerate(targets):
        score, one = scores(first.alone(output, n), target, labels)
        found.append(score.reshape(1))
        understood.append(one[0] if isinstance(one, list) else one)
    return torch.cat(found), understood


def _counted(targets: int, batch: int) -> str:
    return (
        f"{targets} targets for a batch of {batch} samples: give one per sample, or a single one. Several of each "
        "sample are relprop.attribute_each(model, inputs, targets)."
    )


def _called(target: Callable[[Any], Any], output: Any) -> Any:
    try:
        return target(output)
    except (*REFUSALS, AttributeError, KeyError) as error:
        if isinstance(error, (RelpropError, torch.OutOfMemoryError)):
            raise
        shape = f" of shape {tuple(output.shape)}" if isinstance(output, Tensor) else ""
        raise TargetError(
            f"the callable target raised {type(error).__name__}: {error}. It was given what the model returns, a "
            f"{type(output).__name__}{shape}."
        ) from error


def _lone(output: Tensor, target: Any) -> tuple[Tensor, Any]:
    if target is not None:
        raise TargetError(f"the model returns a single number: target must be None; got {target!r}.")
    return output, None


def _default(output: Tensor) -> tuple[Tensor, Any]:
    """The score of the only output, else that of the arg-max."""
    if output.ndim == 1:
        return output, None
    flat = output.flatten(1)
    if flat.shape[1] == 1:
        return flat[:, 0], 0
    if output.ndim > 2:
        raise TargetError(
            f"the model's output has shape {tuple(output.shape)}: name one entry per sample, target=(i, j, ...) with "
            f"{output.ndim - 1} indices, or pass a callable. {_summed(output, 0)}"
        )
    best = flat.detach().argmax(1)
    return flat.gather(1, best[:, None])[:, 0], best if recording() else best.tolist()


_USUAL = (int, str, list, tuple, Tensor)  # the types of most targets


def _of_array(target: Any) -> Any:
    """An array of NumPy or a column of pandas as a tensor, or as a list where it holds labels; anything else as it is."""
    if not hasattr(target, "__array__") or isinstance(target, Tensor):
        return target
    if not getattr(target, "ndim", 0):
        return target.item()
    array = target.__array__()
    return torch.as_tensor(array.copy()) if array.dtype.kind in "biufc" else array.tolist()


def _indices(output: Tensor, target: Any, labels: Sequence[str] | None) -> list[tuple[int, ...]]:
    """The index of the explained entry, per sample."""
    batch = output.shape[0]
    target = target if type(target) in _USUAL else _of_array(target)
    if isinstance(target, Tensor):
        marks = target.ndim == 2 and target.shape == output.shape
        hint = " Does it mark the classes, 1 for yes and 0 for no? Then pass target.argmax(1)." if marks else ""
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            raise TargetError(f"target must hold integers; got a tensor of {target.dtype}.{hint}")
        if target.ndim > 1:
            raise TargetError(
                f"a target tensor has one class per sample, shape ({batch},); got {tuple(target.shape)}.{hint}"
            )
        target = target.tolist() if target.ndim and target.numel() != 1 else int(target)
    if isinstance(target, list):
        if len(target) != batch:
            raise TargetError(_counted(len(target), batch))
        if len(target) > _MANY and all(type(one) is int for one in target):
            known = {one: _index(output, one, labels) for one in dict.fromkeys(target)}
            return [known[one] for one in target]
        return [_index(output, one, labels) for one in target]
    return [_index(output, target, labels)] * batch


def _index(output: Tensor, target: Any, labels: Sequence[str] | None) -> tuple[int, ...]:
    shape = tuple(output.shape[1:])
    if isinstance(target, str):
        target = class_of(target, labels)
    if isinstance(target, Tensor) and target.numel() == 1 and not target.is_floating_point():
        target = int(target)
    if hasattr(target, "__index__") and not isinstance(target, (bool, Tensor)):
        target = (int(target),)
    if not isinstance(target, tuple) or not all(hasattr(i, "__index__") and not isinstance(i, bool) for i in target):
        raise TargetError(
            f"target must be an int, a tuple of ints, a list with one per sample, a label, a callable, a Contrast, an Over or its like, or None; "
            f"got {target!r}.{_meant(target)}"
        )
    if len(target) != len(shape):
        alone = "" if shape else " Where the inputs are a single sample, give them an axis for it: inputs[None]."
        if len(target) == 1 and len(shape) > 1:
            alone = f" {_summed(output, target[0])}"
        elif len(shape) == 1 and len(target) == output.shape[0]:
            alone = f" For one class per sample write a list, {list(target)}."
        raise TargetError(
            f"target {target!r} has {len(target)} indices, but the output of shape {tuple(output.shape)} needs {len(shape)} "
            f"per sample.{alone}"
        )
    for axis, (i, n) in enumerate(zip(target, shape, strict=True), 1):
        if not -n <= i < n:
            has = f"the model has {n} classes" if len(target) == 1 else f"axis {axis} of the output has {n} entries"
            raise TargetIndexError(f"target {i if len(target) == 1 else target} is out of range: {has}, 0 to {n - 1}.")
    return tuple(int(i) % n for i, n in zip(target, shape, strict=True))


def _summed(output: Tensor, target: Any) -> str:
    """How to explain a class at all positions."""
    if output.ndim > 3:
        return f"Summed over positions, a class is target=relprop.Over({target!r})."
    return (
        f"Summed over positions, a class is target=relprop.Over({target!r}, axis=-1) where classes are the last axis, and "
        f"axis=1 where they come before positions. At one step it is relprop.Step(step, {target!r})."
    )


def _meant(target: Any) -> str:
    """What the caller may have meant by a target that is not valid."""
    if isinstance(target, float) and target.is_integer():
        return f" Write {int(target)}."
    if isinstance(target, (set, frozenset, Mapping)):
        return " For one class per sample write a list, in the order of the samples."
    if isinstance(target, list) and target and all(one in (0, 1) for one in target) and sum(target) == 1:
        return f" Does it mark a class, 1 for yes and 0 for no? Then write {target.index(1)}."
    if isinstance(target, list):
        return " For an output with several axes write a tuple per sample, [(i, j), ...]."
    return ""


def class_of(label: str, labels: Sequence[str] | None) -> int:
    """The index of the class of that name."""
    if labels is None:
        raise TargetError(
            f"target {label!r} is a label, but the model has none: pass labels=[...], or the class's index."
        )
    names = list(labels)
    if label not in names:
        raise TargetError(f"there is no class {label!r} among the {len(names)} labels.{_other(label, names)}")
    return names.index(label)


def _other(label: str, names: list[str]) -> str:
    """What to write in place of a label that is none."""
    near = near_labels(label, names)[:3]
    meant = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"{meant} There are: {', '.join(map(repr, names))}." if len(names) <= FEW else meant


def known_labels(model: Any) -> Sequence[str] | None:
    """The names of a model's classes if it has them: in `labels`, in `classes`, or in `id2label` of its config."""
    for name in ("labels", "classes"):
        found = getattr(model, name, None)
        if isinstance(found, (list, tuple)) and found and all(isinstance(x, str) for x in found):
            return found
    table = getattr(getattr(model, "config", None), "id2label", None)
    return [table[i] for i in sorted(table)] if isinstance(table, dict) and table else None


def select_output(output: Any, select: Any) -> Any:
    """The part of a model's output that is explained."""
    if select is None:
        if isinstance(output, (tuple, list)) and len(output) == 1:
            return output[0]
        logits = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", None)
        return logits if isinstance(logits, Tensor) else output
    try:
        if callable(select):
            return select(output)
        if isinstance(select, str) and not isinstance(output, dict):
            return getattr(output, select)
        return output[select]
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        held = ", ".join(map(repr, output)) if isinstance(output, Mapping) else ""
        raise TargetError(
            f"select={select!r} picks nothing out of the model's output, a {type(output).__name__}"
            f"{f' with {held}' if held else ''}: {type(error).__name__}: {error}."
        ) from None


Select = Callable[[Any], Tensor] | str | int | None
