"""Relevance of pictures: a map by itself, over the picture, as contours, by sign, by channel, and in grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image, ImageFilter

from relprop.errors import InputError
from relprop.rendering import colours
from relprop.rendering.colours import RED_BLUE, Bytes, Floats, Palette
from relprop.rendering.drawing import FAINT, INK, LINE, SIZE, SMALL, Drawing, Mark, Picture, Rect, Text, row, wrapped
from relprop.rendering.fonts import fit, width
from relprop.rendering.scale import Scale, note, number, scale_for, to_array

# The picture's lightness is squeezed into this range: pure black and pure white cannot take a tint.
_PICTURE_LIGHTNESS = (30.0, 88.0)
# Side of a panel of a drawing; maps are shown at whole multiples of their size where that fits.
PANEL = 224
# A drawn map tells the sum of relevance of this many parts of each side to the pointer.
_PARTS = 12


@dataclass(frozen=True, eq=False)
class Heatmap:
    """A map of relevance, `(H, W)`, and its scale.

    Build one with `Heatmap.of`; the scale of another makes the two comparable:
    `Heatmap(heatmap.values, other.scale)`.

    Attributes:
        values: relevance of each pixel; NaN stays NaN and is drawn yellow.
        scale: which size is drawn in the deepest colour; everything beyond it, too.
        palette: the colours.
    """

    values: Floats
    scale: Scale
    palette: Palette = RED_BLUE

    @classmethod
    def of(
        cls,
        relevance: torch.Tensor | ArrayLike,
        *,
        percentile: float | None = None,
        limit: float | Scale | None = None,
        palette: Palette | str = RED_BLUE,
    ) -> Heatmap:
        """Sums the channels of `(H, W)`, `(C, H, W)` or `(1, C, H, W)`, and scales by the largest size.

        Args:
            relevance: the relevance of one picture.
            percentile: scale by this percentile of the sizes instead, which clips what is beyond it.
            limit: scale by this size instead, or by another scale.
            palette: the colours, or their name.

        Raises:
            InputError: this is no map, or there is no such palette or scale.
        """
        values = channel_sum(relevance)
        scale = scale_for([values], percentile=percentile, limit=limit)
        return cls(values, scale, colours.palette(palette))

    @property
    def limit(self) -> float:
        """The size of relevance that gets the deepest colour."""
        return self.scale.limit

    @property
    def note(self) -> str:
        """What one should know of the map before trusting its colours; empty for an ordinary one."""
        said = note(self.values, self.scale, "pixel")
        unsigned = "signs are not shown" if self.palette.positive == self.palette.negative else ""
        return "; ".join(filter(None, [said, unsigned]))

    @property
    def scaled(self) -> Floats:
        """The values as parts of the limit, -1 to 1; NaN where they are not finite, for that has no size."""
        return self.scale(self.values)

    def image(self) -> Image.Image:
        """Draws the map by itself: white where relevance is 0."""
        return Image.fromarray(colours.diverging(self.scaled, self.palette))

    def part(self, sign: float) -> Heatmap:
        """Its positive or negative part, on the same scale."""
        side = np.maximum(self.values, 0.0) if sign > 0 else np.minimum(self.values, 0.0)
        return Heatmap(side, self.scale, self.palette)


def overlay(heatmap: Heatmap, picture: Image.Image) -> Image.Image:
    """Draws the picture in grey and lets relevance tint it, red for and blue against.

    A tint changes no luminance: what the picture shows stays as visible under strong relevance as under none.
    """
    height, width_ = heatmap.values.shape
    rgb: Bytes = np.asarray(picture.convert("RGB").resize((width_, height), Image.Resampling.BICUBIC))
    low, high = _PICTURE_LIGHTNESS
    lightness = low + (high - low) * colours.lightness_of_luminance(colours.luminance(rgb)) / 100.0
    return Image.fromarray(colours.tinted(heatmap.scaled, colours.luminance_of_lightness(lightness), heatmap.palette))


def contour(
    heatmap: Heatmap, picture: Image.Image, *, level: float = 0.25, smooth: float = 2.0, size: int = PANEL
) -> Image.Image:
    """Draws the picture in its own colours, with lines around what is relevant.

    Args:
        heatmap: the map; its size is blurred before the lines are drawn, or every pixel would have one.
        picture: what it is about.
        level: where the lines run, as a part of the largest blurred size.
        smooth: the blur's standard deviation in pixels of the map; 0 for none.
        size: pixels of the longer side.
    """
    if size < 1 or smooth < 0.0 or not 0.0 < level <= 1.0:
        raise InputError(
            f"size is {size}, smooth {smooth}, level {level}: contours need a size of at least 1, a blur of at least 0, and a "
            "level above 0 and up to 1."
        )
    height, width_ = heatmap.values.shape
    factor = size / max(height, width_)
    shape = max(1, round(width_ * factor)), max(1, round(height * factor))
    shown = np.array(picture.convert("RGB").resize(shape, Image.Resampling.BICUBIC))
    finite = _blurred(np.where(np.isfinite(heatmap.values), heatmap.values, 0.0), smooth)
    threshold = level * float(np.abs(finite).max())
    blurred = np.asarray(Image.fromarray(finite.astype(np.float32)).resize(shape, Image.Resampling.BICUBIC))
    for sign in (1.0, -1.0):
        inside = (sign * blurred > threshold) & (threshold > 0.0)
        edge = inside & ~_eroded(inside)
        # A white line around the coloured one, so that it is seen on any picture.
        shown[_grown(edge) & ~inside] = 255
        shown[edge] = colours.diverging(np.array([sign * 0.85]), heatmap.palette)[0]
    return Image.fromarray(shown)


def channels(
    relevance: torch.Tensor | ArrayLike,
    names: Sequence[str] = (),
    *,
    percentile: float | None = None,
    limit: float | Scale | None = None,
) -> list[tuple[str, Heatmap]]:
    """A map of each channel of `(C, H, W)`, on one scale."""
    values = to_array(relevance)
    if values.ndim != 3:
        raise InputError(f"relevance has the shape {values.shape}; channels are shown of (C, H, W).")
    scale = scale_for(values, percentile=percentile, limit=limit)
    labels = list(names) or [f"channel {c}" for c in range(len(values))]
    if len(labels) != len(values):
        raise InputError(f"{len(labels)} names for {len(values)} channels.")
    return [(label, Heatmap(value, scale)) for label, value in zip(labels, values, strict=True)]


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture of a drawing.

    Attributes:
        image: what is shown: a picture, or a map.
        caption: its first line, cut with an ellipsis where it is too long; what follows a line break is
            fainter, and wrapped.
        heatmap: the map whose colour bar and values belong to the picture; None draws none.
        smooth: whether it is a photograph, which may be smoothed when it is enlarged.
    """

    image: Image.Image | Heatmap
    caption: str = ""
    heatmap: Heatmap | None = None
    smooth: bool = False

    @property
    def map(self) -> Heatmap | None:
        """The map whose values the panel shows."""
        return self.image if isinstance(self.image, Heatmap) else self.heatmap


