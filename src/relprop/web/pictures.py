"""Pictures: what a network says of one, why, and how much relevance lies in a rectangle. Nothing here knows Gradio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from relprop.errors import InputError
from relprop.loading.network import taking
from relprop.rendering.image import Heatmap
from relprop.rendering.view import Options
from relprop.results.comparison import Comparison
from relprop.web.asking import check_classes, class_number, classes_of, compared
from relprop.web.page_subject import MapColumn, PageSubject, columns
from relprop.web.settings import PageSettings


@dataclass(frozen=True, eq=False)
class PictureAnswer:
    """What a network said of one picture or several, and why.

    Attributes:
        names: the names of the pictures, safe to print.
        pictures: the parts of the pictures that the network saw.
        inputs: what it was given.
        settings: what was asked; of one picture, the target is a number here.
        columns: the rules of each column.
        result: why.
        classes: the largest outputs of a single picture: number, name, output, and probability if they are logits.
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
        result = compared(subject, inputs, settings, chosen)
    first = result[0, 0]
    target = class_number(first.target)
    return PictureAnswer(
        tuple(name for name, _ in given), tuple(loaded.seen(picture) for _, picture in given), inputs,
        settings if len(given) > 1 else settings.changed(target=target), tuple(chosen), result,
        classes_of(first) if len(given) == 1 else (),
    )  # fmt: skip


@dataclass(frozen=True)
class RectangleShare:
    """How much of a map lies in a rectangle.

    Attributes:
        picture: the name of the picture.
        column: the name of the map.
        inside: its relevance in the rectangle.
        whole: its relevance in all.
        positive: what speaks for the target in the rectangle.
        negative: what speaks against it there.
        area: the rectangle's part of the picture, 0 to 1.
    """

    picture: str
    column: str
    inside: float
    whole: float
    positive: float
    negative: float
    area: float


def measure(answer: PictureAnswer, box: tuple[int, int, int, int]) -> list[RectangleShare]:
    """How much relevance of each map of each picture lies in a rectangle.

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
    for n, place in product(range(len(answer.names)), range(len(answer.columns))):
        values = answer.result[_row(answer), place].values[n].double().sum(0).cpu().numpy()
        part = values[top:bottom, left:right]
        found.append(
            RectangleShare(
                answer.names[n], answer.columns[place].name, float(part.sum()), float(values.sum()), float(np.maximum(part, 0).sum()),
                float(np.minimum(part, 0).sum()), part.size / values.size,
            )
        )  # fmt: skip
    return found


def _row(answer: PictureAnswer) -> int:
    """The row that a rectangle is read from: the contrast where there is one, else the target."""
    return len(answer.result.results) - 1
