"""Pictures: what a network says of one, why, and how much relevance lies in a rectangle. Nothing here knows Gradio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from relprop.attribution.side_by_side import compare
from relprop.errors import InputError, TargetError
from relprop.loading.network import taking
from relprop.rendering.image import Heatmap
from relprop.rendering.view import Options
from relprop.results.comparison import Comparison
from relprop.results.contrast import Contrast
from relprop.results.numbers import predictions
from relprop.web.page_subject import MapColumn, PageSubject, columns
from relprop.web.settings import PageSettings

CLASSES = 5
"""How many of the largest classes are offered."""


@dataclass(frozen=True, eq=False)
class PictureAnswer:
    """What a network said of one picture or several, and why.

    Attributes:
        names: the names of the pictures, safe to print.
        pictures: the parts of the pictures that the network saw.
        inputs: what it was given.
        settings: what was asked; the target is a number here.
        columns: the rules of each column.
        result: why.
        classes: the largest outputs of the first picture: number, name, output, and probability if they are logits.
    """

    names: tuple[str, ...]
    pictures: tuple[Image.Image, ...]
    inputs: Tensor
    settings: PageSettings
    columns: tuple[MapColumn, ...]
    result: Comparison
    classes: tuple[tuple[int, str, float, float | None], ...]

    def options(self, settings: PageSettings) -> dict[str, Any]:
        """How the result is drawn."""
        return {"pictures": list(self.pictures), "percentile": settings.percentile, "smooth": settings.smooth}

    def maps(self, settings: PageSettings) -> list[list[Heatmap]]:
        """The map of each target and composite, of the first picture."""
        view = self.result.views(Options(**self.options(settings), most=1))[0]
        found = [cell.data for cell in view.cells.values() if isinstance(cell.data, Heatmap)]
        wide = len(self.columns)
        return [found[start : start + wide] for start in range(0, len(found), wide)]


def ask(subject: PageSubject, given: Sequence[tuple[str, Image.Image]], settings: PageSettings) -> PictureAnswer:
    """Explains pictures.

    Args:
        subject: the network.
        given: the name of each picture, safe to print, and the picture.
        settings: what is asked. Without a target, it is each picture's likeliest class.

    Raises:
        InputError: there is no picture, or the network cannot take it.
        TargetError: there is no such class.
        RelpropError: as in `relprop.attribute`.
    """
    if not given:
        raise InputError("there is no picture yet: drop one, paste one, or choose an example.")
    loaded = subject.loaded
    with taking(loaded, torch.zeros(1, 3, 8, 8), "It must take pictures."):
        inputs = torch.cat([loaded.tensor(picture) for _, picture in given])
    check_classes(settings, subject)
    chosen = columns(settings, subject, inputs)
    with taking(loaded, inputs, "It must take pictures."):
        result = _compared(subject, inputs, settings, chosen)
    first = result[0, 0]
    target = _number(first.target)
    return PictureAnswer(
        tuple(name for name, _ in given), tuple(loaded.seen(picture) for _, picture in given), inputs,
        settings if len(given) > 1 else settings.changed(target=target), tuple(chosen), result, classes_of(first),
    )  # fmt: skip


def _compared(subject: PageSubject, inputs: Tensor, settings: PageSettings, chosen: Sequence[MapColumn]) -> Comparison:
    """One forward pass and one backward pass for each target and composite; the likeliest class is found on the way."""
    loaded, composites = subject.loaded, {column.name: column.composite for column in chosen}
    if settings.against is None:
        wanted: list[Any] = [settings.target]
    else:
        target = settings.target if settings.target is not None else likeliest(subject, inputs)
        if settings.against in (target if isinstance(target, list) else [target]):
            raise TargetError(f"class {settings.against} cannot be set against itself: choose another class.")
        wanted = [target, settings.against, Contrast(target, settings.against)]
    found = compare(loaded.model, inputs, wanted, composites, labels=loaded.labels, ledger=True)
    if "auto" in composites:
        subject.resolved["auto"] = found[0, list(composites).index("auto")].composite.name
    return found


def likeliest(subject: PageSubject, inputs: Tensor) -> Any:
    """The likeliest class of one input, or the list of those of several."""
    with torch.no_grad():
        output = subject.loaded.model(inputs)
    found = getattr(output, "logits", output).flatten(1).argmax(1).tolist()
    return found[0] if len(found) == 1 else found


def check_classes(settings: PageSettings, subject: PageSubject) -> None:
    """Refuses classes that the network does not have, before it runs.

    Raises:
        TargetError: there is no such class.
    """
    labels = subject.labels
    for number in (settings.target, settings.against):
        if labels is not None and number is not None and number >= len(labels):
            raise TargetError(f"there is no class {number}: they are numbered from 0 to {len(labels) - 1}.")


def classes_of(result: Any) -> tuple[tuple[int, str, float, float | None], ...]:
    """The largest outputs: number, name, output, and probability where the outputs are logits."""
    output, named = result.output, predictions(result, 0, CLASSES)
    if not named:
        return ()
    row = output[0].float()
    likely = bool((row >= 0).all()) and abs(float(row.sum()) - 1.0) < 1e-3  # they are probabilities already
    chances = row if likely else row.softmax(0)
    numbers = row.topk(len(named)).indices.tolist()
    return tuple((n, name, value, float(chances[n])) for n, (name, value) in zip(numbers, named, strict=True))


@dataclass(frozen=True)
class RectangleShare:
    """How much of a map lies in a rectangle.

    Attributes:
        column: the name of the map.
        inside: its relevance in the rectangle.
        whole: its relevance in all.
        positive: what speaks for the target in the rectangle.
        negative: what speaks against it there.
        area: the rectangle's part of the picture, 0 to 1.
    """

    column: str
    inside: float
    whole: float
    positive: float
    negative: float
    area: float


def measure(answer: PictureAnswer, box: tuple[int, int, int, int]) -> list[RectangleShare]:
    """How much relevance of each map lies in a rectangle.

    The map is the one that the network gave: smoothing and scale do not enter.

    Args:
        answer: the maps.
        box: left, top, right and bottom in pixels of the network's picture; right and bottom lie outside.

    Raises:
        InputError: the rectangle is empty or lies outside of the picture.
    """
    left, top, right, bottom = box
    high, wide = answer.inputs.shape[-2:]
    if not (0 <= left < right <= wide and 0 <= top < bottom <= high):
        raise InputError(
            f"the rectangle from ({left}, {top}) to ({right}, {bottom}) must lie in the picture, {wide} x {high} pixels, and hold "
            "at least one."
        )
    found = []
    for place, column in enumerate(answer.columns):
        values = answer.result[_row(answer), place].values[0].double().sum(0).cpu().numpy()
        part = values[top:bottom, left:right]
        found.append(
            RectangleShare(
                column.name, float(part.sum()), float(values.sum()), float(np.maximum(part, 0).sum()),
                float(np.minimum(part, 0).sum()), part.size / values.size,
            )
        )  # fmt: skip
    return found


def _row(answer: PictureAnswer) -> int:
    """The row that a rectangle is read from: the contrast where there is one, else the target."""
    return len(answer.result.results) - 1


def _number(target: Any) -> int | None:
    while isinstance(target, (list, tuple)) and len(target) == 1:
        target = target[0]
    if isinstance(target, Tensor) and target.numel() == 1:
        target = int(target)
    return target if isinstance(target, int) else None
