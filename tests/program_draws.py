"""An operation of random programs, and what is drawn at random for each use of it.

A spelling is a line or more of Python. `{y}` is the result, `{a}` and `{b}` the operands, `{t}` an operand that the line
may write into (the result is `{t}` then), `{n}` a number of its own for helpers, and every other name a setting, or a
constant that the model owns. A line that begins with `@` belongs into `__init__`. The first spelling is the plainest.

Every axis but the first is the operation's to use: what a program does with a sample does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

Shape = tuple[int, ...]
Drawn = tuple[dict[str, Any], dict[str, tuple[str, Shape]]]
"""Settings, and constants: each of a kind (see `programs.constant`) and a shape."""


class Operation(NamedTuple):
    arity: int
    fits: Callable[..., bool]
    """Whether it can take operands of these shapes, those of one sample."""
    draw: Callable[..., Drawn]
    spellings: tuple[str, ...]
    exact: bool = True
    """Whether LRP-0 is input times gradient on it: it is linear, or relu's like, or picks among its operands."""
    aliases: bool = False
    """Whether the result may share its memory with the operand."""
    digits: int = 15
    """How many digits of a number it keeps."""


def anything(*shapes: Shape) -> bool:
    return True


def deep(n: int) -> Callable[[Shape], bool]:
    return lambda s: len(s) == n


def at_least(n: int) -> Callable[[Shape], bool]:
    return lambda s: len(s) >= n


def alike(a: Shape, b: Shape) -> bool:
    return a == b


def nothing(random: Random, *shapes: Shape) -> Drawn:
    return {}, {}


def number(*among: float) -> Callable[..., Drawn]:
    return lambda random, *shapes: ({"k": random.choice(among)}, {})


def axis(random: Random, s: Shape) -> Drawn:
    """An axis of the sample, counted from the front or from the back."""
    d = random.randrange(len(s))
    return {"d": random.choice((d + 1, d - len(s))), "size": s[d]}, {}


def constant(where: str, kind: str = "any") -> Callable[..., Drawn]:
    """A constant along the last axis, along the channels, or of the whole sample's shape."""

    def draw(random: Random, s: Shape, *rest: Shape) -> Drawn:
        return {}, {"c": (kind, {"last": s[-1:], "channel": (s[0],) + (1,) * (len(s) - 1), "whole": s}[where])}

    return draw


def slices(random: Random, s: Shape) -> Drawn:
    cut = random.randrange(1, s[0])
    return {"i": cut, "rest": s[0] - cut, "k": random.choice((2.0, -0.5))}, {}


def rows(random: Random, s: Shape) -> Drawn:
    """Which entries of the first axis: some twice, some never."""
    picked = tuple(random.randrange(s[0]) for _ in range(random.randint(1, 4)))
    return {"picked": picked, "count": len(picked), "ones": (1,) * (len(s) - 1), "tail": s[1:]}, {}


def dense(random: Random, s: Shape) -> Drawn:
    o = random.randint(1, 4)
    return {"i": s[-1], "o": o}, {"w": ("weight", (o, s[-1])), "v": ("any", (o,))}


def filters(dims: int, turned: bool = False) -> Callable[[Random, Shape], Drawn]:
    def draw(random: Random, s: Shape) -> Drawn:
        o, k = random.randint(1, 4), random.randint(1, 2)
        p = random.choice((0, 0, 1)) if k == 2 else 0
        settings = {"i": s[0], "o": o, "k": k, "p": p, "s": random.choice((1, 1, 2))}
        ends = (s[0], o) if turned else (o, s[0])
        return settings, {"w": ("weight", (*ends, *[k] * dims)), "v": ("any", (o,))}

    return draw


def statistics(random: Random, s: Shape) -> Drawn:
    kinds = {"m": "mean", "var": "variance", "g": "any", "v": "any"}
    return {"i": s[0], "ones": (1,) * (len(s) - 1)}, {name: (kind, (s[0],)) for name, kind in kinds.items()}


def attention(random: Random, s: Shape) -> Drawn:
    d = random.randint(2, 3)
    return {"root": d**0.5}, {name: ("weight", (s[1], d)) for name in "qkv"}


def norm(random: Random, s: Shape) -> Drawn:
    return {"i": s[-1], "eps": 0.05}, {"g": ("any", s[-1:]), "v": ("any", s[-1:])}


def recurrent(random: Random, s: Shape) -> Drawn:
    h = random.randint(2, 3)
    shapes = {"u": (h, s[1]), "w": (h, h), "p": (h,), "q": (h,)}
    return {"i": s[1], "h": h}, {name: ("weight", shape) for name, shape in shapes.items()}
