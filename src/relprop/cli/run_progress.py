"""The progress of a run on stderr: a bar in a terminal, a line for each unit elsewhere, or lines of JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import dumps
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from relprop.rendering.visible import visible


@contextmanager
def shown_progress(json: bool) -> Iterator[Callable[[str], None]]:
    """Gives a function for lines of progress, some of which have numbers."""
    console = Console(stderr=True)
    if json:
        yield _as_json
    elif not console.is_terminal:
        yield lambda line: typer.echo(line, err=True)
    else:
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}", markup=False))
        with Progress(*columns, console=console, transient=True) as bar:
            yield ProgressBar(bar)


class ProgressBar:
    """Shows lines with numbers as a bar, and prints the others above it.

    Args:
        bar: the bar of rich.
    """

    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.task: Any = None

    def __call__(self, line: str) -> None:
        """Shows a line."""
        told: dict[str, Any] | None = getattr(line, "data", None)
        if told is None:
            self.bar.console.print(Text(visible(line)))
            return
        total = None if told["left"] is None else told["done"] + told["left"]
        if self.task is None:
            self.task = self.bar.add_task("run", total=total, said="")
        self.bar.update(self.task, total=total, completed=told["done"], said=_beside(told))


def _beside(told: dict[str, Any]) -> str:
    """What stands beside the bar."""
    parts = [f"{told['samples_per_second']:.1f} samples/s"]
    if told["seconds_left"] is not None:
        minutes, seconds = divmod(round(told["seconds_left"]), 60)
        hours, minutes = divmod(minutes, 60)
        parts.append(f"{hours}:{minutes:02}:{seconds:02} to go")
    parts += [f"{told['bad']} bad", f"{told['bytes'] / 2**20:,.0f} MiB", f"most time in {told['most_time_in']}"]
    return ", ".join(parts)


def _as_json(line: str) -> None:
    typer.echo(dumps(getattr(line, "data", {"said": line})), err=True)
