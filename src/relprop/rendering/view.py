"""Views (what is drawn of one input of a result), and the drawing options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from relprop.errors import InputError
from relprop.rendering.colours import RED_BLUE, Floats, Palette
from relprop.rendering.drawing import Drawing
from relprop.rendering.image import Heatmap
from relprop.rendering.matrix import TokenMatrix
from relprop.rendering.panels import Panel
from relprop.rendering.scale import Scale, number
from relprop.rendering.table import UNKNOWN
from relprop.rendering.text import TokenMap
from relprop.signatures import public_class

KINDS = ("image", "text", "series", "table", "audio", "volume")


ELSEWHERE = {
    "dpi": "It belongs to save: R.save('map.png', width='170mm', dpi=300). Elsewhere scale=2 draws twice as many pixels.",
    "figsize": "The size in a file is R.save('map.png', width='170mm'), or in pixels width=800.",
    "cmap": 'Colours are chosen by palette="red_blue", "orange_purple" or "grey".',
    "vmax": "The end of a scale is limit=, a number, or percentile=.",
    "vmin": "Scales end at the same number on both sides: limit=, or percentile=.",
}


@public_class("relprop.rendering.Options", ELSEWHERE)
@dataclass(frozen=True)
class Options:
    """How results are drawn. Every output takes these as keyword arguments.

    Attributes:
        kind: "image", "text", "series", "table", "audio" or "volume". None chooses by the shape: `(N, C, H, W)` are
            images, `(N, C, T)` series, `(N, F)` tables, `(N, C, D, H, W)` volumes; with `tokens`, texts, and with
            `rate`, sounds of one channel.
        names: the names of the features of a table, or of the channels of a series.
        tokens: the tokens of a text, one list for all samples or one per sample. Relevance is `(N, T)` or `(N, T, D)`.
            None takes those of the result.
        pictures: what maps are drawn on: one Pillow image, or one per sample. None takes the input itself.
        rate: samples per second of a sound or a series.
        percentile: end of each scale, as a percentile of absolute relevance. A note counts the values beyond it. None
            is the usual scale: of pictures and volumes it ends at percentile 99.5 of the values that are not 0; that of
            others at the largest size. 100 clips nothing.
        limit: end of every scale, as a number or a `Scale`.
        shared: whether all samples have one scale.
        palette: "red_blue", "orange_purple" or "grey".
        most: the number of samples to draw. The output says how many are left out.
        beside: whether an image's input is drawn next to its map.
        merge: whether the tokens of a word are joined, and their relevance added up.
        room: the length of a text's lines, or the width of a comparison, in drawings, in pixels.
        smooth: the side of a box, in pixels, over which each pixel of a picture's map is spread evenly. The total stays.
            It evens out the dots that a first layer with a stride leaves.

    Raises:
        InputError: an option has no valid value.
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
    smooth: int = 1

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise InputError(f"there is no kind {self.kind!r} of input; there are: {', '.join(KINDS)}.")
        if not isinstance(self.most, int) or self.most < 1:
            raise InputError(f"most is {self.most!r}; at least one sample is drawn: an int above 0.")
        if not isinstance(self.smooth, int) or isinstance(self.smooth, bool) or self.smooth < 1:
            raise InputError(f"smooth is {self.smooth!r}; it is the side of a box in pixels: an int above 0.")
        for name in ("rate", "percentile", "room"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) and not (value is None and name != "room"):
                raise InputError(f"{name} is {value!r}; it must be a number.")
        if not isinstance(self.limit, (int, float, Scale, type(None))):
            raise InputError(f"limit is {self.limit!r}; it must be a number, or the Scale of another drawing.")
        if self.percentile is not None and not 0.0 < self.percentile <= 100.0:
            raise InputError(f"percentile is {self.percentile}; it lies above 0 and up to 100.")


@dataclass(frozen=True)
class Row:
    """The numbers of one explained score.

    Attributes:
        explained: what was explained.
        score: its score.
        relevance: the relevance that arrived at the inputs.
        residual: the part of the score that did not.
        absorbed: the residual by cause; the parts add up to it.
        probability: the probability that the model gives it, if known.
    """

    explained: str
    score: float
    relevance: float
    residual: float
    absorbed: dict[str, float]
    probability: float | None = None

    @property
    def title(self) -> str:
        """What was explained, with its probability."""
        sure = "" if self.probability is None else f", probability {chance(self.probability)}"
        return f"{self.explained}{sure}"


def chance(probability: float) -> str:
    """A probability for people. Rounding to three digits would turn a high one into certainty."""
    return ">0.999" if probability > 0.9995 else number(probability)


def by_cause(rest: float, causes: dict[str, float]) -> dict[str, float]:
    """A residual by cause, if the causes are known. The parts add up to it."""
    if not causes:
        return {UNKNOWN: rest}
    largest = max(abs(rest), *map(abs, causes.values()))
    # Amounts below the rounding error of float32 go into the last entry, as does the rounding itself.
    kept = {cause: amount for cause, amount in causes.items() if abs(amount) > 1e-5 * largest}
    unknown = rest - sum(kept.values())
    if unknown:
        name = "rounding" if abs(unknown) < 1e-3 * largest else "other constants"
        kept[name] = kept.get(name, 0.0) + unknown
    return kept


@dataclass(frozen=True, eq=False)
class View:
    """One input of one sample.

    Attributes:
        kind: the kind of drawing.
        sample: the index of the sample.
        title: what was explained.
        lines: lines of text with its numbers.
        draw: makes the drawing.
        entries: names and values, for lists: all of a text or a table, the strongest of others.
        data: the map, text or matrix, for outputs that do not use the drawing.
        picture: the picture under an image's map.
        said: the model's answer, in words.
        rows: the numbers of the scores that it explains.
        series: the relevance of a series or a sound, channels by steps.
        frames: makes the frames of an animation, of a volume or a video.
        account: what became of the score, as a bar; None where nothing adds up to it, or the drawing ends at the score.
        kept: the same as a sentence.
        panels: the pictures of an image, side by side: the input, relevance on it, and relevance.
        cells: of a comparison, the views by row and column.
        unit: what the entries of a table are, in the plural.
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
    series: Floats | None = None
    frames: Callable[[], list[Drawing]] | None = None
    account: Drawing | None = None
    kept: str = ""
    panels: Sequence[Panel] = ()
    cells: Mapping[tuple[str, str], View] = field(default_factory=dict)
    unit: str = "features"