def panel(shown: Panel, *, height: int = PANEL, bar: bool = True) -> Drawing:
    """One picture, a colour bar under it where it is a map, and its caption."""
    image = shown.image.image() if isinstance(shown.image, Heatmap) else shown.image
    wide = max(1, round(image.width * height / image.height))
    marks: list[Mark] = [
        # White maps on white paper need an edge.
        Rect(0, 0, wide + 2, height + 2, None, LINE),
        Picture(1, 1, wide, height, image, shown.smooth, ""),
    ]
    top = float(height + 6)
    if shown.map is not None:
        marks += _hover(shown.map, wide, height)
        if bar:
            legend = colour_bar(wide + 2, shown.map.scale, shown.map.palette)
            marks += legend.at(0, top)
            top += legend.height + 2
    first, *rest = shown.caption.split("\n")
    if shown.map is not None and bar and shown.map.note:
        rest.append(shown.map.note)  # what was clipped is always written down
    if first:
        marks.append(Text(0, top, fit(first, wide + 2, SIZE), SIZE, INK))
        top += SIZE + 4
    for line in (part for long in rest for part in wrapped(long, wide + 2, SMALL)):
        marks.append(Text(0, top, line, SMALL, FAINT))
        top += SMALL + 4
    return Drawing(wide + 2, top, tuple(marks), _described(shown))


