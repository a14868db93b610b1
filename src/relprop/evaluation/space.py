"""The space of composites that a search goes through: rules for each part of a network, by what it is made of."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from relprop.composites import Composite, Place, first, last, where
from relprop.composites.places import Path
from relprop.errors import InputError
from relprop.rules import Constant, Epsilon, Flat, Gamma, Gate, Rule, Temperature, WSquare, ZBox, Zero, ZPlus

DEPTHS = 3


@dataclass(frozen=True)
class Choice:
    """Rules for one part of a network, one of which is chosen.

    Attributes:
        part: the part, as the code of a key in a composite, such as `relprop.first` or `"conv"`.
        key: the key itself.
        rules: the rules; None leaves the part to the entries that follow, or to its default.
    """

    part: str
    key: Any
    rules: tuple[Rule | None, ...]


@dataclass(frozen=True)
class Between:
    """Whether a weighted layer lies in one part of the depth: a predicate of places."""

    low: int
    high: int

    @property
    def __name__(self) -> str:
        return f"{self.low} <= index < {self.high}"

    def __call__(self, place: Place) -> bool:
        """Whether the place is such a layer."""
        return place.index is not None and self.low <= place.index < self.high


class Searched(Composite):
    """A composite that a search found. `print` shows the code that makes it."""

    def __init__(self, entries: Sequence[tuple[Any, Rule]], code: str, name: str) -> None:
        super().__init__(entries, name=name)
        self.code = code

    def __str__(self) -> str:
        return self.code


@dataclass(frozen=True)
class Space:
    """All composites with one rule of each choice.

    Attributes:
        choices: in the order of the composite's entries.
        others: composites that are tried besides, by name.
    """

    choices: tuple[Choice, ...]
    others: dict[str, Composite] = field(default_factory=dict)

    def __len__(self) -> int:
        count = 1
        for choice in self.choices:
            count *= len(choice.rules)
        return count + len(self.others)

    def composite(self, picked: Sequence[int]) -> Searched:
        """The composite with the picked rule of each choice."""
        pairs = [
            (choice, rule)
            for choice, n in zip(self.choices, picked, strict=True)
            if (rule := choice.rules[n]) is not None
        ]
        said = ", ".join(f"{choice.part}: {code_of(rule)}" for choice, rule in pairs)
        code = f"relprop.Composite({{{said}}}, name='searched')"
        return Searched([(choice.key, rule) for choice, rule in pairs], code, "searched")

    def grid(self) -> dict[str, Composite]:
        """All of them, by a short name."""
        found = dict(self.others)
        for picked in itertools.product(*(range(len(choice.rules)) for choice in self.choices)):
            made = self.composite(picked)
            found.setdefault(name_of(made), made)
        return found


def code_of(rule: Rule) -> str:
    """The code that makes a rule."""
    return _written(rule, _numbers)


def name_of(composite: Searched) -> str:
    """A short name for tables."""
    said = []
    for key, rule in composite.entries:
        place = str(key).replace(" weighted layer", "").replace("every ", "")
        said.append(f"{place} {_written(rule, lambda value: '...' if isinstance(value, Tensor) else repr(value))[8:]}")
    return ", ".join(said) or "defaults"


def _written(rule: Any, value: Callable[[Any], str]) -> str:
    """A rule with the parameters that are not its defaults."""
    given = [
        f"{each.name}={value(getattr(rule, each.name))}"
        for each in fields(rule)
        if isinstance(getattr(rule, each.name), Tensor) or getattr(rule, each.name) != each.default
    ]
    return f"relprop.{type(rule).__name__}({', '.join(given)})"


def _numbers(bound: Any) -> str:
    if isinstance(bound, Tensor):
        return f"torch.tensor({bound.tolist()!r})"
    return repr(bound)


def space_of(given: Any, families: set[str], layers: int, main: Tensor, bounds: Any, by_depth: bool) -> Space:
    """The space that is asked for, or the one that suits the network.

    Args:
        given: "auto", a `Space`, a mapping from keys of composites to lists of rules, or a list of composites.
        families: the families of operations that the network has.
        layers: the number of its weighted layers.
        main: the inputs, whose bounds a z-box takes.
        bounds: the smallest and the largest value an input can have; None takes those of each sample, or of each column.
        by_depth: whether convolutions and dense layers have other rules in three parts of the depth.

    Raises:
        InputError: it is not a space.
    """
    if isinstance(given, Space):
        return given
    if (
        isinstance(given, dict)
        and given
        and all(isinstance(rules, (list, tuple)) and rules for rules in given.values())
    ):
        return Space(tuple(Choice(_key(key), key, tuple(rules)) for key, rules in given.items()))
    if isinstance(given, (list, tuple)) and given and all(isinstance(each, Composite) for each in given):
        return Space((), {f"{n}: {each.name}": each for n, each in enumerate(given, 1)})
    if given != "auto":
        raise InputError(
            "space must be 'auto', a mapping from keys of composites to lists of rules, or a list of composites; got "
            f"{given!r}."
        )
    attends = bool({"softmax", "attention"} & families)
    if attends:
        choices = _attending(families, main, bounds)
    elif "conv" in families:
        choices = _convolutional(main, bounds)
    else:
        choices = _dense(families, main, bounds)
    return Space(_deep(choices, layers) if by_depth else choices)


def _key(key: Any) -> str:
    """The code of a key, where it has one."""
    known = {first: "relprop.first", last: "relprop.last"}
    if isinstance(key, Path):
        return f"relprop.path({key.glob!r})"
    return repr(key) if isinstance(key, str) else known.get(key, getattr(key, "__qualname__", None) or str(key))


def _convolutional(main: Tensor, bounds: Any) -> tuple[Choice, ...]:
    start = [None, Flat(), _box(main, bounds)] if main.is_floating_point() else [None]
    conv = (Zero(), Epsilon(0.1, relative=True), Gamma(0.1), Gamma(0.25), Gamma(0.5), ZPlus())
    dense = (Epsilon(1e-6), Gamma(0.1))
    return (
        Choice("relprop.first", first, tuple(start)),
        Choice("'conv'", "conv", conv),
        Choice("'linear'", "linear", dense),
    )


def _attending(families: set[str], main: Tensor, bounds: Any) -> tuple[Choice, ...]:
    found = []
    if main.is_floating_point() and main.ndim > 2:
        found.append(Choice("relprop.first", first, (Gamma(0.25), Flat(), _box(main, bounds))))
    found.append(Choice("'softmax'", "softmax", (None, Constant(), Temperature(2.0))))
    if "product" in families and not main.is_floating_point():
        found.append(Choice("'product'", "product", (None, Gate())))
    dense = (Zero(), Epsilon(0.1, relative=True), Epsilon(0.3, relative=True), Gamma(0.05), Gamma(0.1))
    found.append(Choice("'linear'", "linear", dense[:4] if main.is_floating_point() else dense))
    if "conv" in families and found[0].part != "relprop.first":
        found.append(Choice("'conv'", "conv", (Gamma(0.25),)))
    return tuple(found)


def _dense(families: set[str], main: Tensor, bounds: Any) -> tuple[Choice, ...]:
    dense = (
        Zero(), Epsilon(1e-3), Epsilon(0.01, relative=True), Epsilon(0.1, relative=True), Epsilon(0.3, relative=True),
        Gamma(0.1), Gamma(0.5), ZPlus(),
    )  # fmt: skip
    found = [Choice("'linear'", "linear", dense)]
    if "product" in families:
        return Choice("'product'", "product", (None, Gate())), *found
    if main.is_floating_point():
        box = (_box(main, bounds),) if main.ndim == 2 or bounds is not None else ()
        return Choice("relprop.first", first, (None, Flat(), WSquare(), *box)), *found
    return tuple(found)


def _deep(choices: Sequence[Choice], layers: int) -> tuple[Choice, ...]:
    """The choices for convolutions and dense layers, each by three parts of the depth."""
    found: list[Choice] = []
    edges = [round(layers * part / DEPTHS) for part in range(DEPTHS + 1)]
    for choice in choices:
        if choice.key not in ("conv", "linear") or len(choice.rules) < 2 or layers < DEPTHS:
            found.append(choice)
            continue
        for low, high in itertools.pairwise(edges):
            code = f"{choice.part} & relprop.where(lambda place: place.index is not None and {low} <= place.index < {high})"
            found.append(Choice(code, choice.key & where(Between(low, high)), choice.rules))
    return tuple(found)


def _box(main: Tensor, bounds: Any) -> ZBox:
    """A z-box with the given bounds; else with those of each sample, or those observed in each column of a table."""
    if bounds is not None:
        low, high = bounds
        return ZBox(low, high)
    if main.ndim > 2:
        return ZBox()
    low, high = (getattr(main, side)(0).detach().cpu() for side in ("amin", "amax"))
    return ZBox(_rounded(low), _rounded(high))


def _rounded(bound: Tensor) -> Tensor:
    """Bounds of few digits outwards make code that one can read; the float32 of what is printed is what acts."""
    return torch.tensor(bound.float().tolist())
