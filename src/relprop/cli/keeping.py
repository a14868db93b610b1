"""The commands for saved results: `show` and `report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import relprop
from relprop.cli import explaining
from relprop.cli.options import Percentile, Smooth, Title, percentile_of
from relprop.cli.printing import errors_in_one_line, say_what_is_missing, writing
from relprop.cli.trying import Tried
from relprop.errors import InputError
from relprop.rendering import Options
from relprop.rendering.visible import quoted, visible
from relprop.results.report import report_page
from relprop.results.show import in_browser, in_terminal


def show(
    result: Annotated[
        str, typer.Argument(help="A folder that R.save or `relprop explain --keep` wrote, a folder of them, or a run.")
    ],
    where: Annotated[str, typer.Option("--in", help="terminal or browser.")] = "terminal",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write it there instead: .png, .jpg, .svg, .pdf, .html, .json, .npz or .csv; several, .html."
        ),
    ] = None,
    percentile: Percentile = None,
    smooth: Smooth = None,
    kind: Annotated[str | None, typer.Option(help="What it is drawn as.", show_default="as its shape says")] = None,
    key: Annotated[str | None, typer.Option(help="Of a run, as `relprop run` writes it: the key of a sample.")] = None,
    which: Annotated[int, typer.Option(help="Of a run over several targets: which of them, from 0.", min=0)] = 0,
) -> None:
    """Show a saved result, all of a folder, or one sample of a run."""
    with errors_in_one_line():
        options: dict[str, Any] = {"percentile": percentile_of(percentile), "kind": kind, "smooth": smooth}
        options = {name: value for name, value in options.items() if value is not None}
        sample = _sample(result, key, which)
        paths = explaining.kept([Path(result)]) if sample is None else []
        if where not in ("terminal", "browser"):
            raise InputError(f"--in {where}: a result is shown in the terminal or in the browser.")
        if out is not None and len(paths) > 1 and out.suffix.lower() not in (".html", ".htm"):
            raise InputError(f"{quoted(result)} holds {len(paths)} results, which go into one page: --out page.html.")
        tried = Tried()
        loaded = {str(key): [sample]} if sample is not None else _loaded(paths, tried)
        if out is not None:
            with writing(out):
                if len(paths) > 1:
                    relprop.report(loaded, out, title=visible(Path(result).name), paragraphs=tried.lines(), **options)
                else:
                    next(iter(loaded.values()))[0].save(out, **options)
            typer.echo(str(out))
        elif where == "browser":
            in_browser(report_page(loaded, title="Relevance", options=Options(**options)))
        else:
            for name, (each,) in loaded.items():
                typer.echo(f"{visible(name)}\n" * (len(paths) > 1) + in_terminal(each, Options(**options)), color=True)
        say_what_is_missing(tried)


def report(
    results: Annotated[
        list[Path], typer.Argument(help="Folders that R.save or `relprop explain --keep` wrote, or folders of them.")
    ],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
    title: Title = "Report",
    percentile: Percentile = None,
    smooth: Smooth = None,
) -> None:
    """Write a page about saved results: inputs, outputs, maps, rules, versions."""
    with errors_in_one_line():
        paths = explaining.kept(results)
        tried = Tried()
        loaded = _loaded(paths, tried)
        even: dict[str, Any] = {} if smooth is None else {"smooth": smooth}
        with writing(out):
            relprop.report(
                loaded, out, title=title, paragraphs=tried.lines(), percentile=percentile_of(percentile), **even
            )
        typer.echo(str(out))
        say_what_is_missing(tried)


def _sample(folder: str, key: str | None, which: int) -> Any:
    """The relevance of a sample of a run; None if the folder is not one, and no key is named.

    Raises:
        InputError: the run has no such sample, or none is named.
    """
    if key is None and "://" not in folder and not (Path(folder) / "run.json").is_file():
        return None
    from relprop.data import open_run

    run = open_run(folder)
    if key is None:
        some = ", ".join(quoted(one) for one in run.keys()[:3])
        raise InputError(f"{quoted(folder)} is a run: name a sample with --key. It has {some or 'none yet'}, ...")
    return run[key].relevance(which=which)


def _loaded(paths: Sequence[Path], tried: Tried) -> dict[str, list[Any]]:
    """The results of folders by name. Those that cannot be read are left out; it is an error if that is all of them."""
    names = [path.name for path in paths]
    loaded: dict[str, list[Any]] = {}
    for name, path in zip(names, paths, strict=True):
        with tried.each(visible(str(path))):
            loaded[name if name and names.count(name) == 1 else str(path)] = [relprop.load(path)]
    tried.check(len(loaded))
    return loaded