def strip(panels: Sequence[Panel], *, height: int = PANEL) -> Drawing:
    """Draws panels side by side at one height."""
    if not panels:
        raise InputError("a strip needs at least one panel.")
    return row([panel(each, height=height) for each in panels])


def grid(
    maps: Sequence[Sequence[Heatmap]],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    shared: bool = False,
    picture: Image.Image | None = None,
    size: int = 160,
) -> Drawing:
    """Draws maps as a table, as of targets (rows) by composites (columns).

    Args:
        maps: the rows.
        rows: a label for each.
        columns: a label for each column.
        shared: draw all on one scale, that of the largest size, instead of each on its own with a colour bar each. Maps of different rules may
            differ in size by orders of magnitude; then the small ones look white, and their titles say so.
        picture: tint it with each map, instead of drawing maps alone.
        size: pixels of a map's height.
    """
    if not maps or not all(maps):
        raise InputError("a grid needs at least one map in each row.")
    longest = max(map(len, maps))
    if (rows and len(rows) != len(maps)) or (columns and len(columns) != longest):
        raise InputError(f"{len(rows)} and {len(columns)} labels for {len(maps)} rows and {longest} columns of maps.")
    if shared:
        scale = Scale.of(*(heatmap.values for line in maps for heatmap in line))
        maps = [[Heatmap(heatmap.values, scale, heatmap.palette) for heatmap in line] for line in maps]
    side = max((width(label, SIZE) for label in rows), default=0.0)
    left = min(side, 150.0) + 10 if rows else 0.0
    top = SIZE + 8.0 if columns else 0.0
    marks: list[Mark] = []
    right = 0.0
    for number_, line in enumerate(maps):
        cells = [
            panel(Panel(overlay(h, picture) if picture else h, heatmap=h), height=size, bar=not shared) for h in line
        ]
        if number_ < len(rows):
            marks.append(Text(0, top + size / 2 - 7, fit(rows[number_], 150, SIZE)))
        x = left
        for place, cell in enumerate(cells):
            if number_ == 0 and place < len(columns):
                marks.append(Text(x, 0, fit(columns[place], cell.width, SIZE)))
            marks += cell.at(x, top)
            if shared and (said := note(line[place].values, Scale(line[place].limit), "pixel")):
                marks.append(Text(x, top + size + 4, fit(said, cell.width, SMALL), SMALL, FAINT))
            x += cell.width + 8
        right = max(right, x - 8)
        top += max(cell.height for cell in cells) + (16 if shared else 4)
    if shared:
        first = maps[0][0]
        legend = colour_bar(min(max(right - left, 120), 320), first.scale, first.palette)
        marks += legend.at(left, top + 4)
        top += legend.height + 8
        marks.append(Text(left, top, fit(f"scale {first.scale.how}", right - left, SMALL), SMALL, FAINT))
        top += SMALL + 4
        right = max(right, left + legend.width)
    return Drawing(right, top, tuple(marks), f"A table of {len(maps)} by {len(maps[0])} heat maps.")


