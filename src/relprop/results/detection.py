"""A box of a detector, by its number and class.

Index letters: n sample, q box, k entry of a box, c class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from relprop.errors import TargetError
from relprop.results.forms import Called, Find, Form, check_class, form, index_in, whole
from relprop.signatures import public_class
from relprop.torch_private.recorded import recording

_LOGITS = ("pred_logits", "logits", "cls_logits", "class_logits")
"""The names under which dicts of detectors hold the class scores (N, boxes, C)."""
_BEFORE = (0, 4, 5)
"""How many entries of a box come before its class scores: none, its coordinates, or these and its objectness."""


@public_class("relprop.Detection")
@form
@dataclass(frozen=True, repr=False)
class Detection(Form):
    """The score of a class in one box of a detector.

    The model's output may be

    - a dict of `boxes`, `labels` and `scores`, or a list of them with one per picture, as torchvision's detectors return in
      eval mode. The class of a box is its label;
    - a dict with `pred_logits`, `logits` or `cls_logits` (N, boxes, C), or such a tensor (DETR, RetinaNet);
    - a tensor (N, boxes, K) or (N, K, boxes), where the K entries of a box are its coordinates, perhaps its objectness, and
      the scores of the classes (YOLO);
    - a list of levels: tensors (N, A·K, H, W), (N, A, K, H, W) or (N, A, H, W, K) with A anchors. Boxes are counted through
      the levels, and in each by anchor, row and column.

    Args:
        number: the number of the box, from 0. None takes the one with the largest score of that class.
        target: the class, by its label or number. None takes the class with the largest score.
        layout: "rows" for (N, boxes, K), "columns" for (N, K, boxes). None chooses by the number of labels.
        skip: how many of the K entries come before the class scores: 0, 4 (coordinates), or 5 (coordinates, objectness).
            None chooses by the number of labels.
        anchors: the number A of anchors in levels of the shape (N, A·K, H, W).

    Raises:
        TargetError: an argument is not valid, or the output has no such box.
    """

    number: int | None = None
    target: Any = None
    layout: str | None = None
    skip: int | None = None
    anchors: int = 1

    def __post_init__(self) -> None:
        check_class(self.target, "Detection")
        if self.number is not None and not whole(self.number):
            raise TargetError(f"Detection takes the number of a box, and then a class; got {self.number!r}.")
        if self.layout not in (None, "rows", "columns"):
            raise TargetError(f'layout must be "rows" or "columns"; got {self.layout!r}.')
        if self.skip is not None and (not whole(self.skip) or self.skip < 0):
            raise TargetError(f"skip is the number of entries before the class scores of a box; got {self.skip!r}.")
        if not whole(self.anchors) or self.anchors < 1:
            raise TargetError(f"anchors must be a positive int; got {self.anchors!r}.")

    def score(self, output: Any, find: Find) -> tuple[Tensor, Any]:
        """One score per sample."""
        if recording():
            raise TargetError(
                "boxes differ from input to input: explain them with attribute, not with a compiled function."
            )
        found: list[tuple[Tensor, Detection]]
        if isinstance(output, Mapping):
            found = self._of_dict(output, find)
        elif isinstance(output, (list, tuple)) and output and all(isinstance(one, Mapping) for one in output):
            found = [self._of_boxes(one, n, find) for n, one in enumerate(output)]
        elif isinstance(output, (list, tuple)) and output and all(isinstance(one, Tensor) for one in output):
            found = self._of_rows(torch.cat([self._level(level, find) for level in output], 1), find)
        elif isinstance(output, Tensor) and output.ndim in (4, 5):
            found = self._of_rows(self._level(output, find), find)
        elif isinstance(output, Tensor) and output.ndim == 3:
            found = self._of_rows(self._rows(output, find), find)
        else:
            what = (
                f"a tensor of shape {tuple(output.shape)}"
                if isinstance(output, Tensor)
                else f"a {type(output).__name__}"
            )
            raise TargetError(
                f"the model returned {what}, and boxes are tensors (N, boxes, K), dicts of boxes, labels and scores, or lists of "
                "levels: pass select=, a key, index or function that picks them."
            )
        targets = [target for _, target in found]
        # that of a single picture is a number: detectors take lists of pictures (3, H, W), which have no axis of samples
        scores = found[0][0] if len(found) == 1 else torch.stack([score for score, _ in found])
        return scores, targets[0] if len(set(targets)) == 1 else targets

    def alone(self, output: Any, n: int) -> Any:
        """The output of picture n."""
        if isinstance(output, (list, tuple)) and output and all(isinstance(one, Mapping) for one in output):
            return output[n : n + 1]
        return super().alone(output, n)

    def _of_dict(self, output: Mapping[str, Any], find: Find) -> list[tuple[Tensor, Detection]]:
        for name in _LOGITS:
            if isinstance(output.get(name), Tensor) and output[name].ndim == 3:
                return replace(self, layout="rows", skip=0)._of_rows(output[name], find)
        return [self._of_boxes(output, 0, find)]

    def _of_boxes(self, output: Mapping[str, Any], n: int, find: Find) -> tuple[Tensor, Detection]:
        """The score of a box in a dict of boxes, labels and scores."""
        scores, labels = output.get("scores"), output.get("labels")
        if not isinstance(scores, Tensor) or scores.ndim != 1:
            held = ", ".join(map(repr, output))
            raise TargetError(f"picture {n}: boxes are a dict with scores, a tensor (boxes,); this one holds {held}.")
        named = isinstance(labels, Tensor) and labels.shape == scores.shape
        wanted = None if self.target is None else find(self.target, 10**9)
        if wanted is not None and not named:
            raise TargetError(f"picture {n}: the boxes have no labels, so that none is of class {self.target!r}.")
        if self.number is None:
            places = torch.arange(len(scores), device=scores.device)
            places = places if wanted is None else places[labels == wanted]
            if not len(places):
                of = "" if wanted is None else f" of class {self.target!r}"
                raise TargetError(f"picture {n}: the model found no box{of}.")
            at = int(places[scores.detach()[places].argmax()])
        else:
            at = index_in(self.number, len(scores), "box")
        label = int(labels[at]) if named else None  # type: ignore[index]
        if wanted is not None and label != wanted:
            raise TargetError(
                f"picture {n}: box {at} is of class {label}, not {self.target!r}: Detection(target={self.target!r}) takes the "
                "likeliest of that class."
            )
        return scores[at], replace(self, number=at, target=label)

    def _of_rows(self, rows: Tensor, find: Find) -> list[tuple[Tensor, Detection]]:
        """The scores of boxes (N, boxes, K)."""
        skip = self._skip(rows.shape[2], find)
        classes = rows[:, :, skip:]
        width = classes.shape[2]
        if width < 1:
            raise TargetError(f"a box has {rows.shape[2]} entries, and skip={skip} leaves no class scores.")
        sure = classes.detach() * (rows.detach()[:, :, 4:5] if skip == 5 else 1)
        index = None if self.target is None else find(self.target, width)
        known = find.known
        real = width - 1 if known == width - 1 else width  # the last class may be that of no object
        found = []
        for n in range(len(rows)):
            mine = sure[n, :, :real] if index is None else sure[n, :, index : index + 1]
            if self.number is None:
                at, c = divmod(int(mine.argmax()), mine.shape[1])
            else:
                at = index_in(self.number, rows.shape[1], "box")
                c = int(mine[at].argmax())
            c = c if index is None else index
            found.append((classes[n, at, c], replace(self, number=at, target=c)))
        return found

    def _rows(self, output: Tensor, find: Find) -> Tensor:
        """An output (N, boxes, K) or (N, K, boxes) as (N, boxes, K)."""
        layout = self.layout
        if layout is None:
            fits = [axis for axis in (1, 2) if self._fits(output.shape[axis], find)]
            if len(fits) != 1:
                raise TargetError(
                    f"the output has the shape {tuple(output.shape)}: say which axis holds the boxes, layout='rows' for "
                    "(N, boxes, K) or layout='columns' for (N, K, boxes)."
                )
            layout = "rows" if fits == [2] else "columns"
        return output if layout == "rows" else output.transpose(1, 2)

    def _level(self, level: Tensor, find: Find) -> Tensor:
        """One level as (N, boxes, K)."""
        if level.ndim == 4:
            n, entries, tall, wide = level.shape
            if entries % self.anchors:
                raise TargetError(f"a level has {entries} channels, which is not a multiple of anchors={self.anchors}.")
            level = level.reshape(n, self.anchors, entries // self.anchors, tall, wide)
        elif level.ndim == 5:
            if self._fits(level.shape[4], find) and not self._fits(level.shape[2], find):
                return level.flatten(1, 3)
        else:
            raise TargetError(
                f"a level has the shape {tuple(level.shape)}; it is (N, A·K, H, W), or has an axis for anchors."
            )
        return level.permute(0, 1, 3, 4, 2).flatten(1, 3)

    def _fits(self, entries: int, find: Find) -> bool:
        """Whether that many entries of a box agree with the number of labels."""
        known = find.known
        return known is not None and (
            entries == known + self.skip if self.skip is not None else entries - known in (1, *_BEFORE)
        )

    def _skip(self, entries: int, find: Find) -> int:
        """How many entries come before the class scores."""
        if self.skip is not None:
            return self.skip
        known = find.known
        if known is not None and entries - known in (1, *_BEFORE):
            return 0 if entries - known == 1 else entries - known
        raise TargetError(
            f"a box has {entries} entries: say how many come before the class scores, skip=0 (DETR), skip=4 (coordinates) or "
            "skip=5 (coordinates and objectness), or pass labels=."
        )

    def in_words(self, called: Called) -> str:
        """The class and the box."""
        box = "the likeliest box" if self.number is None else f"box {self.number}"
        return f"{box}: {called(self.target)}" if self.target is not None else box
