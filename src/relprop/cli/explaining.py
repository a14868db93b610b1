"""Explains samples for classes given by name or number, and writes the files that show the results."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import relprop
from relprop import Relevance
from relprop.attribution.labels import instead
from relprop.cli.options import BOUNDED
from relprop.cli.trying import Tried, said
from relprop.composites import NAMES
from relprop.errors import CompositeError, InputError, TargetError
from relprop.loading.samples import Sample
from relprop.rendering.visible import quoted
from relprop.results.files.folder import MANIFEST
from relprop.results.protocol import Result

# How many rows of a table go through the network at once: they are small.
_ROWS = 64


@dataclass(frozen=True, eq=False)
class ExplainedInput:
    """An input that was explained.

    Attributes:
        name: its name, safe to print.
        stem: the start of the names of its files.
        results: one result for each composite and target.
        asked: the requested composite of each result.
        drawing: the drawing options that suit it.
        text: whether it is a text, which is printed instead of a table.
    """

    name: str
    stem: str
    results: Sequence[Result]
    asked: Sequence[str]
    drawing: dict[str, Any] = field(default_factory=dict)
    text: bool = False


def explain(
    model: nn.Module,
    samples: Sequence[Sample],
    labels: Sequence[str] | None,
    *,
    targets: Sequence[str] = (),
    against: str | None = None,
    composites: Sequence[str] = ("auto",),
    strict: bool = True,
    batch_size: int | None = None,
    bounds: tuple[Tensor, Tensor] | None = None,
) -> list[ExplainedInput]:
    """Explains the targets (or the top class), `against`, and the contrast of the first target and `against`.

    Args:
        model: the network.
        samples: one sample, or several of one shape, which go through the network together.
        labels: the names of the classes.
        targets: classes, by name or number.
        against: another class.
        composites: names of composites.
        strict: whether unknown operations are errors.
        batch_size: how many inputs go through the network at once, if a sample holds several.
        bounds: the inputs of black and of white, of a network of pictures, for composites that need them.

    Raises:
        TargetError: there is no such class, or `against` is the target itself.
        InputError: `against` comes without targets, and a sample holds several inputs.
    """
    inputs = torch.cat([sample.inputs for sample in samples])
    classes: list[Any] = [find_class(target, labels) for target in targets]
    if against is not None:
        other = find_class(against, labels)
        if not classes:
            classes = [_top(model, inputs, len(samples))]
        if other in (classes[0] if isinstance(classes[0], list) else classes[:1]):
            raise TargetError(f"{against!r} cannot be set against itself: choose another class.")
        classes += [other, relprop.Contrast(classes[0], other)]
    found: list[list[Relevance]] = [[] for _ in samples]
    asked: list[str] = []
    for composite in dict.fromkeys(composites):
        results = relprop.attribute_each(
            model, inputs, classes or [None], composite=composite_of(composite, samples[0], bounds), labels=labels, strict=strict, ledger=True,
            batch_size=batch_size,
        )  # fmt: skip
        asked += [composite] * len(results)
        for result in results:
            start = 0
            for sample, mine in zip(samples, found, strict=True):
                mine.append(result[start : start + len(sample.inputs)])
                start += len(sample.inputs)
    return [
        ExplainedInput(sample.name, sample.stem, mine, asked, _drawing(sample))
        for sample, mine in zip(samples, found, strict=True)
    ]


def composite_of(name: str, sample: Sample, bounds: tuple[Tensor, Tensor] | None) -> Any:
    """A composite by its name, with the bounds of pictures if it needs bounds of its input.

    Raises:
        CompositeError: it needs them, and the input is not a picture.
    """
    if name not in BOUNDED:
        return name
    if bounds is None or sample.picture is None:
        raise CompositeError(
            f"{name!r} needs the bounds of the input, which are known of pictures alone; {sample.name} is none. Use it from Python, "
            f"relprop.composites.{name}(low=..., high=...)."
        )
    return NAMES[name](low=bounds[0], high=bounds[1])


def chunks(samples: Sequence[Sample], batch_size: int | None) -> list[list[Sample]]:
    """Groups of samples that go through the network together: `batch_size`, or by default 64 rows or 1 other sample."""
    found: list[list[Sample]] = []
    for sample in samples:
        size = batch_size or (_ROWS if sample.names else 1)
        last = found[-1] if found else []
        alike = (
            last
            and len(sample.inputs) == 1
            and sample.inputs.shape == last[0].inputs.shape
            and sample.names == last[0].names
        )
        if alike and len(last) < size:
            last.append(sample)
        else:
            found.append([sample])
    return found


def check_folder(folder: Path) -> None:
    """Refuses a folder that cannot be written to, before there is anything to write.

    Raises:
        OSError: it is a file, or it or its first existing parent cannot be written to.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise FileExistsError(f"{there} is a file: choose a folder with --out.")
    if not os.access(there, os.W_OK):
        raise PermissionError(f"{there} cannot be written to: choose another folder with --out.")


