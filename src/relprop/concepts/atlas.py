"""An atlas: which hidden unit rules which region of a picture (Achtibat et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from relprop.concepts.conditional import conditional, explained
from relprop.concepts.index import Index
from relprop.concepts.reference_pages import crops
from relprop.errors import InputError
from relprop.rendering.drawing import Drawing, column, framed, row, titled
from relprop.rendering.image import picture_of
from relprop.rendering.marks import SIZE, Rect, Text
from relprop.rendering.panels import Panel, panel
from relprop.results.files.drawings import save_drawing
from relprop.signatures import public

COLOURS = (
    (230, 97, 1), (31, 120, 180), (51, 160, 44), (152, 78, 163), (227, 26, 28), (0, 150, 150), (177, 140, 20), (110, 110, 110),
    (230, 120, 180), (90, 60, 30),
)  # fmt: skip
"""The colours of the units."""
SIDE = 320
LEAST = 0.02
"""A region whose strongest unit has less than this part of the largest value belongs to none."""


@dataclass(frozen=True)
class Atlas:
    """Which of the strongest units of a layer has most relevance in each region of a picture.

    Attributes:
        layer: the path of the layer.
        units: the numbers of the units, the strongest first.
        shares: the share of each in the sum of the sizes of relevance in the layer.
        regions: (rows, columns): for each region the place of its unit in `units`; -1 where none has relevance.
        values: (K, rows, columns): the relevance that passes each unit, in each region.
        picture: the input, (C, H, W).
    """

    layer: str
    units: list[int]
    shares: list[float]
    regions: Tensor
    values: Tensor
    picture: Tensor = field(repr=False)
    index: Index | None = field(default=None, repr=False)

    def drawing(self, references: int = 3) -> Drawing:
        """The picture with its regions in the colours of their units, and a legend with references of each."""
        image = picture_of(self.picture)[0].convert("RGB")
        size = SIDE, round(SIDE * image.height / image.width)
        base = np.asarray(image.convert("L").resize(size), dtype=np.float64)[..., None].repeat(3, 2)
        regions = np.asarray(
            Image.fromarray(self.regions.numpy().astype(np.int32), "I").resize(size, Image.Resampling.NEAREST)
        )
        for k in range(len(self.units)):
            base[regions == k] = 0.5 * base[regions == k] + 0.5 * np.asarray(COLOURS[k])
        tinted = panel(Panel(Image.fromarray(base.astype(np.uint8)), smooth=True), height=size[1])
        there = sorted(set(self.regions.flatten().tolist()) - {-1})
        rows = []
        for k in there:
            said = f"unit {self.units[k]}: {self.shares[k]:.1%}, {int((self.regions == k).sum())} regions"
            mark = Drawing(170, 20, (Rect(0, 2, 16, 16, "#%02x%02x%02x" % COLOURS[k]), Text(24, 3, said, SIZE)))  # noqa: UP031
            shown = self.index is not None and self.index.dataset is not None
            pictures = crops(self.index[self.layer, self.units[k]], "relevance", references) if shown else []  # type: ignore[index]
            rows.append(column([mark, *([row(pictures)] if pictures else [])], gap=4))
        return framed(titled(row([tinted, column(rows)], gap=20), f"which unit of {self.layer} rules which region"))

    def show(self) -> None:
        """Opens a picture of it."""
        self.drawing().to_image(2.0).show()

    @public(".save")
    def save(self, path: str | PathLike[str]) -> None:
        """Writes the drawing as `.svg`, `.png` or `.pdf`.

        Raises:
            InputError: the suffix is none of these.
        """
        save_drawing(self.drawing(), path, "an atlas is")


@public("relprop.atlas")
def atlas(
    index: Index,
    inputs: Tensor,
    target: Any = None,
    *,
    layer: str | None = None,
    most: int = 8,
    grid: int | None = None,
) -> Atlas:
    """Which hidden unit rules which region of a picture.

    The maps of the strongest units are summed over the regions of a grid; a region belongs to the unit with most relevance
    there. With z+ rules, maps of late layers look alike, so prefer lower layers.

    Args:
        index: an index of the layer with its model at hand, and with its data for pictures of what the units stand for.
        inputs: one picture, (1, C, H, W).
        target: which output, as in `attribute`.
        layer: the path of a layer of the index; None for its first.
        most: how many of the strongest units compete, at most 10.
        grid: the number of regions along each side; 14 by default, or fewer for a small picture.

    Raises:
        InputError: this is no single picture, or the index lacks the layer or the model.
        RelpropError: as in `attribute`.

    References:
        Achtibat et al. 2023, "From attribution maps to human-understandable explanations through concept relevance
        propagation".
    """
    if not isinstance(index, Index):
        raise InputError(f"an atlas takes an index, relprop.index(...); got {type(index).__name__}.")
    if index.model is None:
        raise InputError("an atlas needs the model: relprop.load_index(folder, model).")
    if not isinstance(inputs, Tensor) or inputs.ndim != 4 or len(inputs) != 1:
        raise InputError("an atlas is of one picture, (1, C, H, W).")
    grid = min(14, *inputs.shape[2:]) if grid is None else grid
    for name, number, limit in (("most", most, len(COLOURS)), ("grid", grid, min(inputs.shape[2:]))):
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= limit:
            raise InputError(f"{name} must be an int from 1 to {limit}; got {number!r}.")
    path = layer if layer is not None else next(iter(index.layers))
    if path not in index.layers:
        raise InputError(f"the index has no layer {path!r}. It has: {', '.join(index.layers)}.")
    axis = index.layers[path].axis
    (whole,) = explained(index, inputs, [target], layers=[path])
    of_units = whole.layers[path][0].movedim(axis, 0).unsqueeze(-1).flatten(1).sum(1)
    order = of_units.abs().argsort(descending=True, stable=True)[:most].tolist()
    maps = torch.stack([part[0].sum(0) for part in conditional(index, inputs, whole.target, path, order)]).double()
    values = torch.nn.functional.adaptive_avg_pool2d(maps, grid)
    best, regions = values.max(0)
    regions = torch.where(best > LEAST * float(values.max().clamp(min=0)), regions, -1)
    shares = (of_units[order].abs() / of_units.abs().sum()).tolist()
    return Atlas(path, order, shares, regions, values, inputs[0].detach(), index)
