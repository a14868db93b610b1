"""The command `run`: a data set, each sample explained once, however often the command is stopped.

Exit codes: 0 done; 1 failed; 3 done with quarantined samples; 130 stopped by a signal.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from relprop.cli import printing
from relprop.cli.options import Model, check_composite
from relprop.cli.printing import errors_in_one_line
from relprop.cli.run_progress import shown_progress
from relprop.cli.stop_signals import StopSignals, listening
from relprop.errors import InputError
from relprop.loading import models
from relprop.rendering.visible import visible

STOPPED, DONE_WITH_BAD = 130, 3


def run(
    source: Annotated[
        str | None,
        typer.Argument(help="A folder of pictures, read recursively; a picture; or an .npy file, samples first."),
    ] = None,
    model: Model = models.DEFAULT,
    out: Annotated[
        str,
        typer.Option(
            help="Folder of the run, or an address such as s3://bucket/maps. The same command continues where it stopped."
        ),
    ] = "relprop-run",
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            "-t",
            help="A class by number or name, the column with the labels, or top:3. Several times for several targets.",
            show_default="the likeliest",
        ),
    ] = None,
    composite: Annotated[str, typer.Option("--composite", "-c", help="Name of a composite.")] = "auto",
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="input=sum, input=sum:28, input=full, input=none, or LAYER=channels, full, top:K. Several times."
        ),
    ] = None,
    number_format: Annotated[str, typer.Option(help="float16, float32 or int8.")] = "float16",
    batch_size: Annotated[str, typer.Option(help="Samples per forward pass, or auto: the quickest that fits.")] = "32",
    unit: Annotated[
        int | None, typer.Option(help="Samples per unit.", min=1, show_default="at most 30 s and 128 MiB")
    ] = None,
    loaders: Annotated[int, typer.Option(help="Threads that read samples ahead.", min=1)] = 1,
    processes: Annotated[int, typer.Option(help="Processes, each with its own network.", min=1)] = 1,
    engine: Annotated[
        str | None, typer.Option(help="ray: that many actors of Ray.", show_default="processes of this machine")
    ] = None,
    gpus: Annotated[float | None, typer.Option(help="With Ray, GPUs of each actor, such as 0.5.")] = None,
    part: Annotated[str | None, typer.Option(help="i/n: every n-th unit from the i-th, for job arrays.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many of the first samples.", min=1)] = None,
    max_bad: Annotated[str, typer.Option(help="Samples that may be put aside: 1% or a number.")] = "1%",
    column: Annotated[
        list[str] | None, typer.Option(help="Column of the input, or several: numbers, or two texts.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Column of the keys.", show_default="paths or row numbers")] = None,
    max_length: Annotated[int | None, typer.Option(help="Cut texts to this many tokens.", min=1)] = None,
    ledger: Annotated[bool, typer.Option("--ledger", help="Keep what absorbed the residual, by cause.")] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Say how far the run in --out (or named first) is, and leave.")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Compare all files of it with their hashes.")] = False,
    retry_bad: Annotated[
        bool, typer.Option("--retry-bad", help="Do the units with quarantined samples again.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the run in --out first; refused if anything else is in it.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Data as JSON on stdout, progress as lines of JSON on stderr.")
    ] = False,
) -> None:
    """Explain a data set into a folder, each sample once, and continue where an earlier call stopped."""
    with errors_in_one_line(), _going_on() as signals:
        if status or verify:
            _report(out if source is None else source, verify, json)
            return
        if source is None:
            raise InputError("name a source: a folder of pictures, a picture, or an .npy file.")
        check_composite(composite)
        named = [int(one) if one.lstrip("-").isdigit() else one for one in target or ()]
        from relprop.data import explain_dataset, pending
        from relprop.data.processing import part_of

        with shown_progress(json) as said, signals.patient():
            explained = explain_dataset(
            source, model, out, target=named[0] if len(named) == 1 else None, targets=named if len(named) > 1 else None,
            column=_columns(column), key=key, max_length=max_length, ledger=ledger, composite=composite, keep=_keep(keep), number_format=number_format, batch_size=_batch(batch_size), unit=unit,
            loaders=loaders, processes=processes, engine=engine, gpus=gpus, part=part, limit=limit, max_bad=_bad(max_bad),
            retry_bad=retry_bad, fresh=fresh, said=said, stop=signals.asked,
        )  # fmt: skip
        if signals.asked() and any(map(part_of(part), pending(out))):
            raise KeyboardInterrupt
        now = explained.status()
        if json:
            printing.data(now)
        else:
            typer.echo(f"{out}: {now['done']} of {now['samples']} samples done, {now['quarantined']} quarantined")
    if now["quarantined"] and part is None:
        raise typer.Exit(DONE_WITH_BAD)


def _report(out: str, verify: bool, json: bool) -> None:
    """Says how far a run is, or which of its files differ."""
    from relprop.data import open_run

    found = open_run(out)
    wrong = found.verify() if verify else []
    now = found.status() | ({"wrong": wrong} if verify else {})
    bad = found.quarantined
    if json:
        printing.data(now | {"bad": bad})
    else:
        for name, value in now.items():
            if name != "wrong" and value is not None:
                typer.echo(
                    f"{name.replace('_', ' ')}: {value:,.1f}" if isinstance(value, float) else f"{name}: {value:,}"
                )
        for key, why in bad.items():
            typer.echo(f"quarantined: {visible(key)}: {visible(why)}")
        for line in wrong:
            typer.echo(f"wrong: {visible(line)}")
        if verify and not wrong:
            typer.echo("Every file is as it was written.")
    if wrong:
        raise typer.Exit(1)


def _keep(given: list[str] | None) -> dict[str, Any] | None:
    """The forms of `--keep NAME=HOW`; the input's is sum unless it is named.

    Raises:
        InputError: one has another form.
    """
    if not given:
        return None
    found: dict[str, Any] = {}
    for one in given:
        name, equals, how = one.partition("=")
        if not equals or not name or not how:
            raise InputError(f"--keep is NAME=HOW, such as input=sum:28 or layer4=channels; got {one!r}.")
        found[name] = how
    return found


def _columns(given: list[str] | None) -> str | list[str] | None:
    return given[0] if given and len(given) == 1 else given or None


def _bad(text: str) -> float | int:
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else int(text)
    except ValueError:
        raise InputError(f"--max-bad is a share such as 1%, or a number of samples; got {text!r}.") from None


def _batch(text: str) -> int | str:
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--batch-size is a number, or auto; got {text!r}.") from None


@contextmanager
def _going_on() -> Iterator[StopSignals]:
    """Stops at SIGINT and SIGTERM with the line that continues it."""
    line = shlex.join(["relprop", *(word for word in sys.argv[1:] if word != "--fresh")])
    with listening(line) as signals:
        try:
            yield signals
        except KeyboardInterrupt:
            typer.echo(f"Stopped. To continue: {line}", err=True)
            raise typer.Exit(STOPPED) from None
