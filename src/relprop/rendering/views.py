"""From a result to what is drawn of it: one view for each sample and each input, of a kind that suits its shape.

Results of texts say themselves what is drawn of them (`Viewed`): this package knows tensors, not texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch import Tensor

from relprop.attribution import Contrast, Relevance
from relprop.attribution.identity import Identity
from relprop.attribution.targets import target_at
from relprop.attribution.trees import leaves
from relprop.composites import Composite, Place
from relprop.errors import InputError
from relprop.rendering.audio import audio
from relprop.rendering.colours import RED_BLUE, Floats, Palette
from relprop.rendering.drawing import Drawing, column, framed, titled
from relprop.rendering.image import Heatmap, Panel, overlay, picture_of, strip
from relprop.rendering.matrix import TokenMatrix
from relprop.rendering.scale import Scale, note, number, to_array
from relprop.rendering.series import series
from relprop.rendering.table import bars, waterfall
from relprop.rendering.text import TokenMap
from relprop.rendering.visible import visible
from relprop.rendering.volume import volume
from relprop.rules import Rule
from relprop.signatures import public

KINDS = ("image", "text", "series", "table", "audio", "volume")
# Entries of a view that are listed as text; a table of all pixels helps nobody.
_LISTED = 20


@dataclass(frozen=True)
class Options:
    """How results are drawn; every output takes these as keyword arguments.

    Attributes:
        kind: "image", "text", "series", "table", "audio" or "volume"; None goes by the shape: `(N, C, H, W)` are
            images, `(N, C, T)` series, `(N, F)` tables, `(N, C, D, H, W)` volumes.
        names: of the features of a table, or of the channels of a series.
        tokens: of a text, one list for all samples or one per sample; relevance is `(N, T)` or `(N, T, D)`. None takes
            those that the result has.
        pictures: what images are shown on: one Pillow image, or one per sample. None shows the input itself.
        rate: samples per second of sound or of a series.
        percentile: end of each scale, as a percentile of the sizes; what is beyond is counted in its note.
        limit: end of each scale, a number or another `Scale`: the same for all.
        shared: one scale for all samples.
        palette: "red_blue", "orange_purple" or "grey".
        most: samples that are drawn; how many were left out is said.
        beside: whether an image's input is drawn beside its map.
        merge: whether the tokens of a word are joined, and their relevance added up.
        room: pixels that the lines of a text are long, in drawings.
    """

    kind: str | None = None
    names: Sequence[str] = ()
    tokens: Sequence[Any] | None = None
    pictures: Any = None
    rate: float | None = None
    percentile: float | None = None
    limit: float | Scale | None = None
    shared: bool = False
    palette: Palette | str = RED_BLUE
    most: int = 8
    beside: bool = True
    merge: bool = False
    room: float = 720

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise InputError(f"there is no kind {self.kind!r} of input; there are: {', '.join(KINDS)}.")
        if not isinstance(self.most, int) or self.most < 1:
            raise InputError(f"most is {self.most!r}; at least one sample is drawn: an int above 0.")
        for name in ("rate", "percentile", "room"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) and not (value is None and name != "room"):
                raise InputError(f"{name} is {value!r}; it must be a number.")
        if not isinstance(self.limit, (int, float, Scale, type(None))):
            raise InputError(f"limit is {self.limit!r}; it must be a number, or the Scale of another drawing.")
        if self.percentile is not None and not 0.0 < self.percentile <= 100.0:
            raise InputError(f"percentile is {self.percentile}; it lies above 0 and up to 100.")


ELSEWHERE = {
    "dpi": "Drawings are made of pixels: scale=2 draws twice as many, in to_image and in save to a .png.",
    "figsize": "Drawings are as large as what they show: scale=2 draws twice as many pixels, in to_image and in save to a .png.",
    "cmap": 'Colours are chosen by palette="red_blue", "orange_purple" or "grey".',
    "vmax": "The end of a scale is limit=, a number, or percentile=.",
    "vmin": "Scales end at the same number on both sides: limit=, or percentile=.",
}
Options.__init__ = public("relprop.rendering.Options", ELSEWHERE)(Options.__init__)  # type: ignore[method-assign]


@dataclass(frozen=True)
class Row:
    """The numbers of one explained score.

    Attributes:
        explained: what it was.
        score: of the model.
        relevance: what of it arrived at the inputs.
        residual: what did not.
        absorbed: the residual by its causes; they add up to it.
        probability: how sure the model was of it, where that is known.
    """

    explained: str
    score: float
    relevance: float
    residual: float
    absorbed: dict[str, float]
    probability: float | None = None

    @property
    def title(self) -> str:
        """What it was, and how sure the model was of it."""
        sure = "" if self.probability is None else f", probability {chance(self.probability)}"
        return f"{self.explained}{sure}"


def chance(probability: float) -> str:
    """A probability for people; three digits would round a good one to certainty."""
    return ">0.999" if probability > 0.9995 else number(probability)


@dataclass(frozen=True, eq=False)
class View:
    """One input of one sample.

    Attributes:
        kind: what it is drawn as.
        sample: its number.
        title: what was explained.
        lines: its numbers, in words.
        draw: draws it.
        entries: names and values, for text: all of a text or a table, the strongest of others.
        data: the map, the text or the matrix, for where it is not drawn.
        picture: what an image is shown on.
        said: what the model answered, in words.
        rows: the numbers of the scores that it is about.
    """

    kind: str
    sample: int
    title: str
    lines: tuple[str, ...]
    draw: Callable[[], Drawing]
    entries: list[tuple[str, float]] = field(default_factory=list)
    data: Heatmap | TokenMap | TokenMatrix | None = None
    picture: Image.Image | None = None
    said: str = ""
    rows: Sequence[Row] = ()


class Viewed(Protocol):
    """A result that says itself what is drawn of it."""

    composite: Composite
    rules: list[tuple[Place, Rule | None]]
    unknown: dict[str, int]
    model: Identity | None

    def views(self, options: Options) -> list[View]:
        """What is drawn of it."""

    def rows(self) -> list[Row]:
        """The numbers of its scores."""


Result = Relevance | Viewed


def views(result: Result, options: Options) -> list[View]:
    """The views of a result, at most `options.most` samples of it.

    Raises:
        InputError: the options do not fit the result.
    """
    if not isinstance(result, Relevance):
        return result.views(options)
    if options.shared and options.limit is None:
        options = replace(options, limit=_shared(result, options), percentile=None)
    if options.tokens is None and getattr(result, "tokens", None) is not None:
        options = replace(options, tokens=result.tokens)  # type: ignore[attr-defined]
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


def rows(result: Result) -> list[Row]:
    """The numbers of every score that a result explains."""
    if not isinstance(result, Relevance):
        return result.rows()
    several = len(result) > 1
    return [
        Row(
            f"sample {n}: {target_of(result, n)}" if several else target_of(result, n),
            float(result.score[n]), total(result, n), float(result.residual[n]), absorbed(result, n),
        )
        for n in range(len(result))
    ]  # fmt: skip


def left_out(result: Result, options: Options) -> int:
    """How many samples are not drawn."""
    return max(len(result) - options.most, 0) if isinstance(result, Relevance) else 0


def drawing(result: Result, options: Options) -> Drawing:
    """All views below each other, each under what was explained and its numbers."""
    parts = [titled(view.draw(), view.title, lines=view.lines) for view in views(result, options)]
    if more := left_out(result, options):
        parts.append(titled(Drawing(300, 1), "", lines=[f"{more} more samples are not drawn (most=)"]))
    return framed(column(parts, 20))


def target_of(result: Relevance, sample: int) -> str:
    """What was explained of a sample, in words: the class's name where it is known."""
    return _in_words(target_at(result.target, sample, len(result)), result.labels)


