"""The two commands and their options.

Exit codes: 0 done; 1 it could not be done; 2 what was asked for does not exist (an option, a picture, a
class, ...).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import relprop
from relprop.cli import photographs, report
from relprop.cli.explaining import Explainer, Explanation
from relprop.errors import CompositeError, InputError, RelpropError, TargetError
from relprop.zoo.images import load_image

app = typer.Typer(
    help="Layer-wise relevance propagation: which pixels spoke for a class, and which against it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

# Of LRP's heavy-tailed maps, this leaves 251 of 224 x 224 pixels beyond the scale and the rest visible.
_PERCENTILE = 99.5

Composites = Annotated[
    list[str] | None,
    typer.Option("--composite", "-c", help="Name of a composite; may be given several times.", show_default="auto"),
]
Percentile = Annotated[
    float,
    typer.Option(
        help="End of the colour scale, as a percentile of |relevance|; pixels beyond it are counted in the "
        "note of each map. 100 is the largest: nothing is clipped, but a few pixels may leave the rest pale."
    ),
]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the page.")] = Path("relprop-demo"),
    composite: Composites = None,
    percentile: Percentile = _PERCENTILE,
) -> None:
    """Explain photographs with EfficientNet-Lite0: its class, another one, and one against the other."""
    with _errors_in_one_line():
        explainer = Explainer(composite or ["auto", "epsilon_plus_flat"], percentile)
        explanations = [
            explainer.explain(photograph.open(), photograph.title, against=photograph.against, text=photograph.credit)
            for photograph in photographs.PHOTOGRAPHS
        ]
        _finish(explanations, out, "Which pixels spoke for the class?")


@app.command()
def explain(
    image: Annotated[Path, typer.Argument(help="A picture: PNG, JPEG, WEBP, BMP, GIF or TIFF.")],
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="An ImageNet class, by name or number; several times if wanted.",
            show_default="top class",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Also explain this class, and what speaks for the first target rather than for it."),
    ] = None,
    composite: Composites = None,
    percentile: Percentile = _PERCENTILE,
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the page.")] = Path("relprop-explain"),
) -> None:
    """Explain what EfficientNet-Lite0 sees in your picture."""
    with _errors_in_one_line():
        picture = load_image(image)
        explainer = Explainer(composite or ["auto"], percentile)
        # A file's name may hold anything, also what steers a terminal.
        name = "".join(letter if letter.isprintable() else "?" for letter in image.name)
        explanation = explainer.explain(picture, name, targets=target or [], against=against)
        _finish([explanation], out, f"Which pixels of {name} spoke for the class?")


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(relprop.__version__)
        raise typer.Exit


def _finish(explanations: list[Explanation], out: Path, title: str) -> None:
    paths = report.write(explanations, out, title)
    report.show(explanations, Console())
    typer.echo(f"{len(paths) - 1} pictures and {paths[-1]}")


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """Say what is wrong as a person would want to read it; only what we did not foresee shows a traceback."""
    try:
        yield
    except (InputError, TargetError, CompositeError) as error:
        _fail(error, code=2)
    except (RelpropError, ModuleNotFoundError, OSError) as error:
        _fail(error, code=1)


def _fail(error: Exception, *, code: int) -> None:
    typer.echo("relprop: " + " ".join(str(error).split()), err=True)
    raise typer.Exit(code) from error
