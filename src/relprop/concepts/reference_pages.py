"""Pictures of concepts: references of units cut to where they looked, and the units of one explanation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from relprop.concepts.conditional import conditional, explained
from relprop.concepts.snippets import is_series, is_text, lines, snippets, time_axis, tokens_of
from relprop.errors import InputError
from relprop.rendering.drawing import Drawing, column, framed, row, titled
from relprop.rendering.image import Heatmap, overlay, picture_of
from relprop.rendering.panels import Panel, panel
from relprop.rendering.scale import number, scale_for
from relprop.rendering.series import series
from relprop.rendering.text import Token, TokenMap
from relprop.results.files.drawings import save_drawing
from relprop.trees import batch_of

SIDE = 150
"""The height of a picture, in pixels."""
ROOM, WIDE, STRETCH = 640, 340, 220
"""The length of lines of text, of a series, and of stretches of one, in pixels."""


def references(unit: Any, by: str, most: int) -> Drawing:
    """The references of a unit: crops of pictures side by side, snippets of texts one below the other.

    Raises:
        InputError: the index has no model and data at hand, or the samples are of another kind.
    """
    classes = ", ".join(f"{c} ({share:.1%})" for c, share in unit.classes(3))
    return framed(
        titled(
            _drawn(unit, by, most), f"{unit.layer}, unit {unit.unit}", lines=[f"most relevance in classes {classes}"]
        )
    )


def _drawn(unit: Any, by: str, most: int) -> Drawing:
    index = unit.index
    if index.model is None or index.dataset is None:
        raise InputError("pictures need the model and the data: relprop.load_index(folder, model, dataset).")
    item = index.dataset[index.about["rows"][0][0]]
    x = item[0] if isinstance(item, (tuple, list)) else item
    if is_text(x):
        return column(_texts(unit, by, most), gap=8)
    return _in_rows(_stretches(unit, by, most)) if is_series(x) else row(crops(unit, by, most))


def _texts(unit: Any, by: str, most: int) -> list[Drawing]:
    """Snippets of texts, with the token that counts in a frame."""
    found = []
    for one in snippets(unit, by, most, None):
        tokens = [Token(name, float(value)) for name, value in zip(one.tokens or [], one.relevance, strict=True)]
        shown = _tokens(tokens).drawing(ROOM, bar=False, marked=one.position - one.start)
        found.append(titled(shown, "", lines=[_said(one.sample, one.label, f"token {one.position}", one.value)]))
    return found


def _tokens(tokens: list[Token]) -> TokenMap:
    return TokenMap(tuple(tokens), scale_for([[one.value for one in tokens]]))


def _stretches(unit: Any, by: str, most: int) -> list[Drawing]:
    """Stretches of series, over their relevance."""
    found = []
    for one in snippets(unit, by, most, None):
        shown = series(one.relevance, one.content, wide=STRETCH, high=_high(one.content), start=one.start, bar=False)
        said = _said(one.sample, one.label, f"steps {one.start} to {one.stop - 1}", one.value)
        found.append(titled(shown, "", lines=[said]))
    return found


def _in_rows(drawings: list[Drawing]) -> Drawing:
    return column([row(drawings[n : n + 3], gap=18) for n in range(0, len(drawings), 3)])


def _high(content: Tensor) -> float:
    """The height of each channel."""
    return max(14.0, min(80.0, 160.0 / len(content)))


def _said(sample: int, label: int | None, where: str, value: float) -> str:
    of = "" if label is None else f", class {label}"
    return f"sample {sample}{of}, {where}: {number(value)}"


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
        own: what is specific to each: its map minus the multiple of the layer's map that is nearest to it.
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
    one = x[0] if isinstance(x, Tensor) and x.ndim > 1 and batch_of(x) == 1 else None
    if one is None or not (is_text(one) or is_series(one) or one.ndim == 3):
        raise InputError(
            "concepts are drawn for one picture, text (1, T) or series (1, C, T) at a time: R[0].concepts(index)."
        )
    if index.model is None:
        raise InputError("pictures need the model and the data: relprop.load_index(folder, model, dataset).")
    path = layer if layer is not None else next(iter(index.layers))
    if path not in index.layers:
        raise InputError(f"the index has no layer {path!r}. It has: {', '.join(index.layers)}.")
    axis = index.layers[path].axis
    (whole,) = explained(index, x, [result.target], layers=[path])
    of_units = _of_layer(whole, path).movedim(axis, 0).unsqueeze(-1).flatten(1).sum(1)
    order = of_units.abs().argsort(descending=True, stable=True)[:most].tolist()
    *found, of_layer = conditional(index, x, result.target, path, order, layer_too=True)
    maps = torch.cat(found)
    own = own_of(maps, of_layer[0])
    shares = (of_units[order] / of_units.abs().sum()).tolist()
    draw = _page_of_pictures if one.ndim == 3 else _page_of_lines
    head, rows = draw(index, path, one, whole.values[0], maps, own)
    titles = [f"unit {unit}: {share:.1%}" for unit, share in zip(order, shares, strict=True)]
    parts = [
        titled(drawn(index[path, unit], count), title, size=13)
        for unit, title, drawn in zip(order, titles, rows, strict=True)
    ]
    drawing = framed(titled(column([head, *parts], gap=18), f"{result.subject(0)}: units of {path}"))
    return Concepts(path, order, shares, maps, own, drawing)


def own_of(maps: Tensor, of_layer: Tensor) -> Tensor:
    """What is specific to each unit: its map minus the multiple of the whole layer's map that is nearest to it.

    A map that looks like the layer's leaves nothing. The ratio of their sums would do as well where all relevance has one sign;
    where signs cancel, it may be of any size.
    """
    flat, layer = maps.flatten(1).double(), of_layer.flatten().double()
    nearest = (flat @ layer) / (layer @ layer).clamp(min=1e-300)
    own: Tensor = (flat - nearest[:, None] * layer).reshape(maps.shape).to(maps)
    return own


def _of_layer(whole: Any, path: str) -> Tensor:
    """The relevance of the layer's output for the one sample; of a recurrent layer, that of its output sequence."""
    found = whole.layers[path]
    first: Tensor = found[0] if isinstance(found, list) else found
    return first[0]


