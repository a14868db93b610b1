"""The drawings of tensors' relevance: one view for each sample and each input, of a kind that suits its shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from relprop.composites import Composite
from relprop.errors import InputError
from relprop.rendering.audio import audio
from relprop.rendering.colours import Floats
from relprop.rendering.drawing import Drawing
from relprop.rendering.image import Heatmap, overlay, picture_of
from relprop.rendering.panels import Panel, strip
from relprop.rendering.scale import Scale, note, number, to_array
from relprop.rendering.series import series
from relprop.rendering.table import bars, waterfall
from relprop.rendering.text import TokenMap
from relprop.rendering.view import Options, Row, View, by_cause
from relprop.rendering.visible import visible
from relprop.rendering.volume import volume
from relprop.results.contrast import Contrast, target_at
from relprop.results.ledger import Ledger
from relprop.trees import leaves

# How many entries of a view are listed as text; a table of all pixels helps nobody.
_LISTED = 20


class _Tensors(Protocol):
    """What drawing needs of the relevance of tensors."""

    values: Any
    inputs: Any
    output: Any
    score: Tensor
    residual: Tensor
    target: Any
    labels: Sequence[str] | None
    composite: Composite
    ledger: Ledger

    def __len__(self) -> int: ...


def views(result: _Tensors, options: Options) -> list[View]:
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


def rows(result: _Tensors) -> list[Row]:
    """The numbers of every score that a result explains."""
    return [_row(result, n, _titled(result, n)) for n in range(len(result))]


def _row(result: _Tensors, sample: int, title: str) -> Row:
    score, residual = float(result.score[sample]), float(result.residual[sample])
    return Row(title, score, total(result, sample), residual, absorbed(result, sample))


def _titled(result: _Tensors, sample: int) -> str:
    """What was explained of a sample, with its number if there are several."""
    target = target_of(result, sample)
    return f"sample {sample}: {target}" if len(result) > 1 else target


def target_of(result: _Tensors, sample: int) -> str:
    """What was explained of a sample, in words: the class's name if it is known."""
    said = in_words(target_at(result.target, sample, len(result)), result.labels)
    through = target_at(getattr(result, "through", None), sample, len(result))
    return said if through is None else f"{said}, {through}"


