"""The marks that make up a drawing: rectangles, lines, text and pictures. Coordinates are pixels, y down."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from PIL import Image

from relprop.rendering.visible import visible

INK, FAINT, LINE, PAPER = "#141414", "#696969", "#c8c8c8", "#ffffff"
SIZE, SMALL = 13, 11


@dataclass(frozen=True)
class Rect:
    """A rectangle with a fill, an edge, both or neither (a place to hover over). `title` is shown on hover."""

    x: float
    y: float
    width: float
    height: float
    fill: str | None = None
    edge: str | None = None
    title: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", visible(self.title))


@dataclass(frozen=True)
class Line:
    """A line through points."""

    points: tuple[tuple[float, float], ...]
    colour: str = INK
    width: float = 1.0
    dashed: bool = False


@dataclass(frozen=True)
class Text:
    """One line of text. `y` is the top of its letters, and `anchor` says which part of it is at `x`.

    With `upwards` it runs from bottom to top, starting at `y`, and `x` is the top of its letters.
    """

    x: float
    y: float
    text: str
    size: int = SIZE
    colour: str = INK
    anchor: str = "start"
    upwards: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", visible(self.text))


@dataclass(frozen=True)
class Picture:
    """A picture stretched over a rectangle, smoothly for photographs, else by whole pixels."""

    x: float
    y: float
    width: float
    height: float
    image: Image.Image = field(repr=False)
    smooth: bool = False
    title: str = ""


Mark = Rect | Line | Text | Picture


def moved(mark: Mark, x: float, y: float) -> Mark:
    """The mark at another place."""
    if isinstance(mark, Line):
        return replace(mark, points=tuple((px + x, py + y) for px, py in mark.points))
    return replace(mark, x=mark.x + x, y=mark.y + y)
