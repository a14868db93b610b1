"""The command `evaluate`: which composite is most faithful for a network and some pictures, texts, tables or arrays."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import relprop
from relprop.cli import explaining, printing, texts
from relprop.cli.options import (
    AsJson,
    Composites,
    Mean,
    Model,
    Size,
    Std,
    Trusted,
    Weights,
    Without,
    check_composite,
    names_of,
    pictures_of,
)
from relprop.cli.printing import errors_in_one_line, say_what_is_missing
from relprop.cli.trying import Tried
from relprop.errors import InputError
from relprop.evaluation import ConstantToken, Delete, Unattended
from relprop.evaluation.metrics import METRICS
from relprop.loading import models, samples
from relprop.loading.network import Loaded
from relprop.rendering.visible import visible


def evaluate(
    inputs: Annotated[
        list[str], typer.Argument(help="Pictures, .csv tables, .npy arrays, folders of them; texts, or .txt files.")
    ],
    model: Model = models.DEFAULT,
    weights: Weights = None,
    composite: Composites = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", help=f"One of {', '.join(METRICS)}; several times if wanted.", show_default="flipping"
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", help="A class, by name or number.", show_default="the likeliest of each input"),
    ] = None,
    units: Annotated[
        str | None,
        typer.Option(help="What is removed as one: pixels, steps, features, tokens, words, or the side of patches."),
    ] = None,
    of: Annotated[
        str, typer.Option(help="What is read off the output: logit, probability, log_probability or log_odds.")
    ] = "logit",
    search: Annotated[
        bool, typer.Option("--search", help="Search for the best composite instead, and print its code.")
    ] = False,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("relprop-evaluate.html"),
    keep: Annotated[
        Path | None, typer.Option(help="Folder for finished work: a second call with it does the rest only.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="A text file with the name of a class on each line.")] = None,
    without: Without = None,
    lines: Annotated[bool, typer.Option("--lines", help="Each line of a text file is a text of its own.")] = False,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows in a batch.", min=1, show_default="by their size")
    ] = None,
    trust_remote_code: Trusted = False,
    json: AsJson = False,
) -> None:
    """Measure how far composites can be trusted on a network and its data, and which is best."""
    with errors_in_one_line():
        for name in composite or []:
            check_composite(name)
        loaded = models.load(model, weights, pictures_of(size, mean, std), trust_remote_code)
        names = names_of(labels) if labels else loaded.labels
        aim = explaining.find_class(target, names) if target is not None else None
        tried = Tried() if loaded.tokenizer is None else Tried.of_texts()
        given, options = _given(loaded, inputs, tried, without or (), lines)
        options |= {"units": _units(units), "batch_size": batch_size, "of": of, "metric": metric or ["flipping"]}
        if search:
            chosen = options.pop("metric")
            if len(chosen) > 1:
                raise InputError("--search takes one --metric, which it is to be best by.")
            found = relprop.search(loaded.model, given, aim, metric=chosen[0], **options)
            typer.echo(found.table())
            typer.echo(str(found.best))
            say_what_is_missing(tried)
            return
        metrics = options.pop("metric")
        result = relprop.evaluate(
            loaded.model,
            given,
            aim,
            list(composite or ("auto",)),
            metrics=metrics,
            folder=keep,
            progress=_seen() and not json,
            **options,
        )
        relprop.report(
            {loaded.name: [result]}, out, title="How far can the explanations be trusted?", paragraphs=tried.lines()
        )
        if json:
            printing.data(
                {"table": result.table("csv"), "best": result.best(), "warnings": result.warnings(), "file": str(out)}
            )
        else:
            typer.echo(result.table())
            typer.echo(str(out))
    say_what_is_missing(tried)


def _seen() -> bool:
    """Whether a progress bar would be seen, and can be drawn."""
    return sys.stderr.isatty() and find_spec("tqdm") is not None


def _units(given: str | None) -> Any:
    """A name, or the side of patches."""
    return ("patches", int(given)) if given is not None and given.isdecimal() else given


def _given(
    loaded: Loaded, inputs: Sequence[str], tried: Tried, without: Sequence[str], lines: bool
) -> tuple[Any, dict[str, Any]]:
    """All inputs as one batch, and the options that suit them."""
    if loaded.tokenizer is not None:
        if not loaded.classes:
            raise InputError(f"evaluate is for classifiers; {loaded.name} answers with tokens: use it from Python.")
        found = texts.read(inputs, tried, lines=lines)
        tokenizer = loaded.tokenizer
        batch = tokenizer([each.text for each in found], padding=True, return_tensors="pt")
        hidden = getattr(tokenizer, "mask_token_id", None)
        pad = getattr(tokenizer, "pad_token_id", None) or 0
        return batch, {"replace": [ConstantToken(hidden) if hidden is not None else Unattended(), Delete(pad=pad)]}
    read = []
    for path in samples.files(inputs):
        with tried.each(visible(path.name)):
            read += samples.read(path, loaded, without=without)
    tried.check(len(read))
    shapes = {tuple(each.inputs.shape[1:]) for each in read}
    if len(shapes) > 1:
        raise InputError(f"the inputs must have one shape; they have {', '.join(map(str, sorted(shapes)))}.")
    return torch.cat([each.inputs for each in read]), {}
