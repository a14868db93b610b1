"""From a picture and the names of classes to maps and their numbers."""

from __future__ import annotations

import difflib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

import relprop
from relprop.errors import InputError, TargetError
from relprop.rendering import Entry, Heatmap
from relprop.zoo import efficientnet_lite0
from relprop.zoo.images import preprocess, square


@dataclass(frozen=True, eq=False)
class Explanation:
    """What was found out about one picture.

    Attributes:
        title: The picture's name.
        text: A line about it, with what the network thinks it is.
        picture: The part of it that the network saw.
        entries: A map for each composite and target.
    """

    title: str
    text: str
    picture: Image.Image
    entries: list[Entry]


class Explainer:
    """EfficientNet-Lite0 and what to ask of it."""

    def __init__(self, composites: Sequence[str], percentile: float) -> None:
        if not 0.0 < percentile <= 100.0:
            raise InputError(f"--percentile is {percentile:g}; it lies above 0 and up to 100")
        self.composites = list(dict.fromkeys(composites))
        self.percentile = percentile
        self.model = efficientnet_lite0()

    def explain(
        self,
        image: Image.Image,
        title: str,
        *,
        targets: Sequence[str] = (),
        against: str | None = None,
        text: str = "",
    ) -> Explanation:
        """Explain the targets (or the top class), `against`, and the first target rather than that."""
        labels = self.model.labels
        inputs = preprocess(image)
        with torch.no_grad():
            probabilities = self.model(inputs).softmax(1)[0]
        likely = probabilities.topk(3).indices.tolist()
        classes = [find_class(target, labels) for target in targets] or [likely[0]]
        asked: dict[str, int | relprop.Contrast] = {labels[index]: index for index in classes}
        if against is not None:
            other = find_class(against, labels)
            if other == classes[0]:
                raise TargetError(f"{labels[other]!r} cannot be set against itself: choose another class")
            asked[labels[other]] = other
            asked[f"{labels[classes[0]]} rather than {labels[other]}"] = relprop.Contrast(classes[0], other)
        thoughts = ", ".join(f"{labels[index]} {probabilities[index]:.0%}" for index in likely)
        return Explanation(
            title=title,
            text=f"The network says: {thoughts}. {text}".strip(),
            picture=square(image),
            entries=[entry for composite in self.composites for entry in self._entries(inputs, asked, composite)],
        )

    def _entries(self, inputs: Tensor, asked: dict[str, int | relprop.Contrast], composite: str) -> list[Entry]:
        start = time.perf_counter()
        found = relprop.attribute_each(self.model, inputs, list(asked.values()), composite=composite)
        # The targets share a forward pass, and so its time.
        seconds = (time.perf_counter() - start) / len(asked)
        return [
            Entry(
                name=name,
                heatmap=Heatmap.of(relevance.values, percentile=self.percentile),
                composite=_shown_name(composite, relevance.composite.name),
                score=relevance.score.item(),
                total=relevance.values.sum(dtype=torch.float64).item(),
                residual=relevance.residual.item(),
                seconds=seconds,
            )
            for name, relevance in zip(asked, found, strict=True)
        ]


def find_class(text: str, labels: Sequence[str]) -> int:
    """Find a class by its number or its name, in any case where that leaves one.

    Raises:
        TargetError: There is no such class; the message names the nearest ones.
    """
    if text.strip().isdecimal():
        index = int(text)
        if index < len(labels):
            return index
        raise TargetError(f"there is no class {index}: they are numbered from 0 to {len(labels) - 1}")
    if text in labels:
        return labels.index(text)
    lowered = [label.lower() for label in labels]
    wanted = text.strip().lower()
    if lowered.count(wanted) == 1:
        return lowered.index(wanted)
    near = [index for index, label in enumerate(lowered) if wanted and wanted in label][:5]
    near += [lowered.index(label) for label in difflib.get_close_matches(wanted, lowered, n=3)]
    names = ", ".join(repr(labels[index]) for index in dict.fromkeys(near))
    raise TargetError(
        f"there is no class {text!r}; " + (f"near it: {names}" if names else "use an ImageNet name or number")
    )


def _shown_name(asked: str, ran: str) -> str:
    return ran if asked == ran else f"{asked} ({ran})"