def predictions(result: Relevance, sample: int, count: int = 5) -> list[tuple[str, float]]:
    """The largest outputs of a sample by name, where the output is one row of scores."""
    output = result.output
    if not isinstance(output, Tensor) or output.is_complex() or output.ndim != 2 or output.shape[0] != len(result):
        return []
    row = output[sample].float()
    best = row.topk(min(count, len(row)))
    return [(_in_words(i, result.labels), v) for i, v in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


def total(result: Relevance, sample: int) -> float:
    """The relevance of a sample that arrived at the inputs."""
    with np.errstate(invalid="ignore", over="ignore"):  # infinities of both signs add up to no number
        return sum(
            float(to_array(leaf[sample] if leaf.ndim and leaf.shape[0] == len(result) else leaf).sum())
            for _, leaf in leaves(result.values)
            if isinstance(leaf, Tensor)
        )


def absorbed(result: Relevance, sample: int) -> dict[str, float]:
    """What of the score did not arrive, by its causes; the parts add up to the residual."""
    causes = {cause: float(amounts[sample]) for cause, amounts in result.ledger.items()}
    return by_cause(float(result.residual[sample]), causes)


def by_cause(rest: float, causes: dict[str, float]) -> dict[str, float]:
    """A residual by its causes, where they are known; the parts add up to it."""
    if not causes:
        return {"absorbed by constants": rest}
    largest = max(abs(rest), *map(abs, causes.values()))
    # What is smaller than the rounding of float32 is left to the last entry, with the rounding itself.
    kept = {cause: amount for cause, amount in causes.items() if abs(amount) > 1e-5 * largest}
    unknown = rest - sum(kept.values())
    if unknown:
        name = "rounding" if abs(unknown) < 1e-3 * largest else "other constants"
        kept[name] = kept.get(name, 0.0) + unknown
    return kept


def _shared(result: Relevance, options: Options) -> Scale:
    """The scale of all samples, as they are drawn: images with their channels summed."""
    every = [leaf.cpu().double() for _, leaf in leaves(result.values) if isinstance(leaf, Tensor) and leaf.ndim]
    images = [_kind(leaf[0], options) == "image" and leaf.ndim == 4 for leaf in every]
    maps = [(one.sum(0) if image else one) for leaf, image in zip(every, images, strict=True) for one in leaf]
    return Scale.of(*maps, percentile=options.percentile)


def _view(result: Relevance, sample: int, path: str, values: Tensor, given: Any, options: Options) -> View:
    kind = _kind(values, options)
    title = f"{target_of(result, sample)}{f', input {path}' if path else ''}"
    if len(result) > 1:
        title = f"sample {sample}: {title}"
    numbers = (
        f"score {number(float(result.score[sample]))}, relevance {number(total(result, sample))}, "
        f"residual {number(float(result.residual[sample]))}; {result.composite.name}"
    )
    make = {"image": _image, "text": _text, "series": _series, "table": _table, "audio": _audio, "volume": _volume}[
        kind
    ]
    draw, entries, data, said, picture = make(result, sample, values, given, options)
    lines = tuple(line for line in (numbers, said) if line)
    row = replace(rows(result[sample])[0], explained=title)
    return View(kind, sample, title, lines, draw, entries, data, picture, _largest_outputs(result, sample), [row])


def _largest_outputs(result: Relevance, sample: int) -> str:
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


def _image(result: Relevance, sample: int, values: Tensor, given: Any, options: Options) -> _Made:
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


def _text(result: Relevance, sample: int, values: Tensor, given: Any, options: Options) -> _Made:
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


def _series(result: Relevance, sample: int, values: Tensor, given: Any, options: Options) -> _Made:
    def draw() -> Drawing:
        return series(
            values, given, names=options.names, rate=options.rate, percentile=options.percentile, limit=options.limit,
            palette=options.palette,
        )  # fmt: skip

    array = to_array(values)
    return draw, _strongest(array), _rows(array, options), note(array), None


def _table(result: Relevance, sample: int, values: Tensor, given: Any, options: Options) -> _Made:
    flat = values.reshape(-1)
    names = list(options.names) or (_indices(values) if values.ndim > 1 else [])
    features = None if given is None else given.reshape(-1)
    rest = absorbed(result, sample)
    score = total(result, sample) + sum(rest.values())

    # Gradients do not add up to the score, and one of several inputs alone does not; nor does what is no number.
    finite = bool(np.isfinite(to_array(flat)).all()) and np.isfinite(score)
    adds_up = result.composite.multiply_by_inputs and len(leaves(result.values)) == 1 and finite

    def draw() -> Drawing:
        if not adds_up:
            return bars(flat, names, features, palette=options.palette)
        return waterfall(flat, score, rest, names, features, palette=options.palette)

    labels = names or [f"feature {i}" for i in range(len(flat))]
    return draw, list(zip(labels, flat.tolist(), strict=False)), None, note(flat), None


def _audio(result: Relevance, sample: int, values: Tensor, given: Any, options: Options) -> _Made:
    if given is None or options.rate is None:
        raise InputError("audio needs the sound itself (the result of a loaded folder has it) and rate=, in Hz.")
    rate = options.rate

    def draw() -> Drawing:
        return audio(values, given, rate, percentile=options.percentile, limit=options.limit, palette=options.palette)

    array = to_array(values).reshape(1, -1)
    return draw, _strongest(array), _rows(array, options), "", None


def _volume(result: Relevance, sample: int, values: Tensor, given: Any, options: Options) -> _Made:
    def draw() -> Drawing:
        return volume(values, given, percentile=options.percentile, limit=options.limit, colours=options.palette)

    array = to_array(values)
    array = array.sum(0) if array.ndim == 4 else array
    middle = int(np.nansum(np.abs(array), axis=(1, 2)).argmax())
    strongest = Heatmap.of(array[middle], percentile=options.percentile, limit=options.limit, palette=options.palette)
    return draw, _strongest(array), strongest, f"strongest slice: {middle} of {len(array)}", None


def _rows(array: Floats, options: Options) -> Heatmap:
    """Channels by time as a map, for the terminal; each row is repeated to be seen."""
    rows = np.repeat(array if array.ndim == 2 else array.reshape(1, -1), 4, axis=0)
    return Heatmap.of(rows, percentile=options.percentile, limit=options.limit, palette=options.palette)


def _strongest(values: Floats) -> list[tuple[str, float]]:
    flat = np.where(np.isfinite(values), values, 0.0).ravel()
    order = np.argsort(-np.abs(flat), kind="stable")[:_LISTED]
    return [(", ".join(map(str, np.unravel_index(int(i), values.shape))), float(flat[i])) for i in order if flat[i]]


def _indices(values: Tensor) -> list[str]:
    return [", ".join(map(str, index)) for index in np.ndindex(tuple(values.shape))]


def _in_words(target: Any, labels: Sequence[str] | None) -> str:
    if isinstance(target, Contrast):
        return f"{_in_words(target.positive, labels)} rather than {_in_words(target.negative, labels)}"
    if isinstance(target, Tensor) and target.numel() == 1:
        target = target.item()
    if target is None:
        return "the output"
    if isinstance(target, int) and labels is not None and 0 <= target < len(labels):
        return f"{visible(labels[target])} ({target})"
    if callable(target):
        return f"target {visible(getattr(target, '__name__', 'function'))}"
    return visible(target) if isinstance(target, str) else f"target {visible(target)}"
