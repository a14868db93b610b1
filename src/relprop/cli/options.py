"""The options that several commands take, and the parsing of their text."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from relprop.composites import NAMES
from relprop.composites.named import unknown
from relprop.errors import CompositeError, InputError
from relprop.loading import models, samples
from relprop.loading.network import Pictures


def composite_names(incomplete: str) -> list[str]:
    """The names that complete a word on the command line."""
    return [name for name in ("auto", *NAMES) if name.startswith(incomplete)]


Composites = Annotated[
    list[str] | None,
    typer.Option(
        "--composite",
        "-c",
        help="Name of a composite; several times to compare.",
        show_default="auto",
        autocompletion=composite_names,
    ),
]
Percentile = Annotated[
    float | None,
    typer.Option(
        help="End of the colour scale, as a percentile of |relevance|; what is beyond is counted in the note of each map.",
        show_default="99.5 for pictures; 100 clips nothing",
    ),
]
Smooth = Annotated[
    int | None,
    typer.Option(
        help="Spread each pixel of a picture's map over a box of that side. The total stays.",
        min=1,
        show_default="1: as it is",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help=f"The network: {models.DEFAULT}, {', '.join(models.SOURCES[:-1])} or {models.SOURCES[-1]}.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="Its weights: .safetensors, or .pt, .pth and .bin that hold tensors alone.", show_default="its own"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print data for a program, not a table.")]
Without = Annotated[list[str] | None, typer.Option(help="Column of a table to leave out.")]
Title = Annotated[str, typer.Option(help="Title of the page.")]
Size = Annotated[
    int | None, typer.Option(help="Side of the pictures the network takes.", min=1, show_default="as it says")
]
Mean = Annotated[
    str | None,
    typer.Option(
        help="Mean of each colour, such as 0.5,0.5,0.5; one number for a network of grey pictures.",
        show_default="as it says",
    ),
]
Std = Annotated[
    str | None, typer.Option(help="Standard deviation of each colour, or one number.", show_default="as it says")
]

Trusted = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Let an hf: model run the code that comes with it, and read weights that are pickled.",
    ),
]


def percentile_of(value: float | None) -> float | None:
    """Checks the end of a scale, and returns it."""
    if value is not None and not 0.0 < value <= 100.0:
        raise InputError(f"--percentile is {value:g}; it lies above 0 and up to 100.")
    return value


def _needed(make: Any) -> list[str]:
    """The parameters of a composite that have no default."""
    return [name for name, p in inspect.signature(make).parameters.items() if p.default is p.empty]


BOUNDED = frozenset(name for name, make in NAMES.items() if set(_needed(make)) == {"low", "high"})
"""The composites that need the bounds of the input. Of pictures they are known."""


def check_composite(name: str) -> None:
    """Refuses a composite that does not exist, or that needs parameters."""
    if name != "auto" and name not in NAMES:
        raise unknown(name)
    if name != "auto" and name not in BOUNDED and (needed := _needed(NAMES[name])):
        raise CompositeError(
            f"{name!r} needs {' and '.join(needed)}, which depend on the inputs: use it from Python, "
            f"relprop.composites.{name}({', '.join(f'{p}=...' for p in needed)})."
        )


def pictures_of(size: int | None, mean: str | None, std: str | None) -> Pictures | None:
    """The preprocessing of pictures from the options; None if none was given."""
    if size is None and mean is None and std is None:
        return None
    given: dict[str, Any] = {"size": size}
    for name, text in (("mean", mean), ("std", std)):
        if text is not None:
            given[name] = numbers_of(text, f"--{name}", float)
            if len(given[name]) not in (1, 3):
                raise InputError(
                    f"--{name} {text!r} must be three numbers, of red, green and blue, or one for grey pictures."
                )
            if name == "std" and not all(given[name]):
                raise InputError(f"--std {text!r}: a picture cannot be divided by 0.")
    made = Pictures(**given)
    if len(made.mean) != len(made.std):
        raise InputError("--mean and --std need one number each, for grey pictures, or three each.")
    return made


def numbers_of(text: str, option: str, convert: type) -> tuple[Any, ...]:
    """The numbers in a text, separated by commas."""
    try:
        return tuple(convert(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text!r} must be numbers with commas between them.") from None


def names_of(path: Path) -> list[str]:
    """The names in a file, one a line."""
    return samples.text_of(path).splitlines()
