"""What the command prints: data on stdout, progress and errors on stderr; text of others is never markup."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from relprop.cli.explaining import Explained
from relprop.errors import CompositeError, InputError, RelpropError, TargetError
from relprop.rendering import views
from relprop.rendering.scale import number
from relprop.rendering.visible import visible


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = (), title: str = ""
) -> None:
    """Prints a table."""
    shown = Table(title=Text(visible(title)) if title else None, title_justify="left")
    for column in columns:
        shown.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        shown.add_row(*(Text(visible(cell)) for cell in row))
    Console().print(shown)


def data(content: Any) -> None:
    """Prints data for a program."""
    typer.echo(json.dumps(content, ensure_ascii=False, indent=1))


def results(explained: Sequence[Explained]) -> None:
    """Prints a table for each input."""
    columns = ("Explained", "Composite", "Score", "Relevance", "Residual")
    for each in explained:
        rows = [
            (
                views.target_of(result, n) if len(result) == 1 else f"sample {n}: {views.target_of(result, n)}",
                result.composite.name if asked == result.composite.name else f"{asked} ({result.composite.name})",
                number(float(result.score[n])),
                number(views.total(result, n)),
                number(float(result.residual[n])),
            )
            for result, asked in zip(each.results, each.asked, strict=True)
            for n in range(len(result))
        ]
        table(columns, rows, numbers=columns[2:], title=each.sample.name)


def progress(items: Sequence[Any], what: str) -> Iterable[Any]:
    """Goes through items, showing how far it is on stderr where somebody watches."""
    console = Console(stderr=True)
    if len(items) < 2 or not console.is_terminal:
        return items
    return track(items, what, console=console, transient=True)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Say what is wrong as a person would want to read it; only what we did not foresee shows a traceback."""
    try:
        yield
    except (InputError, TargetError, CompositeError) as error:
        _fail(error, code=2)
    except (RelpropError, ModuleNotFoundError, OSError) as error:
        _fail(error, code=1)


def _fail(error: Exception, *, code: int) -> None:
    typer.echo("relprop: " + visible(" ".join(str(error).split())), err=True)
    raise typer.Exit(code) from error
