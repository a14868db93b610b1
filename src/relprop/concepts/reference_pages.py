"""Pictures of concepts: references of units cut to where they looked, and the units of one explanation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.attribute import attribute_each
from relprop.attribution.conditions import Units, units
from relprop.errors import InputError
from relprop.rendering.drawing import Drawing, column, framed, row, titled
from relprop.rendering.image import Heatmap, overlay, picture_of
from relprop.rendering.panels import Panel, panel
from relprop.results.files.drawings import save_drawing
from relprop.trees import batch_of

SIDE = 150
"""The height of a picture, in pixels."""


def references(unit: Any, by: str, most: int) -> Drawing:
    """The references of a unit side by side.

    Raises:
        InputError: the index has no model and data at hand, or the samples are not pictures.
    """
    panels = crops(unit, by, most)
    classes = ", ".join(f"{c} ({share:.1%})" for c, share in unit.classes(3))
    return framed(
        titled(row(panels), f"{unit.layer}, unit {unit.unit}", lines=[f"most relevance in classes {classes}"])
    )


def crops(unit: Any, by: str, most: int) -> list[Drawing]:
    """The references of a unit, each cut to where the unit looked, without near-duplicates."""
    index = unit.index
    if index.model is None or index.dataset is None:
        raise InputError("pictures need the model and the data: relprop.load_index(folder, model, dataset).")
    drawn: list[Drawing] = []
    seen: list[Tensor] = []
    for reference in unit.references(by):
        item = index.dataset[reference.sample]
        x, label = (item[0], int(item[1])) if isinstance(item, (tuple, list)) else (item, None)
        if x.ndim != 3:
            raise InputError(f"samples of shape {tuple(x.shape)} are not pictures.")
        if any(x.shape == other.shape and _alike(x, other) for other in seen):
            continue  # near-duplicates show nothing new
        seen.append(x)
        relevance = conditional(index, x[None], label, unit.layer, [unit.unit])[0][0]
        top, bottom, left, right = box(relevance.sum(0))
        picture, _ = picture_of(x)
        part = picture.crop((left, top, right, bottom))
        heatmap = Heatmap.of(relevance[:, top:bottom, left:right])
        said = f"sample {reference.sample}" + (f", class {label}" if label is not None else "")
        drawn.append(panel(Panel(overlay(heatmap, part), said), height=SIDE, bar=False))
        if len(drawn) == most:
            break
    return drawn


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether two samples are nearly the same."""
    return (
        float(torch.nn.functional.cosine_similarity((a - a.mean()).flatten(), (b - b.mean()).flatten(), dim=0)) > 0.98
    )


def conditional(index: Any, x: Tensor, target: Any, layer: str, numbers: Sequence[int]) -> list[Tensor]:
    """The maps of some units of a layer for one input."""
    axis = index.layers[layer].axis
    chosen = [unit_of(layer, axis, n) for n in numbers]
    spliced = list(index.splices.values())
    return [
        R.values
        for R in attribute_each(
            index.model, x, target, through=chosen, composite=index.about["settings"]["composite"], splices=spliced
        )
    ]


def unit_of(layer: str, axis: int, number: int) -> Units:
    """A unit of a layer, by the axis of its units."""
    return units(layer)[tuple([slice(None)] * axis + [number])]


def box(relevance: Tensor, part: float = 0.8) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the rectangle that holds this part of the positive relevance, grown to a square.

    Each side leaves out the same share of it: rows and columns are cut from their ends.
    """
    positive = relevance.clamp(min=0)
    if not bool(positive.any()):
        positive = relevance.abs() + 1e-30
    spans = []
    for axis in (1, 0):
        running = positive.sum(axis).cumsum(0) / positive.sum()
        ends = (1 - part) / 4
        spans.append((int((running < ends).sum()), int((running < 1 - ends).sum()) + 1))
    (top, bottom), (left, right) = spans
    side = max(bottom - top, right - left, 8)
    found = []
    for (start, stop), size in zip(spans, relevance.shape, strict=True):
        start = min(max(0, (start + stop - side) // 2), max(0, size - side))
        found += [start, min(size, start + side)]
    return found[0], found[1], found[2], found[3]


@dataclass(frozen=True)
class Concepts:
    """The strongest units of one explanation, with their maps and references.

    Attributes:
        layer: the path of the layer.
        units: the numbers of the units, the strongest first.
        shares: the share of each in the sum of the sizes of relevance in the layer.
        maps: the map of each unit, (K, ...) in the shape of the input.
        own: what is specific to each: its map minus its share of the sum of the maps of all units.
        drawing: the page.
    """

    layer: str
    units: list[int]
    shares: list[float]
    maps: Tensor
    own: Tensor
    drawing: Drawing

    def to_image(self, scale: float = 1.0) -> Any:
        """A picture of the page."""
        return self.drawing.to_image(scale)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the page as .svg, .png or .pdf."""
        save_drawing(self.drawing, path, "concepts are")

    def show(self) -> None:
        """Opens a picture of the page."""
        self.to_image(2.0).show()


def concepts(index: Any, result: Any, layer: str | None, most: int, count: int) -> Concepts:
    """The page of concepts of one explanation.

    Raises:
        InputError: the result is of several samples, has no input, or the index lacks the layer or its model.
    """
    x = result.inputs
    if not isinstance(x, Tensor) or batch_of(x) != 1 or x.ndim != 4:
        raise InputError("concepts are drawn for one picture at a time: R[0].concepts(index).")
    if index.model is None:
        raise InputError("pictures need the model and the data: relprop.load_index(folder, model, dataset).")
    path = layer if layer is not None else next(iter(index.layers))
    if path not in index.layers:
        raise InputError(f"the index has no layer {path!r}. It has: {', '.join(index.layers)}.")
    axis = index.layers[path].axis
    rules = index.about["settings"]["composite"]
    (whole,) = attribute_each(
        index.model, x, [result.target], layers=[path], composite=rules, splices=list(index.splices.values())
    )
    of_units = whole.layers[path][0].movedim(axis, 0).flatten(1).sum(1)
    order = of_units.abs().argsort(descending=True, stable=True)[:most].tolist()
    maps = torch.cat(conditional(index, x, result.target, path, order))
    share = of_units[order] / of_units.sum()
    own = maps - share[:, None, None, None].to(maps) * whole.values
    shares = (of_units[order] / of_units.abs().sum()).tolist()
    picture, _ = picture_of(x[0])
    rows = [
        row(
            [
                panel(Panel(picture, "input", smooth=True), height=SIDE),
                panel(Panel(overlay(Heatmap.of(whole.values[0]), picture), "all relevance"), height=SIDE),
            ]
        )
    ]
    for n, unit in enumerate(order):
        drawn = [
            panel(Panel(overlay(Heatmap.of(maps[n]), picture), "relevance through it"), height=SIDE, bar=False),
            panel(Panel(overlay(Heatmap.of(own[n]), picture), "what is its own"), height=SIDE, bar=False),
            *(crops(index[path, unit], "relevance", count) if index.dataset is not None else []),
        ]
        rows.append(titled(row(drawn), f"unit {unit}: {shares[n]:.1%}", size=13))
    drawing = framed(titled(column(rows), f"{result.subject(0)}: units of {path}"))
    return Concepts(path, order, shares, maps, own, drawing)