def predictions(result: _Tensors, sample: int, count: int = 5) -> list[tuple[str, float]]:
    """The largest outputs of a sample, by name; empty unless the output is one row of scores per sample."""
    output = result.output
    if not isinstance(output, Tensor) or output.is_complex() or output.ndim != 2 or output.shape[0] != len(result):
        return []
    row = output[sample].float()
    best = row.topk(min(count, len(row)))
    return [(in_words(i, result.labels), v) for i, v in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


def total(result: _Tensors, sample: int) -> float:
    """The relevance of a sample that arrived at the inputs."""
    with np.errstate(invalid="ignore", over="ignore"):  # infinities of both signs add up to NaN
        return sum(
            float(to_array(leaf[sample] if leaf.ndim and leaf.shape[0] == len(result) else leaf).sum())
            for _, leaf in leaves(result.values)
            if isinstance(leaf, Tensor)
        )


def absorbed(result: _Tensors, sample: int) -> dict[str, float]:
    """The part of the score that did not arrive, by cause; the parts add up to the residual."""
    causes = {cause: float(amounts[sample]) for cause, amounts in result.ledger.items()}
    return by_cause(float(result.residual[sample]), causes)


def _shared(result: _Tensors, options: Options) -> Scale:
    """One scale for all samples as they are drawn: images with their channels summed."""
    every = [leaf.cpu().double() for _, leaf in leaves(result.values) if isinstance(leaf, Tensor) and leaf.ndim]
    images = [_kind(leaf[0], options) == "image" and leaf.ndim == 4 for leaf in every]
    maps = [(one.sum(0) if image else one) for leaf, image in zip(every, images, strict=True) for one in leaf]
    return Scale.of(*maps, percentile=options.percentile)


def _view(result: _Tensors, sample: int, path: str, values: Tensor, given: Any, options: Options) -> View:
    kind = _kind(values, options)
    title = f"{_titled(result, sample)}{f', input {path}' if path else ''}"
    numbers = (
        f"score {number(float(result.score[sample]))}, relevance {number(total(result, sample))}, "
        f"residual {number(float(result.residual[sample]))}; {result.composite.name}"
    )
    make = {"image": _image, "text": _text, "series": _series, "table": _table, "audio": _audio, "volume": _volume}[
        kind
    ]
    draw, entries, data, said, picture = make(result, sample, values, given, options)
    lines = tuple(line for line in (numbers, said) if line)
    answered = _largest_outputs(result, sample)
    row = _row(result, sample, title)
    channels = to_array(values) if kind in ("series", "audio") else None
    return View(kind, sample, title, lines, draw, entries, data, picture, answered, [row], channels)


def _largest_outputs(result: _Tensors, sample: int) -> str:
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


def _image(result: _Tensors, sample: int, values: Tensor, given: Any, options: Options) -> _Made:
    heatmap = Heatmap.of(values, percentile=options.percentile, limit=options.limit, palette=options.palette)
    picture, said = _picture(sample, values, given, options)

    def draw() -> Drawing:
        if picture is None:
            return strip([Panel(heatmap)])
        shown = [Panel(picture, "input", smooth=True)] if options.beside else []
        return strip([*shown, Panel(overlay(heatmap, picture), "relevance on it"), Panel(heatmap, "relevance")])

    return draw, _strongest(heatmap.values), heatmap, f"input: {said}" if said else "", picture


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


def _text(result: _Tensors, sample: int, values: Tensor, given: Any, options: Options) -> _Made:
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


def _series(result: _Tensors, sample: int, values: Tensor, given: Any, options: Options) -> _Made:
    def draw() -> Drawing:
        return series(
            values, given, names=options.names, rate=options.rate, percentile=options.percentile, limit=options.limit,
            palette=options.palette,
        )  # fmt: skip

    array = to_array(values)
    return draw, _strongest(array), _rows(array, options), note(array), None


def _table(result: _Tensors, sample: int, values: Tensor, given: Any, options: Options) -> _Made:
    flat = values.reshape(-1)
    names = list(options.names) or (_indices(values) if values.ndim > 1 else [])
    features = None if given is None else given.reshape(-1)
    rest = absorbed(result, sample)
    score = total(result, sample) + sum(rest.values())

    # Gradients do not add up to the score. Neither does one of several inputs, nor a value that is not finite.
    finite = bool(np.isfinite(to_array(flat)).all()) and np.isfinite(score)
    adds_up = result.composite.multiply_by_inputs and len(leaves(result.values)) == 1 and finite

    def draw() -> Drawing:
        if not adds_up:
            return bars(flat, names, features, palette=options.palette)
        return waterfall(flat, score, rest, names, features, palette=options.palette)

    labels = names or [f"feature {i}" for i in range(len(flat))]
    return draw, list(zip(labels, flat.tolist(), strict=False)), None, note(flat), None


def _audio(result: _Tensors, sample: int, values: Tensor, given: Any, options: Options) -> _Made:
    if given is None or options.rate is None:
        raise InputError("audio needs the sound itself (the result of a loaded folder has it) and rate=, in Hz.")
    rate = options.rate

    def draw() -> Drawing:
        return audio(values, given, rate, percentile=options.percentile, limit=options.limit, palette=options.palette)

    array = to_array(values).reshape(1, -1)
    return draw, _strongest(array), _rows(array, options), "", None


def _volume(result: _Tensors, sample: int, values: Tensor, given: Any, options: Options) -> _Made:
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
    return Heatmap.of(rows, percentile=options.percentile, limit=options.limit, palette=options.palette)


def _strongest(values: Floats) -> list[tuple[str, float]]:
    flat = np.where(np.isfinite(values), values, 0.0).ravel()
    order = np.argsort(-np.abs(flat), kind="stable")[:_LISTED]
    return [(", ".join(map(str, np.unravel_index(int(i), values.shape))), float(flat[i])) for i in order if flat[i]]


def _indices(values: Tensor) -> list[str]:
    return [", ".join(map(str, index)) for index in np.ndindex(tuple(values.shape))]


def in_words(target: Any, labels: Sequence[str] | None) -> str:
    """A target in words."""
    if isinstance(target, Contrast):
        return f"{in_words(target.positive, labels)} rather than {in_words(target.negative, labels)}"
    if isinstance(target, Tensor) and target.numel() == 1:
        target = target.item()
    if target is None:
        return "the output"
    if isinstance(target, int) and labels is not None and 0 <= target < len(labels):
        return f"{visible(labels[target])} ({target})"
    if callable(target):
        return f"target {visible(getattr(target, '__name__', 'function'))}"
    return visible(target) if isinstance(target, str) else f"target {visible(target)}"
