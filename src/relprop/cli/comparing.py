"""The command `compare`: composites side by side on the same inputs, as one figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import relprop
from relprop.cli import printing, texts
from relprop.cli.explaining import composite_of, find_class, slug
from relprop.cli.options import (
    AsJson,
    Mean,
    Model,
    Percentile,
    Size,
    Std,
    Weights,
    Without,
    check_composite,
    composite_names,
    names_of,
    percentile_of,
    pictures_of,
)
from relprop.cli.printing import errors_in_one_line, say_what_is_missing, writing
from relprop.cli.trying import Tried
from relprop.errors import InputError
from relprop.loading import models, network, samples
from relprop.rendering.scale import number
from relprop.rendering.visible import visible
from relprop.results.comparison import Comparison
from relprop.results.text_comparison import TextComparison

_USUAL = ("auto", "epsilon", "epsilon_plus_flat")
_USUAL_OF_TEXTS = ("auto", "cp_lrp", "epsilon")
"""What is compared if no composite is named."""

Compared = tuple[samples.Sample | texts.TextSample, Comparison | TextComparison]


def compare(
    inputs: Annotated[list[str], typer.Argument(help="Pictures, .csv tables, .npy arrays, texts, or folders of them.")],
    model: Model = models.DEFAULT,
    weights: Weights = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", "-t", help="A class, token or answer; each is a row.", show_default="the likeliest"),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Also a row for this target, and one for what speaks for the first one rather than for it."),
    ] = None,
    composite: Annotated[
        list[str] | None,
        typer.Option(
            "--composite",
            "-c",
            help="Name of a composite; each is a column.",
            show_default=f"{', '.join(_USUAL)}; of texts {', '.join(_USUAL_OF_TEXTS)}",
            autocompletion=composite_names,
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            help="The figure: .png, .jpg, .svg, .pdf or .html. Several inputs get a number each, or one .html."
        ),
    ] = Path("comparison.png"),
    width: Annotated[str | None, typer.Option(help="Its width, such as 170mm, or in pixels.")] = None,
    dpi: Annotated[float | None, typer.Option(help="Its resolution, in dots per inch.")] = None,
    shared: Annotated[bool, typer.Option("--shared", help="Draw all maps on one scale.")] = False,
    percentile: Percentile = None,
    labels: Annotated[Path | None, typer.Option(help="A text file with the name of a class on each line.")] = None,
    row: Annotated[list[int] | None, typer.Option(help="Row of a table, from 0.", show_default="all")] = None,
    without: Without = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    loose: Annotated[bool, typer.Option("--loose", help="Use the gradient of unknown operations, and say so.")] = False,
    json: AsJson = False,
) -> None:
    """Compare composites on the same inputs, side by side."""
    with errors_in_one_line():
        if against is not None and (not target or against in target):
            raise InputError(f"--against {against} needs --target, another one: it is what the target is set against.")
        for name in composite or ():
            check_composite(name)
        if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".svg", ".pdf", ".html"):
            raise InputError(f"--out {out}: a figure is a .png, .jpg, .svg, .pdf or .html file.")
        loaded = models.load(model, weights, pictures_of(size, mean, std))
        read = loaded.tokenizer is not None
        asked = list(dict.fromkeys(composite or (_USUAL_OF_TEXTS if read else _USUAL)))
        names = names_of(labels) if labels else loaded.labels
        tried = Tried()
        read_in: list[Any] = []
        targets: list[Any]
        if read:
            read_in += texts.read(inputs, tried)
            targets = texts.targets_of(loaded, texts.Wish(target or (), against))
        else:
            targets = [find_class(each, names) for each in target or ()] or [None]
            if against is not None:
                other = find_class(against, names)
                targets += [other, relprop.Contrast(targets[0], other)]
            for path in samples.files(inputs):
                with tried.each(visible(path.name)):
                    read_in += samples.read(path, loaded, rows=row or (), without=without or ())

        def of_one(some: Any) -> list[Compared]:
            (sample,) = some
            if read:
                chosen: dict[str, Any] = dict(zip(asked, asked, strict=True))
                return [(sample, _of_text(loaded, sample, targets, chosen, names, strict=not loose))]
            chosen = {name: composite_of(name, sample, loaded.bounds()) for name in asked}
            with network.taking(loaded, sample.inputs, "Is the first axis that of samples?"):
                found = relprop.compare(loaded.model, sample.inputs, targets, chosen, labels=names, strict=not loose)
            return [(sample, found)]

        found = [
            each
            for sample in printing.progress(read_in, "comparing", len(read_in))
            for each in tried.together([sample], of_one)
        ]
        tried.check(len(found))
        wide = int(width) if width is not None and width.isdecimal() else width
        drawing = {"shared": shared, "percentile": percentile_of(percentile), "width": wide, "dpi": dpi}
        paths = _write(
            found, out, {name: value for name, value in drawing.items() if value not in (None, False)}, tried
        )
        if json:
            printing.data(
                {"results": [one for each in found for one in _data(*each)], "files": [str(p) for p in paths]}
            )
        else:
            for sample, each in found:
                columns = ("Explained", "Score", "Relevance", "Residual")
                rows = [(r.explained, number(r.score), number(r.relevance), number(r.residual)) for r in each.rows()]
                printing.table(columns, rows, numbers=columns[1:], title=sample.name)
            typer.echo("\n".join(str(path) for path in paths))
        say_what_is_missing(tried)


def _of_text(
    loaded: network.Loaded,
    sample: texts.TextSample,
    targets: list[Any],
    chosen: dict[str, Any],
    names: Any,
    *,
    strict: bool,
) -> TextComparison:
    return relprop.compare_text(
        loaded.model, loaded.tokenizer, sample.text, targets, chosen, labels=names, strict=strict
    )


def _write(found: list[Compared], out: Path, drawing: dict[str, Any], tried: Tried) -> list[Path]:
    """Writes the figures, and returns their paths."""
    if len(found) > 1 and out.suffix.lower() == ".html":
        if strange := {"width", "dpi"} & set(drawing):
            raise InputError(f"--{min(strange)} is for a figure, and several inputs go into one page.")
        groups = {f"{sample.name}": [each] for sample, each in found}
        with writing(out):
            relprop.report(groups, out, title="Comparison", paragraphs=tried.lines(), **drawing)
        return [out]
    paths: list[Path] = []
    for n, (sample, each) in enumerate(found):
        path = out if len(found) == 1 else out.with_stem(f"{out.stem}-{n}-{slug(sample.stem)}")
        own: dict[str, Any] = {}
        if isinstance(sample, samples.Sample):
            own |= {} if sample.picture is None else {"pictures": sample.picture}
            own |= {} if not sample.names else {"names": sample.names}
        with writing(path):
            each.save(path, **own, **drawing)
        paths.append(path)
    return paths


def _data(sample: samples.Sample | texts.TextSample, each: Comparison | TextComparison) -> list[dict[str, Any]]:
    return [
        {
            "input": sample.name, "explained": row.explained, "score": row.score, "relevance": row.relevance,
            "residual": row.residual,
        }
        for row in each.rows()
    ]  # fmt: skip
