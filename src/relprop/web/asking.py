"""Asks a network by the settings of a page: one comparison, whatever the network reads. Nothing here knows Gradio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.side_by_side import compare
from relprop.errors import TargetError
from relprop.results.comparison import Comparison
from relprop.results.contrast import Contrast
from relprop.results.numbers import predictions
from relprop.web.page_subject import MapColumn, PageSubject
from relprop.web.settings import PageSettings

CLASSES = 5
"""How many of the largest classes are offered."""


def compared(subject: PageSubject, inputs: Tensor, settings: PageSettings, chosen: Sequence[MapColumn]) -> Comparison:
    """One forward pass and one backward pass for each target and composite; the likeliest class is found on the way.

    Raises:
        TargetError: a class is set against itself.
        RelpropError: as in `relprop.compare`.
    """
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
        subject.resolve(found[0, list(composites).index("auto")].composite.name)
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
    if not named or output.shape[1] < 2:
        return ()
    row = output[0].float()
    likely = bool((row >= 0).all()) and abs(float(row.sum()) - 1.0) < 1e-3  # they are probabilities already
    chances = row if likely else row.softmax(0)
    numbers = row.topk(len(named)).indices.tolist()
    return tuple((n, name, value, float(chances[n])) for n, (name, value) in zip(numbers, named, strict=True))


def class_number(target: Any) -> int | None:
    """The number of the class that a result explains; None if it is none."""
    while isinstance(target, (list, tuple)) and len(target) == 1:
        target = target[0]
    if isinstance(target, Tensor) and target.numel() == 1:
        target = int(target)
    return target if isinstance(target, int) else None
