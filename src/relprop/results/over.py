"""A class summed over positions: the target of a segmentation, a picture-to-picture network, a whole forecast.

Index letters: n sample, c class, p position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from relprop.errors import TargetError
from relprop.results.forms import Called, Find, Form, check_class, check_tensor, form, whole
from relprop.signatures import public_class
from relprop.torch_private.recorded import recording


@public_class("relprop.Over")
@form
@dataclass(frozen=True, eq=False)
class Over(Form):
    """The score of a class, summed over positions: all of them, those of a mask, or those in a box.

    The model's output has an axis of samples, one of classes, and others of positions: `(N, C, H, W)` of a segmentation,
    `(N, C, D, H, W)`, `(N, T, C)` of a sequence, `(N, H)` of a forecast of one variable.

    Args:
        target: the class, by its label or number. None sums all of them, as for a network that returns a picture, or a
            forecast as a whole.
        mask: the positions that count: booleans, or weights, in the shape of the positions. A mask (H, W) that is larger
            than the output by whole factors is averaged over the pixels of each position, since many networks answer at a
            quarter of the picture's resolution. For a mask per sample, write a list of targets.
        box: (left, top, right, bottom), in positions of the output: columns left to right - 1, rows top to bottom - 1.
            For sequences, (start, stop).
        predicted: whether only those positions count where the class has the largest score.
        mean: whether to average over the positions instead of summing over them.
        axis: the axis of classes. None takes the one that is as long as the list of labels, else 1; where an output of three
            axes could be meant either way, it must be given.

    Raises:
        TargetError: an argument is not valid, or the output has no such class or positions.
    """

    target: Any = None
    mask: Any = None
    box: Sequence[int] | None = None
    predicted: bool = False
    mean: bool = False
    axis: int | None = None

    def __post_init__(self) -> None:
        check_class(self.target, "Over")
        for name in ("predicted", "mean"):
            if not isinstance(getattr(self, name), bool):
                raise TargetError(f"{name} must be True or False; got {getattr(self, name)!r}.")
        if self.axis is not None and not whole(self.axis):
            raise TargetError(f"axis is the axis of classes, such as 1 or -1; got {self.axis!r}.")
        if self.predicted and self.target is None:
            raise TargetError("predicted=True is about the positions of one class: name it, Over(3, predicted=True).")
        object.__setattr__(self, "mask", _mask(self.mask))
        if self.box is not None:
            box = tuple(self.box) if isinstance(self.box, Sequence) else ()
            if len(box) not in (2, 4) or not all(whole(edge) and edge >= 0 for edge in box):
                raise TargetError(f"box is (left, top, right, bottom), or (start, stop), in ints; got {self.box!r}.")
            half = len(box) // 2
            if any(a >= b for a, b in zip(box[:half], box[half:], strict=True)):
                raise TargetError(f"box {box} is empty: its right and bottom lie beyond its left and top.")
            object.__setattr__(self, "box", box)

    def score(self, output: Any, find: Find) -> tuple[Tensor, Any]:
        """One score per sample."""
        output = check_tensor(output, "Over")
        if output.ndim < 2:
            raise TargetError(f"Over sums over positions, and the output of shape {tuple(output.shape)} has none.")
        if self.target is None:
            axis, index, scores = None, None, output
        else:
            axis = self._axis(output, find)
            index = find(self.target, output.shape[axis])
            scores = output.select(axis, index)
        weights = self._weights(output, scores, axis, index)
        if weights is None:
            total = scores.flatten(1)
            summed = total.mean(1) if self.mean and scores.ndim > 1 else total.sum(1) if scores.ndim > 1 else scores
        else:
            summed = (scores * weights.to(scores.dtype)).flatten(1).sum(1)
            if self.mean:
                summed = summed / weights.to(scores.dtype).expand_as(scores).flatten(1).sum(1)
        return summed, self if index is None else replace(self, target=index)

    def _axis(self, output: Tensor, find: Find) -> int:
        """The axis of classes."""
        if self.axis is not None:
            if not -output.ndim < self.axis < output.ndim or self.axis % output.ndim == 0:
                raise TargetError(
                    f"axis={self.axis} is not an axis of classes of the output of shape {tuple(output.shape)}."
                )
            return self.axis % output.ndim
        last = output.ndim - 1
        if last == 1:
            return 1
        known = find.known
        fits = [axis for axis in (1, last) if known is None or output.shape[axis] == known] or [1, last]
        if self.mask is not None and len(fits) > 1:
            shapes = {axis: [n for a, n in enumerate(output.shape) if a not in (0, axis)] for axis in fits}
            fits = [a for a in fits if list(self.mask.shape)[-len(shapes[a]) :] == shapes[a]] or fits
        if len(fits) > 1 and last == 2:
            raise TargetError(
                f"the output has the shape {tuple(output.shape)}: write axis=1 where classes come before positions, (N, C, T), "
                "and axis=-1 where they come last, (N, T, C)."
            )
        return fits[0]

    def _weights(self, output: Tensor, scores: Tensor, axis: int | None, index: int | None) -> Tensor | None:
        """The weight of each position, which broadcasts against the scores; None if all count."""
        found = None
        if self.mask is not None:
            found = self._fitted(self.mask.to(output.device), scores)
        if self.box is not None:
            inside = self._inside(scores)
            found = inside if found is None else found * inside
        if self.predicted and axis is not None:
            first = output.detach().argmax(axis).eq(index or 0)
            found = first.float() if found is None else found * first
        if found is None:
            return None
        if recording():  # a graph holds no conditions
            return found
        lost = (found.expand_as(scores).flatten(1) != 0).any(1).logical_not()
        if bool(lost.any()):
            n = int(lost.nonzero()[0])
            why = f"class {index} has the largest score nowhere" if self.predicted else "no position counts"
            raise TargetError(f"sample {n}: {why}, so that there is nothing to explain.")
        return found

    def _fitted(self, mask: Tensor, scores: Tensor) -> Tensor:
        """The mask in the shape of the positions, with an axis for samples before them."""
        own = tuple(scores.shape[1:])
        if mask.ndim == len(own) + 1 and len(mask) == 1:
            mask = mask[0]
        if tuple(mask.shape) == own:
            return mask[None]
        if mask.ndim == len(own) == 2 and mask.shape[0] % own[0] == 0 and mask.shape[1] % own[1] == 0:
            factors = (mask.shape[0] // own[0], mask.shape[1] // own[1])
            return torch.nn.functional.avg_pool2d(mask[None, None], factors)[0]
        many = mask.ndim == len(own) + 1 and len(mask) == len(scores)
        raise TargetError(
            f"the mask has the shape {tuple(mask.shape)}, and the positions of the output are {own}: "
            + (
                "for one mask per sample write a list of targets, [relprop.Over(3, mask=one) for one in mask]."
                if many
                else "give it that shape; torch.nn.functional.interpolate resizes a mask."
            )
        )

    def _inside(self, scores: Tensor) -> Tensor:
        """1 in the box and 0 outside it."""
        assert self.box is not None
        half = len(self.box) // 2
        if scores.ndim - 1 < half:
            raise TargetError(
                f"box {self.box} needs {half} axes of positions; those of the output are {tuple(scores.shape[1:])}."
            )
        inside = torch.zeros(scores.shape[1:], device=scores.device)
        edges = list(zip(self.box[:half], self.box[half:], strict=True))[::-1]  # columns are the last axis
        for (_, stop), length in zip(edges, scores.shape[-half:], strict=True):
            if stop > length:
                raise TargetError(
                    f"box {self.box} reaches beyond the output, whose positions are {tuple(scores.shape[1:])}."
                )
        where: tuple[Any, ...] = (Ellipsis, *(slice(start, stop) for start, stop in edges))
        inside[where] = 1
        return inside[None]

    def in_words(self, called: Called) -> str:
        """The class and the positions."""
        what = "all outputs" if self.target is None else called(self.target)
        how = "the mean of " if self.mean else ""
        places = []
        if self.predicted:
            places.append("where it is predicted")
        if self.mask is not None:
            places.append(f"over a mask of {int((self.mask != 0).sum()):,} positions")
        if self.box is not None:
            places.append(f"in the box {', '.join(map(str, self.box))}")
        if not places and self.target is not None:
            places.append("over all positions")
        return " ".join([how + what, *places])

    def __repr__(self) -> str:
        mask = "" if self.mask is None else f", mask of shape {tuple(self.mask.shape)}"
        more = "".join(f", {name}={getattr(self, name)}" for name in ("predicted", "mean") if getattr(self, name))
        box = "" if self.box is None else f", box={self.box}"
        axis = "" if self.axis is None else f", axis={self.axis}"
        return f"Over({self.target!r}{mask}{box}{more}{axis})"


def _mask(mask: Any) -> Tensor | None:
    """A mask as a tensor of weights."""
    if mask is None:
        return None
    try:
        found = torch.as_tensor(mask)
    except (TypeError, ValueError, RuntimeError):
        raise TargetError(
            f"mask must be a tensor or an array of booleans or weights; got {type(mask).__name__}."
        ) from None
    if found.is_complex() or not found.ndim:
        raise TargetError(f"mask must hold booleans or weights; got {found.dtype} of shape {tuple(found.shape)}.")
    found = found.detach().float()
    if not recording() and not bool(torch.isfinite(found).all()):
        raise TargetError("mask holds NaN or infinite values.")
    return found