Rows = list[Callable[[Any, int], Drawing]]
"""What draws the row of each unit: from the unit of the index, and the number of references."""


def _page_of_pictures(
    index: Any, path: str, x: Tensor, whole: Tensor, maps: Tensor, own: Tensor
) -> tuple[Drawing, Rows]:
    """The input with all relevance; and for each unit its map, what is its own, and its references."""
    picture, _ = picture_of(x)
    every = panel(Panel(overlay(Heatmap.of(whole), picture), "all relevance"), height=SIDE)
    head = row([panel(Panel(picture, "input", smooth=True), height=SIDE), every])

    def drawn(unit: Any, count: int, n: int) -> Drawing:
        pair = [
            panel(Panel(overlay(Heatmap.of(values), picture), said), height=SIDE, bar=False)
            for values, said in ((maps[n], "relevance through it"), (own[n], "what is its own"))
        ]
        return row([*pair, *(crops(unit, "relevance", count) if index.dataset is not None else [])])

    return head, [partial(drawn, n=n) for n in range(len(maps))]


def _page_of_lines(index: Any, path: str, x: Tensor, whole: Tensor, maps: Tensor, own: Tensor) -> tuple[Drawing, Rows]:
    """The same for a text or a series, whose maps are one below the other."""
    if is_text(x):
        names = tokens_of(index, x.tolist())

        def one(values: Tensor, bar: bool = False) -> Drawing:
            tokens = [Token(name, float(value)) for name, value in zip(names, values, strict=True)]
            return _tokens(tokens).drawing(ROOM, bar=bar)
    else:
        time = time_axis(index, path)

        def one(values: Tensor, bar: bool = False) -> Drawing:
            return series(lines(values, time), lines(x, time), wide=WIDE, high=_high(lines(x, time)), bar=bar)

    def drawn(unit: Any, count: int, n: int) -> Drawing:
        pair = [
            titled(one(values), "", lines=[said])
            for values, said in ((maps[n], "relevance through it"), (own[n], "what is its own"))
        ]
        if is_text(x):
            return column([*pair, *(_texts(unit, "relevance", count) if index.dataset is not None else [])], gap=8)
        found = _stretches(unit, "relevance", count) if index.dataset is not None else []
        return column([row(pair, gap=18), _in_rows(found)], gap=8)

    return titled(one(whole, bar=True), "", lines=["all relevance"]), [partial(drawn, n=n) for n in range(len(maps))]
