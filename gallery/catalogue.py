"""What a map of the gallery is, and how one is added to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from relprop import Relevance
from relprop.rendering import Drawing, titled
from relprop.rendering.scale import number


@dataclass(frozen=True)
class Map:
    """An entry: its chapter, heading, what is seen, and how it is drawn."""

    chapter: str
    title: str
    text: str
    draw: Callable[[], Drawing]

    @property
    def name(self) -> str:
        """Of its file."""
        return self.draw.__name__.replace("_", "-")


MAPS: list[Map] = []


def entry(chapter: str, title: str) -> Callable[[Callable[[], Drawing]], Callable[[], Drawing]]:
    """Adds a map; what is seen on it is the function's documentation."""

    def add(draw: Callable[[], Drawing]) -> Callable[[], Drawing]:
        added = Map(chapter, title, " ".join((draw.__doc__ or "").split()), draw)
        if added.name in {each.name for each in MAPS}:
            raise ValueError(f"two maps are named {added.name}: one would be written over the other")
        MAPS.append(added)
        return draw

    return add


def numbers(R: Relevance, sample: int = 0) -> str:
    """Score and residual of a sample, in words."""
    return f"score {number(float(R.score[sample]))}, residual {number(float(R.residual[sample]))}"


def headed(drawing: Drawing, R: Relevance, what: str = "", *further: str) -> Drawing:
    """A drawing under what was explained, its numbers, and its composite."""
    return titled(drawing, what or R.subject(0), lines=[f"{numbers(R)}; {R.composite.name}", *further])
