"""The drawings of tensors' relevance: one view for each sample and each input, of a kind that suits its shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from relprop.errors import InputError
from relprop.rendering.account import account
from relprop.rendering.audio import audio
from relprop.rendering.colours import Floats
from relprop.rendering.drawing import Drawing, column, row
from relprop.rendering.frames import frames
from relprop.rendering.image import Heatmap, overlay, picture_of
from relprop.rendering.panels import Panel, strip
from relprop.rendering.scale import Scale, note, number, scale_for, to_array
from relprop.rendering.series import series
from relprop.rendering.smoothing import smoothed
from relprop.rendering.table import bar_ends, bars, waterfall
from relprop.rendering.text import TokenMap
from relprop.rendering.view import Options, View
from relprop.rendering.volume import volume
from relprop.results.numbers import Tensors, absorbed, predictions, row_of, titled, total
from relprop.trees import leaves

# How many entries of a view are listed as text; a table of all pixels helps nobody.
_LISTED = 20
_UNITS = {
    "image": "pixels", "text": "tokens", "series": "steps", "table": "features", "audio": "samples", "volume": "voxels"
}  # fmt: skip


def views(result: Tensors, options: Options) -> list[View]:
    """The views of a result, of at most `options.most` samples.

    Raises:
        InputError: the options do not fit the result.
    """
    if options.shared and options.limit is None:
        options = replace(options, limit=_shared(result, options), percentile=None)
    if options.tokens is None:
        options = replace(options, tokens=getattr(result, "tokens", None))
    inputs = dict(leaves(result.inputs)) if result.inputs is not None else {}
    found = []
    for sample in range(min(len(result), options.most)):
        for path, values in leaves(result.values):
            whole = values.ndim == 0 or values.shape[0] != len(result)
            given = inputs.get(path)
            one = values if whole else values[sample]
            shown = None if given is None else given if whole else given[sample]
            found.append(_view(result, sample, path.removeprefix("inputs"), one, shown, options))
    return found


def _shared(result: Tensors, options: Options) -> Scale:
    """One scale for all samples as they are drawn: images with their channels summed."""
    every = [leaf.cpu().double() for _, leaf in leaves(result.values) if isinstance(leaf, Tensor) and leaf.ndim]
    images = [_kind(leaf[0], options) == "image" and leaf.ndim == 4 for leaf in every]
    maps: list[Any] = [
        smoothed(to_array(one.sum(0)), options.smooth) if image else one
        for leaf, image in zip(every, images, strict=True)
        for one in leaf
    ]
    return scale_for(maps, percentile=options.percentile, pictures=all(images))


def _view(result: Tensors, sample: int, path: str, values: Tensor, given: Any, options: Options) -> View:
    kind = _kind(values, options)
    if options.smooth > 1 and kind != "image":
        raise InputError(f"smooth={options.smooth} is for pictures; this is a {kind}.")
    title = f"{titled(result, sample)}{f', input {path}' if path else ''}"
    numbers = (
        f"score {number(float(result.score[sample]))}, relevance {number(total(result, sample))}, "
        f"residual {number(float(result.residual[sample]))}; {result.composite.name}"
    )
    make = {"image": _image, "text": _text, "series": _series, "table": _table, "audio": _audio, "volume": _volume}[
        kind
    ]
    draw, entries, data, said, picture = make(result, sample, values, given, options)
    first = leaves(result.values)[0][0].removeprefix("inputs")
    kept, shown = _account(result, sample, kind, options) if path in (first, "") else ("", None)
    lines = tuple(line for line in (numbers, kept, said) if line)
    answered = _largest_outputs(result, sample)
    numbers_of = row_of(result, sample, title)
    channels = to_array(values) if kind in ("series", "audio") else None
    moving = None
    if kind == "volume":
        moving = partial(
            frames, values, given, percentile=options.percentile, limit=options.limit, colours=options.palette
        )
    # The bars of a table show what became of the score already.
    bar = None if kind == "table" else shown
    panels = _panels(data, picture, options) if kind == "image" and isinstance(data, Heatmap) else ()
    return View(
        kind,
        sample,
        title,
        lines,
        draw,
        entries,
        data,
        picture,
        answered,
        [numbers_of],
        channels,
        moving,
        bar,
        kept,
        panels,
    )


def _account(result: Tensors, sample: int, kind: str, options: Options) -> tuple[str, Drawing | None]:
    """What became of a score, as a sentence and a bar. Gradients do not add up to it."""
    if not result.composite.multiply_by_inputs:
        return "", None
    unit = _UNITS[kind] if len(leaves(result.values)) == 1 else "inputs"
    return account(row_of(result, sample, ""), unit, options.palette)


def _largest_outputs(result: Tensors, sample: int) -> str:
    found = ", ".join(f"{name} {number(value)}" for name, value in predictions(result, sample))
    return f"Largest outputs{f' of sample {sample}' if len(result) > 1 else ''}: {found}." if found else ""


def _kind(values: Tensor, options: Options) -> str:
    if options.kind is not None:
        return options.kind
    if options.tokens is not None:
        return "text"
    if options.rate is not None and max(values.shape, default=0) == values.numel():
        return "audio"
    return {2: "series", 3: "image", 4: "volume"}.get(values.ndim, "table")


_Made = tuple[Callable[[], Drawing], list[tuple[str, float]], "Heatmap | TokenMap | None", str, "Image.Image | None"]


def _image(result: Tensors, sample: int, values: Tensor, given: Any, options: Options) -> _Made:
    heatmap = Heatmap.of(
        values, percentile=options.percentile, limit=options.limit, palette=options.palette, smooth=options.smooth
    )
    remembered = getattr(result, "pictures", None)
    if options.pictures is None and remembered is not None:
        given = remembered[sample].float() / 255
    picture, said = _picture(sample, values, given, options)
    bar = _account(result, sample, "image", options)[1]

    def draw() -> Drawing:
        *pictures, alone = _panels(heatmap, picture, options)
        below = [bar] if bar is not None else []
        if not pictures:
            return column([strip([alone]), *below], 8)
        return row([column([strip(pictures), *below], 8), strip([alone])])

    return draw, _strongest(heatmap.values), heatmap, f"input: {said}" if said else "", picture


def _panels(heatmap: Heatmap, picture: Image.Image | None, options: Options) -> list[Panel]:
    """What is shown of a picture, side by side: itself, relevance on it, relevance."""
    if picture is None:
        return [Panel(heatmap)]
    given = [Panel(picture, "input", smooth=True)] if options.beside else []
    on_it = Panel(overlay(heatmap, picture), "relevance on it", heatmap, bar=False)
    return [*given, on_it, Panel(heatmap, "relevance")]


def _picture(sample: int, values: Tensor, given: Any, options: Options) -> tuple[Image.Image | None, str]:
    chosen = options.pictures
    if chosen is not None and not isinstance(chosen, Image.Image):
        if sample >= len(chosen):
            raise InputError(f"{len(chosen)} pictures for sample {sample}: give one, or one per sample.")
        chosen = chosen[sample]
    if isinstance(chosen, Image.Image):
        return chosen, ""
    if chosen is not None:
        return picture_of(chosen)
    return (None, "") if given is None or given.ndim not in (2, 3) else picture_of(given)


def _text(result: Tensors, sample: int, values: Tensor, given: Any, options: Options) -> _Made:
    tokens = options.tokens
    if tokens is None:
        raise InputError("text needs its tokens: tokens=[...], one per entry of the relevance.")
    if tokens and not isinstance(tokens[0], str):
        tokens = tokens[sample]
    shown = TokenMap.of(
        tokens, values, merge=options.merge, percentile=options.percentile, limit=options.limit, palette=options.palette
    )
    return (
        partial(shown.drawing, options.room),
        [(token.text, token.value) for token in shown.tokens],
        shown,
        shown.note,
        None,
    )


def _series(result: Tensors, sample: int, values: Tensor, given: Any, options: Options) -> _Made:
    def draw() -> Drawing:
        return series(
            values, given, names=options.names, rate=options.rate, percentile=options.percentile, limit=options.limit,
            palette=options.palette,
        )  # fmt: skip

    array = to_array(values)
    return draw, _strongest(array), _rows(array, options), note(array), None


def _table(result: Tensors, sample: int, values: Tensor, given: Any, options: Options) -> _Made:
    flat = values.reshape(-1)
    known = getattr(result, "names", None) or ()
    names = list(options.names) or (list(known) if len(known) == len(flat) else [])
    names = names or (_indices(values) if values.ndim > 1 else [])
    features = None if given is None else given.reshape(-1)
    rest = absorbed(result, sample)
    score = total(result, sample) + sum(rest.values())

    # Gradients do not add up to the score. Neither does one of several inputs, nor a value that is not finite.
    finite = bool(np.isfinite(to_array(flat)).all()) and np.isfinite(score)
    adds_up = result.composite.multiply_by_inputs and len(leaves(result.values)) == 1 and finite

    def draw() -> Drawing:
        ends = _bar_ends(result, options, adds_up)
        if not adds_up:
            return bars(flat, names, features, palette=options.palette, ends=ends)
        return waterfall(flat, score, rest, names, features, palette=options.palette, ends=ends)

    labels = names or [f"feature {i}" for i in range(len(flat))]
    return draw, list(zip(labels, flat.tolist(), strict=False)), None, note(flat), None


def _bar_ends(result: Tensors, options: Options, adds_up: bool) -> tuple[float, float] | None:
    """One scale for the bars of all samples that are drawn. Of several inputs, each has its own."""
    ((_, values), *more) = leaves(result.values)
    if more or len(result) < 2 or values.ndim == 0 or values.shape[0] != len(result):
        return None
    found = []
    for sample in range(min(len(result), options.most)):
        flat, rest = values[sample].reshape(-1), absorbed(result, sample)
        score = total(result, sample) + sum(rest.values())
        if adds_up and not np.isfinite(score):
            return None
        found.append(bar_ends(flat, score, rest) if adds_up else bar_ends(flat))
    return min(low for low, _ in found), max(high for _, high in found)


def _audio(result: Tensors, sample: int, values: Tensor, given: Any, options: Options) -> _Made:
    if given is None or options.rate is None:
        raise InputError("audio needs the sound itself (the result of a loaded folder has it) and rate=, in Hz.")
    rate = options.rate

    def draw() -> Drawing:
        return audio(values, given, rate, percentile=options.percentile, limit=options.limit, palette=options.palette)

    array = to_array(values).reshape(1, -1)
    return draw, _strongest(array), _rows(array, options), "", None


def _volume(result: Tensors, sample: int, values: Tensor, given: Any, options: Options) -> _Made:
    def draw() -> Drawing:
        return volume(values, given, percentile=options.percentile, limit=options.limit, colours=options.palette)

    array = to_array(values)
    array = array.sum(0) if array.ndim == 4 else array
    middle = int(np.nansum(np.abs(array), axis=(1, 2)).argmax())
    strongest = Heatmap.of(array[middle], percentile=options.percentile, limit=options.limit, palette=options.palette)
    return draw, _strongest(array), strongest, f"strongest slice: {middle} of {len(array)}", None


def _rows(array: Floats, options: Options) -> Heatmap:
    """Channels by time as a map for the terminal. Each row is repeated so that it can be seen."""
    rows = np.repeat(array if array.ndim == 2 else array.reshape(1, -1), 4, axis=0)
    scale = scale_for([rows], percentile=options.percentile, limit=options.limit)
    return Heatmap.of(rows, limit=scale, palette=options.palette)


def _strongest(values: Floats) -> list[tuple[str, float]]:
    flat = np.where(np.isfinite(values), values, 0.0).ravel()
    order = np.argsort(-np.abs(flat), kind="stable")[:_LISTED]
    return [(", ".join(map(str, np.unravel_index(int(i), values.shape))), float(flat[i])) for i in order if flat[i]]


def _indices(values: Tensor) -> list[str]:
    return [", ".join(map(str, index)) for index in np.ndindex(tuple(values.shape))]
