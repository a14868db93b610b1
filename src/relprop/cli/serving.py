"""The command `serve`: a page on this machine where anyone can ask a network why."""

from __future__ import annotations

import os
import signal
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from relprop.cli.printing import errors_in_one_line
from relprop.errors import InputError
from relprop.loading import models, samples
from relprop.rendering.visible import quoted

PASSWORD = "RELPROP_WEB_AUTH"
"""The variable of the environment that holds `user:password`."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="A network, as `relprop explain --model` names it; several times for several.",
            show_default=models.DEFAULT,
        ),
    ] = None,
    example: Annotated[
        list[str] | None,
        typer.Option(
            help="What a visitor may start with: a picture, a table or an array, or a text; several times for several.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option(help="The folder of a run, as `relprop run` writes it, to browse; several times for several."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="The source of the runs, for their pictures.", show_default=False)
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(help="The folder of an index of the same source; the default is RUN/index.", show_default=False),
    ] = None,
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = 7860,
    host: Annotated[
        str, typer.Option(help="The address to listen at. Only this machine reaches the default; 0.0.0.0 is any.")
    ] = "127.0.0.1",
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="A name of this machine under which the page may be asked for, beside --host.", show_default=False
        ),
    ] = None,
    auth: Annotated[
        Path | None,
        typer.Option(help=f"A file with one line, user:password, which the page asks for. Or the variable {PASSWORD}."),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    seconds: Annotated[float, typer.Option(help="The seconds that one explanation may take.", min=1)] = 60.0,
    waiting: Annotated[int, typer.Option(help="How many questions may wait; more are refused.", min=1)] = 40,
) -> None:
    """Serve a page on this machine where anyone can ask a network why, or browse a run. Ctrl-C ends it."""
    with errors_in_one_line(), _ended_in_order():
        from relprop.web import server
        from relprop.web.gradio_here import without_garbage
        from relprop.web.guard import Rules
        from relprop.web.limits import Limits
        from relprop.web.page_subject import subject_of
        from relprop.web.runs import BrowsedRun

        limits = Limits(seconds=seconds, waiting=waiting)
        rules = Rules(
            limits, names=[*(name or ()), *([host] if host not in _LOOPBACK else [])],
            addresses=host not in _LOOPBACK, password=password_of(auth),
        )  # fmt: skip
        if run is None and (source is not None or index is not None):
            raise InputError("--source and --index belong to a run: name it with --run.")
        wanted = model or ([] if run else [models.DEFAULT])
        place = server.listening(host, port)  # before anything is loaded, which may take long
        try:
            with without_garbage():
                blocks = server.made(
                    [(each, partial(subject_of, each)) for each in wanted], limits,
                    runs=[(each.name, partial(BrowsedRun, each, source=source, index=index)) for each in run or ()],
                    failed=lambda line: typer.echo(f"relprop: {line}", err=True), examples=example or None,
                )  # fmt: skip
                running, place, address = server.served(blocks, host=host, port=port, rules=rules, place=place)
        except BaseException:
            place.close()
            raise
        if host not in _LOOPBACK and rules.password is None:
            typer.echo(f"relprop: whoever reaches {host} can use this page; --auth asks for a password.", err=True)
        typer.echo(f"{address} (Ctrl-C ends it)")
        if open_it:
            webbrowser.open(address)
        running.run(sockets=[place])


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Where SIGTERM ends the program, the folder of uploads is deleted before."""
    from relprop.web.gradio_here import delete_uploads

    def ended(*_: object) -> None:
        delete_uploads()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)  # at once, whatever is explained just now

    before = signal.signal(signal.SIGTERM, ended)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def password_of(file: Path | None) -> str | None:
    """The user and the password from a file or from the environment. The list of processes shows neither.

    Raises:
        InputError: the file is missing, or readable by others, or holds something else.
    """
    if file is None:
        return os.environ.get(PASSWORD) or None
    text = samples.text_of(file).strip()
    if "\n" in text or not all(text.partition(":")[::2]):
        raise InputError(f"{quoted(file)} must hold one line, user:password.")
    if os.name == "posix" and file.stat().st_mode & 0o077:
        raise InputError(f"{quoted(file)} can be read by others on this machine: chmod 600 {quoted(file)}.")
    return text