def kept(paths: Sequence[Path]) -> list[Path]:
    """The folders of results. Another folder stands for the results in it, in the order of their names.

    Raises:
        InputError: there is no such folder, or it holds no result.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            what = (
                f"{quoted(path)} is a file, and results are folders"
                if path.exists()
                else f"there is no folder {quoted(path)}"
            )
            raise InputError(f"{what}: `relprop explain --keep` and R.save('folder/') write them.")
        inside = [] if (path / MANIFEST).exists() else sorted(each.parent for each in path.glob(f"*/{MANIFEST}"))
        if not inside and path.name and not (path / MANIFEST).exists() and (path / "index.html").exists():
            raise InputError(f"{quoted(path)} holds a page and no results: run `relprop explain` with --keep.")
        found += inside or [path]
    return found


def as_data(explained: Sequence[ExplainedInput], paths: Sequence[Path], tried: Tried) -> dict[str, Any]:
    """The results, the inputs that were left out, and the files, as data for a program."""
    results = [
        {
            "input": each.name,
            "sample": n,
            "explained": result.subject(n),
            "composite": result.composite.name,
            "score": row.score,
            "relevance": row.relevance,
            "residual": row.residual,
            "absorbed": row.absorbed,
            **result.facts(n),
        }
        for each in explained
        for result in each.results
        for n, row in enumerate(result.rows())
    ]
    left_out = [{"input": name, "reason": said(error)} for name, error in tried.left_out]
    return {"results": results, "left_out": left_out, "files": [str(path) for path in paths]}


def _drawing(sample: Sample) -> dict[str, Any]:
    """The drawing options that suit a sample."""
    found: dict[str, Any] = {}
    if sample.picture is not None:
        found["pictures"] = sample.picture
    if sample.names:
        found["names"] = sample.names
    return found


def find_class(text: str, labels: Sequence[str] | None) -> int:
    """Finds a class by its number or its name. The case may differ if only one name then fits.

    Raises:
        TargetError: there is no such class; the message names the nearest ones.
    """
    if text.strip().isdecimal():
        index = int(text)
        if labels is None or index < len(labels):
            return index
        raise TargetError(f"there is no class {index}: they are numbered from 0 to {len(labels) - 1}")
    if labels is None:
        raise TargetError(
            f"the model has no names of classes: give the number of {text!r}, or --labels with a name a line."
        )
    if text in labels:
        return labels.index(text)
    lowered = [label.lower() for label in labels]
    wanted = text.strip().lower()
    if lowered.count(wanted) == 1:
        return lowered.index(wanted)
    raise TargetError(f"there is no class {text!r}{instead(text, labels)}")


def slug(text: str) -> str:
    """A text in a form for file names."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "input"


def _top(model: nn.Module, inputs: Tensor, samples: int) -> int | list[int]:
    if inputs.shape[0] != samples:
        raise InputError("--against without --target takes the top class of one sample; this file holds several.")
    with torch.no_grad():
        output = model(inputs)
    logits = getattr(output, "logits", output)
    found = logits.flatten(1).argmax(1).tolist()
    return found[0] if samples == 1 else found