def colour_bar(wide: float, scale: Scale, palette: Palette | str = RED_BLUE) -> Drawing:
    """Draws the palette from -limit to +limit, with these two and 0 written under it."""
    ramp = colours.diverging(np.linspace(-1.0, 1.0, 2 * max(1, int(wide) // 2) + 1)[None], palette)
    marks: list[Mark] = [
        Picture(0, 0, wide, 10, Image.fromarray(ramp)),
        Rect(0, 0, wide, 10, None, LINE),
        Text(wide / 2, 12, "0", SMALL, FAINT, "middle"),
    ]
    if scale.limit > 0.0:
        low, high = f"-{number(scale.limit)}", f"+{number(scale.limit)}"
        if width(low, SMALL) + width(high, SMALL) + 20 < wide:
            marks.append(Text(0, 12, low, SMALL, FAINT))
            marks.append(Text(wide, 12, high, SMALL, FAINT, "end"))
        else:
            marks[2] = Text(wide / 2, 12, fit("±" + number(scale.limit), wide, SMALL), SMALL, FAINT, "middle")
    return Drawing(wide, 26, tuple(marks))


def picture_of(values: torch.Tensor | ArrayLike) -> tuple[Image.Image, str]:
    """A picture from a network's input `(C, H, W)`, and what was done to its values, in words.

    Values from 0 to 1 are taken as they are, others are stretched from their smallest to their largest: what a network
    was normalised with is not known here. Of other than 1 or 3 channels the mean is shown.
    """
    array = to_array(values)
    if array.ndim == 2:
        array = array[None]
    said = ""
    if array.shape[0] not in (1, 3):
        array, said = array.mean(0, keepdims=True), f"mean of {array.shape[0]} channels"
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low < 0.0 or high > 1.0:
        stretched = "values stretched to the range of the screen"
        said = f"{said}; {stretched}" if said else stretched
        array = (array - low) / (high - low if high > low else 1.0)
    pixels = np.round(255 * np.clip(np.nan_to_num(array), 0, 1)).astype(np.uint8).transpose(1, 2, 0)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB"), said


def channel_sum(relevance: torch.Tensor | ArrayLike) -> Floats:
    """A map `(H, W)` of the relevance of one picture.

    Raises:
        InputError: this is no map.
    """
    values = to_array(relevance)
    given = values.shape
    if values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 3:
        # A sum of infinities of both signs is no number, and that is what is shown.
        with np.errstate(invalid="ignore", over="ignore"):
            values = values.sum(axis=0)
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(f"relevance has the shape {given}; a map is drawn of (H, W), (C, H, W) or (1, C, H, W).")
    return values


def _hover(heatmap: Heatmap, wide: float, height: float) -> list[Mark]:
    """Parts of the map that tell their sum to the pointer."""
    marks: list[Mark] = []
    rows = np.array_split(np.arange(heatmap.values.shape[0]), min(_PARTS, heatmap.values.shape[0]))
    columns = np.array_split(np.arange(heatmap.values.shape[1]), min(_PARTS, heatmap.values.shape[1]))
    down, across = height / heatmap.values.shape[0], wide / heatmap.values.shape[1]
    for y in rows:
        for x in columns:
            with np.errstate(invalid="ignore", over="ignore"):
                total = float(heatmap.values[y[0] : y[-1] + 1, x[0] : x[-1] + 1].sum())
            where = f"rows {y[0]}-{y[-1]}, columns {x[0]}-{x[-1]}: {number(total)}"
            place = 1 + x[0] * across, 1 + y[0] * down, len(x) * across, len(y) * down
            marks.append(Rect(*place, title=where))
    return marks


def _described(shown: Panel) -> str:
    name = " ".join(shown.caption.split())
    if shown.map is None:
        return f"Picture: {name}." if name else ""
    values = shown.map.values
    finite = np.where(np.isfinite(values), values, 0.0)
    y, x = np.unravel_index(int(np.abs(finite).argmax()), values.shape)
    return (
        f"Heat map{': ' + name if name else ''}: positive relevance {number(float(finite[finite > 0].sum()))}, negative "
        f"{number(float(finite[finite < 0].sum()))}, strongest at row {y}, column {x}: {number(float(finite[y, x]))}."
    )


def _blurred(values: Floats, sigma: float) -> Floats:
    """A Gaussian blur, which Pillow does not have for floats."""
    if sigma <= 0:
        return values
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        padding = [(reach, reach) if a == axis else (0, 0) for a in (0, 1)]
        padded = np.pad(values, padding, mode="edge")
        values = np.apply_along_axis(lambda line: np.convolve(line, kernel, "valid"), axis, padded)
    return values


def _eroded(mask: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MinFilter(5))) > 0


def _grown(mask: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(3))) > 0
