"""The command's output: data on stdout, progress and errors on stderr. Text from outside is never read as markup."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import typer
import typer.core
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.progress import track
from rich.table import Table
from rich.text import Text

from relprop.cli.explaining import ExplainedInput
from relprop.cli.output_encoding import utf8
from relprop.cli.trying import NothingDone, Tried, said
from relprop.errors import CompositeError, InputError, RelpropError, TargetError
from relprop.rendering import Options
from relprop.rendering.scale import number
from relprop.rendering.visible import quoted, visible
from relprop.results.show import in_terminal

_NARROWEST = 12
"""The shortest longest word of a column: in a narrower terminal a line for each cell reads better."""


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = (), title: str = ""
) -> None:
    """Prints a table, or a line for each cell if the terminal is too narrow."""
    cells = [[visible(cell) for cell in row] for row in rows]
    console = Console()
    rooms = _rooms([columns, *cells], console.width)
    for plain in (False, True):
        # without lines around and between its columns, a table needs less room
        style: dict[str, Any] = {"box": box.SIMPLE_HEAD, "show_edge": False, "pad_edge": False} if plain else {}
        shown = Table(title=Text(visible(title)) if title else None, title_justify="left", **style)
        for column in columns:
            shown.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
        for row in cells:
            parts = [folded(cell, room) for cell, room in zip(row, rooms, strict=True)] if plain and rooms else row
            shown.add_row(*map(Text, parts))
        if Measurement.get(console, console.options.update(max_width=10**4), shown).minimum <= console.width:
            console.print(shown)
            return
    # A table would break words: a line for each cell reads better.
    typer.echo(visible(title))
    for row in cells:
        typer.echo("\n" + "\n".join(f"{column}: {cell}" for column, cell in zip(columns, row, strict=True)))


def _rooms(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The length of the longest word that each column may have, so that they fit beside each other; empty if they cannot."""
    rooms = [max((len(word) for row in rows for word in row[c].split()), default=1) for c in range(len(rows[0]))]
    most = width - 3 * (len(rooms) - 1) - 1
    while sum(rooms) > most:
        widest = rooms.index(max(rooms))
        if rooms[widest] <= _NARROWEST:
            return []
        rooms[widest] -= 1
    return rooms


def folded(text: str, room: int) -> str:
    """The text with words longer than `room` broken, after a sign if there is one."""
    words = []
    for word in text.split(" "):
        while len(word) > room:
            at = max((word.rfind(sign, 0, room) for sign in ".,_=("), default=-1) + 1
            at = at if at > room // 2 else room
            words.append(word[:at] + "\n")
            word = word[at:]
        words.append(word + " ")
    return "".join(words).rstrip()


def data(content: Any) -> None:
    """Prints data for a program."""
    typer.echo(json.dumps(content, ensure_ascii=not utf8(sys.stdout), indent=1))


def results(explained: Sequence[ExplainedInput]) -> None:
    """Prints a table for each input, or the text itself."""
    columns = ("Explained", "Composite", "Score", "Relevance", "Residual")
    for each in explained:
        if each.text:
            text(each)
            continue
        rows = [
            (
                row.explained,
                result.composite.name if asked == result.composite.name else f"{asked} ({result.composite.name})",
                number(row.score),
                number(row.relevance),
                number(row.residual),
            )
            for result, asked in zip(each.results, each.asked, strict=True)
            for row in result.rows()
        ]
        table(columns, rows, numbers=columns[2:], title=each.name)


def text(each: ExplainedInput) -> None:
    """Prints a text once for each of its results, in colour if the terminal has colours."""
    typer.echo(each.name)
    for result in each.results:
        typer.echo(f"\n{in_terminal(result, Options())}", color=True)
    typer.echo()


def progress(items: Iterable[Any], what: str, count: int) -> Iterable[Any]:
    """Iterates over items, with a progress bar on stderr if that is a terminal."""
    console = Console(stderr=True)
    if count < 2 or not console.is_terminal:
        return items
    return track(items, what, total=count, console=console, transient=True)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Prints foreseen errors in one line, and exits. Only unforeseen errors show a traceback."""
    try:
        yield
    except (InputError, TargetError, CompositeError) as error:
        _fail(error, code=2)
    except (RelpropError, ModuleNotFoundError, OSError) as error:
        _fail(error, code=1)
    except KeyboardInterrupt:
        typer.echo("relprop: interrupted.", err=True)
        raise typer.Exit(130) from None
    except NothingDone as error:
        left_out(error.args)
        raise typer.Exit(1) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A context in which an error of the file system says that this path cannot be written to."""
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot write to {quoted(path)}: {error.strerror or error}.") from error


def left_out(lines: Iterable[str]) -> None:
    """Prints a line for each input that was left out."""
    for line in lines:
        typer.echo(f"relprop: {line}", err=True)


def say_what_is_missing(tried: Tried) -> None:
    """Prints what was left out, and exits with 1 if anything was."""
    if tried.left_out:
        left_out(tried.lines())
        raise typer.Exit(1)


class Commands(typer.core.TyperGroup):
    """The commands. They report a wrong option or a missing argument in one line, too."""

    def main(
        self, args: Sequence[str] | None = None, prog_name: str | None = None, complete_var: str | None = None,
        standalone_mode: bool = True, windows_expand_args: bool = True, **extra: Any,
    ) -> Any:  # fmt: skip
        """Runs the command line, and exits with its code."""
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except Exception as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                cast(Any, error).show()
            elif hasattr(error, "format_message"):
                where = getattr(getattr(error, "ctx", None), "command_path", "relprop")
                message = " ".join(error.format_message().split()).rstrip(".")
                end = "" if message.endswith("?") else "."
                typer.echo(f"relprop: {visible(message)}{end} See: {where} --help", err=True)
            elif not isinstance(error, typer.Abort):
                raise
            code = getattr(error, "exit_code", 1)
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else 0)


def _fail(error: Exception, *, code: int) -> None:
    typer.echo(f"relprop: {said(error)}", err=True)
    raise typer.Exit(code) from error
