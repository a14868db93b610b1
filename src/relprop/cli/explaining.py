"""From samples and the names of classes to results, and to the files that show them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import relprop
from relprop import Relevance
from relprop.cli.reading import Sample
from relprop.errors import InputError, TargetError
from relprop.rendering import views


@dataclass(frozen=True, eq=False)
class Explained:
    """A sample and its results, one for each composite and target."""

    sample: Sample
    results: list[Relevance]
    asked: list[str]


def explain(
    model: nn.Module,
    sample: Sample,
    labels: Sequence[str] | None,
    *,
    targets: Sequence[str] = (),
    against: str | None = None,
    composites: Sequence[str] = ("auto",),
    strict: bool = True,
) -> Explained:
    """Explains the targets (or the top class), `against`, and the first target rather than that."""
    classes: list[Any] = [find_class(target, labels) for target in targets]
    if against is not None:
        other = find_class(against, labels)
        if not classes:
            classes = [_top(model, sample.inputs)]
        if other == classes[0]:
            raise TargetError(f"{against!r} cannot be set against itself: choose another class.")
        classes += [other, relprop.Contrast(classes[0], other)]
    results, asked = [], []
    for composite in dict.fromkeys(composites):
        found = relprop.attribute_each(
            model, sample.inputs, classes or [None], composite=composite, labels=labels, strict=strict, ledger=True
        )
        results += found
        asked += [composite] * len(found)
    return Explained(sample, results, asked)


def write(
    explained: Sequence[Explained], folder: Path, title: str, *, keep: bool, paragraphs: Sequence[str], **options: Any
) -> list[Path]:
    """Writes a picture of each result, its folder where results are kept, and last `index.html`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise FileExistsError(f"{folder} is a file: choose a folder with --out.") from error
    paths: list[Path] = []
    groups: dict[str, list[Relevance]] = {}
    for each in explained:
        own = options_of(each.sample, options)
        for result, composite in zip(each.results, each.asked, strict=True):
            stem = "-".join(slug(part) for part in (each.sample.stem, views.target_of(result, 0), composite))
            path = _free(folder / f"{stem}.png", paths)
            result.save(path, **own)
            paths.append(path)
            if keep:
                result.save(path.with_suffix(""))
                paths.append(path.with_suffix(""))
        groups.setdefault(each.sample.name, []).extend(each.results)
    page = folder / "index.html"
    first = options_of(explained[0].sample, options)
    # Names of columns are the same for all rows of a table; pictures differ and are drawn from the inputs.
    first.pop("pictures", None)
    relprop.report(groups, page, title=title, paragraphs=paragraphs, **first)
    return [*paths, page]


def options_of(sample: Sample, options: dict[str, Any]) -> dict[str, Any]:
    """The options of drawing that suit a sample."""
    found = {name: value for name, value in options.items() if value is not None}
    if sample.picture is not None:
        found["pictures"] = sample.picture
    if sample.names:
        found["names"] = sample.names
    return found


def as_data(explained: Sequence[Explained], paths: Sequence[Path]) -> dict[str, Any]:
    """What was found out, for a program to read."""
    results = [
        {
            "input": each.sample.name,
            "sample": n,
            "explained": views.target_of(result, n),
            "composite": result.composite.name,
            "score": float(result.score[n]),
            "relevance": views.total(result, n),
            "residual": float(result.residual[n]),
            "absorbed": views.absorbed(result, n),
            "largest_outputs": dict(views.predictions(result, n)),
        }
        for each in explained
        for result in each.results
        for n in range(len(result))
    ]
    return {"results": results, "files": [str(path) for path in paths]}


def find_class(text: str, labels: Sequence[str] | None) -> int:
    """Find a class by its number or its name, in any case where that leaves one.

    Raises:
        TargetError: There is no such class; the message names the nearest ones.
    """
    if text.strip().isdecimal():
        index = int(text)
        if labels is None or index < len(labels):
            return index
        raise TargetError(f"there is no class {index}: they are numbered from 0 to {len(labels) - 1}")
    if labels is None:
        raise TargetError(
            f"the model has no names of classes: give the number of {text!r}, or --labels with a name a line"
        )
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
        f"there is no class {text!r}; " + (f"near it: {names}" if names else "use one of its names or numbers")
    )


def slug(text: str) -> str:
    """A text as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "input"


def _free(path: Path, taken: Sequence[Path]) -> Path:
    """The path, or one with a number where this run wrote it already: two folders may hold files of one name."""
    number, found = 2, path
    while found in taken:
        found, number = path.with_stem(f"{path.stem}-{number}"), number + 1
    return found


def _top(model: nn.Module, inputs: Tensor) -> int:
    if inputs.shape[0] != 1:
        raise InputError("--against without --target takes the top class of one sample; this file holds several.")
    import torch

    with torch.no_grad():
        output = model(inputs)
    logits = getattr(output, "logits", output)
    return int(logits.flatten(1).argmax(1))
