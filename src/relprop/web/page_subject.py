"""The network that a page asks, what it reads, and the rules of a column by the settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import nn

from relprop.attribution.survey import survey
from relprop.attribution.targets import known_labels
from relprop.composites import NAMES, Composite, first
from relprop.errors import CompositeError, InputError, ModelStateError
from relprop.loading import models
from relprop.loading.network import Loaded, Pictures, no_picture, padded, picture_reading
from relprop.rules import Epsilon, Flat, WSquare, ZBox, ZPlus
from relprop.web.settings import PageSettings

_GAMMAS = ("gamma", "linear")
"""The arguments of composites that are a gamma; `attnlrp_gamma` has one of linear layers."""
READS = ("picture", "text", "rows")


@dataclass(frozen=True, eq=False)
class PageSubject:
    """A network that a page asks.

    Attributes:
        loaded: the network.
        spec: how `relprop.loading.models.load` finds it; None where a program gave the network itself.
        reads: "picture", "text", or "rows" for tables and series.
        resolved: the composite that "auto" stands for, once it is known.
    """

    loaded: Loaded
    spec: str | None
    reads: str
    resolved: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The network's name on the page."""
        return self.loaded.name

    @property
    def labels(self) -> Sequence[str] | None:
        """The names of its classes."""
        return self.loaded.labels

    def auto(self, inputs: Any) -> str:
        """The name of the composite that "auto" stands for."""
        if "auto" not in self.resolved:
            self.resolve(survey(self.loaded.model, inputs, "auto").composite.name)
        return self.resolved["auto"]

    def resolve(self, name: str) -> None:
        """Notes the composite that "auto" stands for."""
        self.resolved["auto"] = name


@dataclass(frozen=True)
class MapColumn:
    """The rules of one column of maps.

    Attributes:
        name: its name on the page.
        composite: the rules.
        source: the Python expression that makes them, where `low` and `high` are the bounds of the input.
        bounded: whether the expression needs these bounds.
    """

    name: str
    composite: Composite | str
    source: str
    bounded: bool = False


def subject_of(
    model: Any,
    *,
    tokenizer: Any = None,
    labels: Sequence[str] | None = None,
    preprocess: Callable[[Image.Image], torch.Tensor] | None = None,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    reads: str | None = None,
) -> PageSubject:
    """A network as a page asks it.

    Args:
        model: a `torch.nn.Module`, or the name of one as `relprop explain --model` takes it.
        tokenizer: the tokenizer of a network that reads text.
        labels: the names of its classes.
        preprocess: turns a Pillow image into its input (1, C, H, W); None resizes and normalises as `size`, `mean` and
            `std` say.
        size: the side of its pictures.
        mean: the mean of each colour, of values from 0 to 1.
        std: the standard deviation of each colour.
        reads: "picture", "text" or "rows"; None finds out.

    Raises:
        InputError: the arguments do not fit each other.
        ModelStateError: the model is in training mode.
    """
    if reads is not None and reads not in READS:
        raise InputError(f"reads is {reads!r}; a network reads one of: {', '.join(READS)}.")
    spec = model if isinstance(model, str) else None
    if isinstance(model, str):
        loaded = models.load(model)
    elif isinstance(model, Loaded):
        loaded, spec = model, model.name
    elif isinstance(model, nn.Module):
        loaded = _given(model, tokenizer, preprocess, Pictures(size, *_colours(mean, std)))
    else:
        raise InputError(f"model is a torch.nn.Module or the name of one; got {type(model).__name__}.")
    if labels is not None:
        loaded = Loaded(
            loaded.name, loaded.model, list(labels), loaded.tensor, loaded.seen, loaded.tokenizer, loaded.classes
        )
    return PageSubject(loaded, spec, reads or what_it_reads(loaded))


def _colours(mean: Sequence[float] | None, std: Sequence[float] | None) -> tuple[Any, Any]:
    usual = Pictures()
    return (tuple(mean) if mean is not None else usual.mean), (tuple(std) if std is not None else usual.std)


