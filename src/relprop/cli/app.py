"""The commands and their options.

Exit codes: 0 success; 1 failure; 2 something in the command does not exist (an option, a file, a class, ...).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

import relprop
from relprop.cli import (
    comparing,
    concepts,
    evaluating,
    explaining,
    keeping,
    lists,
    printing,
    running,
    serving,
    stored,
    texts,
)
from relprop.cli.options import (
    BOUNDED,
    AsJson,
    Composites,
    Mean,
    Model,
    Percentile,
    Size,
    Smooth,
    Std,
    Trusted,
    Weights,
    Without,
    check_composite,
    composite_names,
    names_of,
    numbers_of,
    percentile_of,
    pictures_of,
)
from relprop.cli.printing import Commands, errors_in_one_line, say_what_is_missing
from relprop.cli.trying import Tried
from relprop.cli.writing import Writer
from relprop.errors import InputError
from relprop.loading import models, network, photographs, samples
from relprop.rendering import Options
from relprop.rendering.visible import visible

app = typer.Typer(
    cls=Commands,
    help="Layer-wise relevance propagation: what spoke for a decision of a network, and what against it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the page.")] = Path("relprop-demo"),
    composite: Composites = None,
    percentile: Percentile = None,
    smooth: Smooth = None,
    json: AsJson = False,
) -> None:
    """Explain photographs with EfficientNet-Lite0: its class, another one, and one against the other."""
    with errors_in_one_line():
        options = Options(percentile=percentile_of(percentile))
        loaded = models.load(models.DEFAULT)
        credits = " ".join(f"{p.title}: {p.credit}" for p in photographs.PHOTOGRAPHS)
        names = composite or ["auto", "epsilon_plus_flat"]

        def of_one(photograph: photographs.Photograph) -> list[explaining.ExplainedInput]:
            picture = photograph.open()
            seen = samples.Sample(photograph.title, photograph.title, loaded.tensor(picture), loaded.seen(picture))
            return explaining.explain(
                loaded.model,
                [seen],
                loaded.labels,
                against=photograph.against,
                composites=names,
                bounds=loaded.bounds(),
            )

        all_of_them = printing.progress(photographs.PHOTOGRAPHS, "explaining", len(photographs.PHOTOGRAPHS))
        writer = Writer(
            out, lambda _: "Which pixels spoke for the class?", keep=False, paragraphs=lambda: [credits],
            percentile=options.percentile, smooth=smooth,
        )  # fmt: skip
        explained = list(writer.each(each for photograph in all_of_them for each in of_one(photograph)))
        paths = [*writer.paths, writer.page]
        _finish(explained, paths, json, Tried())


@app.command()
def explain(
    inputs: Annotated[
        list[str], typer.Argument(help="Pictures, .csv tables, .npy arrays, folders of them; texts, or .txt files.")
    ],
    model: Model = models.DEFAULT,
    weights: Weights = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="A class, by name or number; of a language model a token, as it is written or as id:NUMBER. Several times if "
            "wanted.",
            show_default="the likeliest",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Also explain this target, and what speaks for the first one rather than for it."),
    ] = None,
    generate: Annotated[
        int, typer.Option(help="Let a language model write that many tokens, and explain each.", min=0)
    ] = 0,
    composite: Composites = None,
    percentile: Percentile = None,
    smooth: Smooth = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the page.")] = Path("relprop-explain"),
    keep: Annotated[
        bool, typer.Option("--keep", help="Also keep each result, for `relprop show` and `report`.")
    ] = False,
    labels: Annotated[Path | None, typer.Option(help="A text file with the name of a class on each line.")] = None,
    row: Annotated[list[int] | None, typer.Option(help="Row of a table, from 0.", show_default="all")] = None,
    without: Without = None,
    lines: Annotated[bool, typer.Option("--lines", help="Each line of a text file is a text of its own.")] = False,
    words: Annotated[bool, typer.Option("--words", help="Join the tokens of words where texts are drawn.")] = False,
    context: Annotated[
        str | None, typer.Option(help="The second text of a pair: what a question is asked about.")
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Texts are messages, in the form of the tokenizer's chat template.")
    ] = False,
    max_length: Annotated[
        int | None, typer.Option(help="Cut texts to that many tokens.", min=1, show_default="long ones are refused")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="What arrays are drawn as: image, series, table, volume, audio.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Samples per second of sound or of a series.")] = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Inputs that go through the network at once.", min=1, show_default="64 rows, 1 of others"),
    ] = None,
    loose: Annotated[bool, typer.Option("--loose", help="Use the gradient of unknown operations, and say so.")] = False,
    trust_remote_code: Trusted = False,
    json: AsJson = False,
) -> None:
    """Explain what a network says about pictures, texts, rows of tables, or arrays."""
    with errors_in_one_line():
        Options(kind=kind, rate=rate, percentile=percentile_of(percentile))
        for name in composite or []:
            check_composite(name)
        text = models.may_read_text(model)
        paths = [] if text else samples.files(inputs)
        explaining.check_folder(out)
        loaded = models.load(model, weights, pictures_of(size, mean, std), trust_remote_code)
        names = names_of(labels) if labels else loaded.labels
        found: Iterable[explaining.ExplainedInput]
        if loaded.tokenizer is not None:
            tried = Tried.of_texts()
            some = texts.read(inputs, tried, lines=lines, second=context)
            wish = texts.Wish(
                target or (), against, composite or ("auto",), generate, max_length, not loose, batch_size or 1, chat
            )
            found, count = texts.explain(replace(loaded, labels=names), some, wish, tried), len(some)
        else:
            for option, given in (
                ("--generate", generate), ("--context", context), ("--max-length", max_length), ("--chat", chat)
            ):  # fmt: skip
                if given:
                    raise InputError(f"{option} is for networks that read text; {loaded.name} does not.")
            tried, read_in = Tried(), []
            for path in paths or samples.files(inputs):
                with tried.each(visible(path.name)):
                    read_in += samples.read(path, loaded, rows=row or (), without=without or ())

            def of_some(chunk: Sequence[samples.Sample]) -> list[explaining.ExplainedInput]:
                picture = "--size is the side of the pictures it takes; one number for --mean and one for --std makes them grey."
                fix = picture if chunk[0].picture else "Is the first axis that of samples?"
                with network.taking(loaded, chunk[0].inputs, fix):
                    return explaining.explain(
                        loaded.model, chunk, names, targets=target or (), against=against,
                        composites=composite or ("auto",), strict=not loose, batch_size=batch_size, bounds=loaded.bounds(),
                    )  # fmt: skip

            chunks = explaining.chunks(read_in, batch_size)
            found, count = (each for chunk in chunks for each in tried.together(chunk, of_some)), len(read_in)
        writer = Writer(
            out, _title, keep=keep, paragraphs=lambda: [f"Network: {loaded.name}.", *tried.lines()],
            percentile=percentile, kind=kind, rate=rate, merge=words or None, smooth=smooth,
        )  # fmt: skip
        explained = list(writer.each(printing.progress(found, "explaining", count)))
        tried.check(len(explained))
        written = [*writer.paths, writer.page]
        _finish(explained, written, json, tried)


@app.command()
def check(
    inputs: Annotated[
        list[str] | None, typer.Argument(help="A sample; without one, numbers of --shape, or a short text.")
    ] = None,
    model: Model = models.DEFAULT,
    weights: Weights = None,
    composite: Annotated[
        str, typer.Option("--composite", "-c", help="Name of a composite.", autocompletion=composite_names)
    ] = "auto",
    without: Without = None,
    shape: Annotated[
        str | None, typer.Option(help="Shape of the inputs, samples first.", show_default="1,3 and the picture's size")
    ] = None,
    trust_remote_code: Trusted = False,
    json: AsJson = False,
) -> None:
    """List a network's operations, the rule that would act on each, and those that are unknown, without explaining."""
    with errors_in_one_line():
        check_composite(composite)
        loaded = models.load(model, weights, trusted=trust_remote_code)
        further: dict[str, Any] = {}
        sample: Any
        if loaded.tokenizer is not None:
            if shape is not None:
                raise InputError(f"--shape is for networks of tensors; {loaded.name} reads text: write one instead.")
            text = texts.read(inputs)[0].text if inputs else network.SAMPLE_TEXT
            sample, further = texts.inputs_of(loaded, text)
        elif inputs:
            sample = samples.read(samples.files(inputs)[0], loaded, without=without or ())[0].inputs
        else:
            side = getattr(loaded.model, "size", 224)
            sample = network.sample_of(numbers_of(shape, "--shape", int) if shape else (1, 3, side, side))
        reads = loaded.tokenizer is not None
        rules: Any = composite
        if composite in BOUNDED and not reads:
            low, high = loaded.bounds()
            rules = relprop.composites.NAMES[composite](low=low, high=high)
        with nullcontext() if reads else network.taking(loaded, sample, "Give a sample, or another --shape."):
            found = relprop.survey(loaded.model, sample, rules, forward_kwargs=further)
        unknown = [vars(each) for each in found.unknown]
        columns = ("operation", "family", "rule", "calls", "modules")
        if json:
            rows = [dict(zip(columns, line, strict=True)) for line in found.rows()]
            printing.data(
                {"composite": found.composite.name, "operations": rows, "unknown": unknown, "output": found.shape}
            )
        else:
            title = f"{loaded.name}, composite {found.composite.name}"
            printing.table(columns, found.rows(), numbers=("calls",), title=title)
            for each in found.unknown:
                why = f": {each.reason}" if each.reason else ""
                typer.echo(f"unknown: {each.operation} in {each.where}, given {each.shapes}{why}")
            if not unknown:
                typer.echo("Every operation is known.")
    if unknown:
        raise typer.Exit(1)


app.command()(evaluating.evaluate)
app.command()(comparing.compare)
app.command()(concepts.index)
app.command()(concepts.concepts)
app.command()(concepts.graph)
app.command()(lists.rules)
app.command()(lists.composites)
app.command()(keeping.show)
app.command()(keeping.report)
app.command()(running.run)
app.command()(serving.serve)
app.command()(stored.spray)
app.command()(stored.export)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(relprop.__version__)
        raise typer.Exit


def _title(explained: Sequence[explaining.ExplainedInput]) -> str:
    more = len(explained) - 1
    return f"What spoke for the decision? {explained[0].name}{f' and {more} more' * (more > 0)}"


def _finish(explained: list[explaining.ExplainedInput], paths: list[Path], json: bool, tried: Tried) -> None:
    if json:
        printing.data(explaining.as_data(explained, paths, tried))
    else:
        printing.results(explained)
        typer.echo(f"{len(paths) - 1} file{'s' * (len(paths) != 2)} and {paths[-1]}")
    say_what_is_missing(tried)
