"""The commands for saved results: `show` and `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import relprop
from relprop.cli import explaining
from relprop.cli.options import Percentile, Title, percentile_of
from relprop.cli.printing import errors_in_one_line, say_what_is_missing
from relprop.cli.trying import Tried
from relprop.errors import InputError
from relprop.rendering import Options
from relprop.rendering.visible import visible
from relprop.results.show import in_terminal


def show(
    result: Annotated[Path, typer.Argument(help="A folder that R.save or `relprop explain --keep` wrote.")],
    where: Annotated[str, typer.Option("--in", help="terminal or browser.")] = "terminal",
    out: Annotated[
        Path | None, typer.Option(help="Write it there instead: .png, .svg, .pdf, .html, .json, .npz or .csv.")
    ] = None,
    percentile: Percentile = None,
    kind: Annotated[str | None, typer.Option(help="What it is drawn as.", show_default="as its shape says")] = None,
) -> None:
    """Show a saved result."""
    with errors_in_one_line():
        loaded = relprop.load(result)
        options: dict[str, Any] = {"percentile": percentile_of(percentile), "kind": kind}
        options = {name: value for name, value in options.items() if value is not None}
        if out is not None:
            loaded.save(out, **options)
            typer.echo(str(out))
        elif where == "terminal":
            typer.echo(in_terminal(loaded, Options(**options)), color=True)
        elif where == "browser":
            loaded.show("browser", **options)
        else:
            raise InputError(f"--in {where}: a result is shown in the terminal or in the browser.")


def report(
    results: Annotated[
        list[Path], typer.Argument(help="Folders that R.save or `relprop explain --keep` wrote, or folders of them.")
    ],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
    title: Title = "Report",
    percentile: Percentile = None,
) -> None:
    """Write a page about saved results: inputs, outputs, maps, rules, versions."""
    with errors_in_one_line():
        paths = explaining.kept(results)
        names = [path.name for path in paths]
        tried = Tried()
        loaded = {}
        for name, path in zip(names, paths, strict=True):
            with tried.each(visible(str(path))):
                loaded[name if name and names.count(name) == 1 else str(path)] = [relprop.load(path)]
        tried.check(len(loaded))
        relprop.report(loaded, out, title=title, paragraphs=tried.lines(), percentile=percentile_of(percentile))
        typer.echo(str(out))
        say_what_is_missing(tried)