def _given(model: nn.Module, tokenizer: Any, preprocess: Any, pictures: Pictures) -> Loaded:
    if model.training:
        raise ModelStateError("the model is in training mode: call model.eval() first.")
    name, labels = type(model).__name__, known_labels(model)
    if tokenizer is not None:
        classes = any(kind in name for kind in ("Classification", "Classifier"))
        return Loaded(name, model, labels, no_picture, no_picture, padded(tokenizer), classes)
    tensor, seen = picture_reading(model, pictures)
    return Loaded(name, model, labels, preprocess or tensor, _as_it_is if preprocess else seen)


def _as_it_is(image: Image.Image) -> Image.Image:
    return image


def what_it_reads(loaded: Loaded) -> str:
    """Whether a network reads text, pictures, or rows of numbers, which is tried with a grey picture."""
    if loaded.tokenizer is not None:
        return "text"
    try:
        with torch.no_grad():
            loaded.model(loaded.tensor(Image.new("RGB", (64, 64), "grey")))
    except Exception:  # whatever it raises, it takes no picture
        return "rows"
    return "picture"


def columns(settings: PageSettings, subject: PageSubject, inputs: Any) -> list[MapColumn]:
    """The rules of each column that the settings ask for.

    Raises:
        CompositeError: a composite cannot be made from what is known.
    """
    return [_column(name, settings, subject, inputs) for name in settings.composites]


def _column(name: str, settings: PageSettings, subject: PageSubject, inputs: Any) -> MapColumn:
    changed = settings.gamma is not None or settings.first != "composite"
    if name == "auto" and not changed:
        return MapColumn("auto", "auto", '"auto"')
    own = subject.auto(inputs) if name == "auto" else name
    if own not in NAMES:
        raise CompositeError(f'"auto" stands for {own!r} here, which has no gamma: choose a composite by its name.')
    taken = inspect.signature(NAMES[own]).parameters
    given: dict[str, Any] = {}
    said: list[str] = []
    gamma = next((each for each in _GAMMAS if each in taken), None) if settings.gamma is not None else None
    if gamma is not None:
        given[gamma] = settings.gamma
        said.append(f"{gamma}={settings.gamma!r}")
    bounded = "low" in taken and subject.reads == "picture"
    if bounded:
        given["low"], given["high"] = subject.loaded.bounds()
        said += ["low=low", "high=high"]
    needed = [each for each, p in taken.items() if p.default is p.empty and each not in given]
    if needed:
        raise CompositeError(f"{own!r} needs {' and '.join(needed)}, which depend on the inputs: use it from Python.")
    made: Composite = NAMES[own](**given)
    plain = not given and settings.first == "composite"
    source = f'"{own}"' if plain else f"relprop.composites.{own}({', '.join(said)})"
    title = "auto" if name == "auto" else own
    title += f", gamma {settings.gamma:g}" if gamma is not None else ""
    if settings.first == "composite":
        return MapColumn(title, own if plain else made, source, bounded)
    rule, text = _first(settings.first, subject)
    source = f"relprop.composites.{own}({', '.join(said)})"
    named = f"first {settings.first}"
    whole = Composite({first: rule}, name=named) | made
    source = f'relprop.Composite({{relprop.first: {text}}}, name="{named}") | {source}'
    return MapColumn(f"{title}, first {settings.first}", whole, source, bounded or settings.first == "zbox")


def _first(name: str, subject: PageSubject) -> tuple[Any, str]:
    """The rule of the first layer, and the expression that makes it."""
    if name == "zbox":
        if subject.reads != "picture":
            raise CompositeError("z-box needs the bounds of the input, which are known of pictures alone.")
        return ZBox(*subject.loaded.bounds()), "relprop.ZBox(low, high)"
    made = {"flat": Flat(), "wsquare": WSquare(), "zplus": ZPlus(), "epsilon": Epsilon(1e-6)}[name]
    shown = {"flat": "Flat()", "wsquare": "WSquare()", "zplus": "ZPlus()", "epsilon": "Epsilon(1e-6)"}[name]
    return made, f"relprop.{shown}"
