"""The commands and their options.

Exit codes: 0 done; 1 it could not be done; 2 what was asked for does not exist (an option, a file, a class, ...).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

import relprop
from relprop import rules as all_rules
from relprop.cli import explaining, models, photographs, printing, reading, texts
from relprop.cli.printing import Commands, errors_in_one_line
from relprop.cli.trying import Tried
from relprop.composites import NAMES
from relprop.errors import CompositeError, InputError
from relprop.rendering import Options
from relprop.rendering.visible import visible
from relprop.results.show import in_terminal
from relprop.rules import Rule

app = typer.Typer(
    cls=Commands,
    help="Layer-wise relevance propagation: what spoke for a decision of a network, and what against it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _composite_names(incomplete: str) -> list[str]:
    return [name for name in ("auto", *NAMES) if name.startswith(incomplete)]


Composites = Annotated[
    list[str] | None,
    typer.Option(
        "--composite",
        "-c",
        help="Name of a composite; several times to compare.",
        show_default="auto",
        autocompletion=_composite_names,
    ),
]
Percentile = Annotated[
    float | None,
    typer.Option(
        help="End of the colour scale, as a percentile of |relevance|; what is beyond is counted in the note of each map.",
        show_default="the largest: nothing is clipped",
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help=f"The network: {models.DEFAULT}, {', '.join(models.SOURCES[:-1])} or {models.SOURCES[-1]}.",
    ),
]
Weights = Annotated[Path | None, typer.Option(help="Its weights, a .safetensors file.", show_default="its own")]
AsJson = Annotated[bool, typer.Option("--json", help="Print data for a program, not a table.")]
Without = Annotated[list[str] | None, typer.Option(help="Column of a table that is no input.")]
Title = Annotated[str, typer.Option(help="Title of the page.")]
Size = Annotated[
    int | None, typer.Option(help="Side of the pictures the network takes.", min=1, show_default="as it says")
]
Mean = Annotated[str | None, typer.Option(help="Mean of each colour, such as 0.5,0.5,0.5.", show_default="as it says")]
Std = Annotated[str | None, typer.Option(help="Standard deviation of each colour.", show_default="as it says")]

Trusted = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Let an hf: model run the code that comes with it, and read weights that are pickled.",
    ),
]

# Of LRP's heavy-tailed maps, this leaves 251 of 224 x 224 pixels beyond the scale and the rest visible.
_DEMO_PERCENTILE = 99.5


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the page.")] = Path("relprop-demo"),
    composite: Composites = None,
    percentile: Annotated[float, typer.Option(help="End of the colour scale; 100 clips nothing.")] = _DEMO_PERCENTILE,
    json: AsJson = False,
) -> None:
    """Explain photographs with EfficientNet-Lite0: its class, another one, and one against the other."""
    with errors_in_one_line():
        options = Options(percentile=percentile)
        loaded = models.load(models.DEFAULT)
        explained = []
        for photograph in printing.progress(photographs.PHOTOGRAPHS, "explaining", len(photographs.PHOTOGRAPHS)):
            picture = photograph.open()
            seen = reading.Sample(photograph.title, photograph.title, loaded.tensor(picture), loaded.seen(picture))
            names = composite or ["auto", "epsilon_plus_flat"]
            explained += explaining.explain(
                loaded.model, [seen], loaded.labels, against=photograph.against, composites=names
            )
        credits = " ".join(f"{p.title}: {p.credit}" for p in photographs.PHOTOGRAPHS)
        paths = explaining.write(
            explained, out, "Which pixels spoke for the class?", keep=False, paragraphs=[credits],
            percentile=options.percentile,
        )  # fmt: skip
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
        Options(kind=kind, rate=rate, percentile=_percentile(percentile))
        for name in composite or []:
            _known_composite(name)
        text = models.may_read_text(model)
        paths = [] if text else reading.files(inputs)
        explaining.check_folder(out)
        loaded = models.load(model, weights, _pictures(size, mean, std), trust_remote_code)
        names = _names(labels) if labels else loaded.labels
        found: Iterable[explaining.Explained]
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
            tried, samples = Tried(), []
            for path in paths or reading.files(inputs):
                with tried.each(visible(path.name)):
                    samples += reading.read(path, loaded, rows=row or (), without=without or ())

            def of_some(chunk: Sequence[reading.Sample]) -> list[explaining.Explained]:
                picture = "--size is the side of the pictures it takes."
                fix = picture if chunk[0].picture else "Is the first axis that of samples?"
                with models.taking(loaded, chunk[0].inputs, fix):
                    return explaining.explain(
                        loaded.model, chunk, names, targets=target or (), against=against,
                        composites=composite or ("auto",), strict=not loose, batch_size=batch_size,
                    )  # fmt: skip

            chunks = explaining.chunks(samples, batch_size)
            found, count = (each for chunk in chunks for each in tried.together(chunk, of_some)), len(samples)
        explained = list(printing.progress(found, "explaining", count))
        tried.check(len(explained))
        more = len(explained) - 1
        title = f"What spoke for the decision? {explained[0].name}{f' and {more} more' * (more > 0)}"
        written = explaining.write(
            explained, out, title, keep=keep, paragraphs=[f"Network: {loaded.name}.", *tried.lines()],
            percentile=percentile, kind=kind, rate=rate, merge=words or None,
        )  # fmt: skip
        _finish(explained, written, json, tried)


@app.command()
def check(
    inputs: Annotated[
        list[str] | None, typer.Argument(help="A sample; without one, numbers of --shape, or a short text.")
    ] = None,
    model: Model = models.DEFAULT,
    weights: Weights = None,
    composite: Annotated[
        str, typer.Option("--composite", "-c", help="Name of a composite.", autocompletion=_composite_names)
    ] = "auto",
    without: Without = None,
    shape: Annotated[
        str | None, typer.Option(help="Shape of the inputs, samples first.", show_default="1,3 and the picture's size")
    ] = None,
    trust_remote_code: Trusted = False,
    json: AsJson = False,
) -> None:
    """Say what a network is made of, which rule would act where, and what is unknown, before explaining anything."""
    with errors_in_one_line():
        _known_composite(composite)
        loaded = models.load(model, weights, trusted=trust_remote_code)
        further: dict[str, Any] = {}
        sample: Any
        if loaded.tokenizer is not None:
            if shape is not None:
                raise InputError(f"--shape is for networks of tensors; {loaded.name} reads text: write one instead.")
            text = texts.read(inputs)[0].text if inputs else models.SAMPLE_TEXT
            sample, further = texts.inputs_of(loaded, text)
        elif inputs:
            sample = reading.read(reading.files(inputs)[0], loaded, without=without or ())[0].inputs
        else:
            side = getattr(loaded.model, "size", 224)
            sample = models.sample_of(_numbers(shape, "--shape", int) if shape else (1, 3, side, side))
        reads = loaded.tokenizer is not None
        with nullcontext() if reads else models.taking(loaded, sample, "Give a sample, or another --shape."):
            found = relprop.survey(loaded.model, sample, composite, forward_kwargs=further)
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


@app.command()
def rules(json: AsJson = False) -> None:
    """List the rules: their formula, and the operations they act on."""
    found = [
        {"name": name, "parameters": _signature(rule), "what": _what(rule), "acts_on": sorted(rule.families)}
        for name, rule in vars(all_rules).items()
        if isinstance(rule, type) and issubclass(rule, Rule) and name not in ("Rule", "WeightedRule")
    ]
    if json:
        printing.data(found)
        return
    rows = [(f"{each['name']}{each['parameters']}", each["what"], _families(each["acts_on"])) for each in found]
    printing.table(("Rule", "What it does", "Acts on"), rows)


@app.command()
def composites(
    name: Annotated[
        str | None, typer.Argument(help="One of them, to see its table.", autocompletion=_composite_names)
    ] = None,
    json: AsJson = False,
) -> None:
    """List the composites, or the table of one: which rule goes where."""
    with errors_in_one_line():
        if name is not None:
            chosen = relprop.composites.by_name(name)
            rows = [(str(place), repr(rule)) for place, rule in chosen.entries]
            if json:
                entries = [{"place": place, "rule": rule} for place, rule in rows]
                printing.data({"name": name, "what": _what(NAMES[name]), "entries": entries})
            else:
                typer.echo(f"{name}{_signature(NAMES[name])}: {_what(NAMES[name])}\n{chosen}")
            return
    found = [{"name": each, "parameters": _signature(make), "what": _what(make)} for each, make in NAMES.items()]
    if json:
        printing.data(found)
    else:
        auto = ("auto", "picks one by what the network is made of")
        printing.table(
            ("Composite", "What it does"), [auto, *((f"{e['name']}{e['parameters']}", e["what"]) for e in found)]
        )


@app.command()
def show(
    result: Annotated[Path, typer.Argument(help="A folder that R.save or `relprop explain --keep` wrote.")],
    where: Annotated[str, typer.Option("--in", help="terminal or browser.")] = "terminal",
    out: Annotated[
        Path | None, typer.Option(help="Write it there instead: .png, .svg, .pdf, .html, .json, .npz or .csv.")
    ] = None,
    percentile: Percentile = None,
    kind: Annotated[str | None, typer.Option(help="What it is drawn as.", show_default="as its shape says")] = None,
) -> None:
    """Show a result that was kept."""
    with errors_in_one_line():
        loaded = relprop.load(result)
        options: dict[str, Any] = {"percentile": _percentile(percentile), "kind": kind}
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


@app.command()
def report(
    results: Annotated[
        list[Path], typer.Argument(help="Folders that R.save or `relprop explain --keep` wrote, or folders of them.")
    ],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
    title: Title = "Report",
    percentile: Percentile = None,
) -> None:
    """Write a page about results that were kept: inputs, outputs, maps, rules, versions."""
    with errors_in_one_line():
        paths = explaining.kept(results)
        names = [path.name for path in paths]
        tried = Tried()
        loaded = {}
        for name, path in zip(names, paths, strict=True):
            with tried.each(visible(str(path))):
                loaded[name if name and names.count(name) == 1 else str(path)] = [relprop.load(path)]
        tried.check(len(loaded))
        relprop.report(loaded, out, title=title, paragraphs=tried.lines(), percentile=_percentile(percentile))
        typer.echo(str(out))
        _say_what_is_missing(tried)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(relprop.__version__)
        raise typer.Exit


def _finish(explained: list[explaining.Explained], paths: list[Path], json: bool, tried: Tried) -> None:
    if json:
        printing.data(explaining.as_data(explained, paths, tried))
    else:
        printing.results(explained)
        typer.echo(f"{len(paths) - 1} file{'s' * (len(paths) != 2)} and {paths[-1]}")
    _say_what_is_missing(tried)


def _say_what_is_missing(tried: Tried) -> None:
    """Ends with 1 where something was left out."""
    if tried.left_out:
        printing.left_out(tried.lines())
        raise typer.Exit(1)


def _percentile(value: float | None) -> float | None:
    if value is not None and not 0.0 < value <= 100.0:
        raise InputError(f"--percentile is {value:g}; it lies above 0 and up to 100")
    return value


def _known_composite(name: str) -> None:
    if name != "auto" and name not in NAMES:
        raise CompositeError(f"there is no composite {name!r}; there are: auto, {', '.join(NAMES)}")
    if name != "auto" and (needed := _needed(NAMES[name])):
        raise CompositeError(
            f"{name!r} needs {' and '.join(needed)}, which depend on the inputs: use it from Python, "
            f"relprop.composites.{name}({', '.join(f'{p}=...' for p in needed)})."
        )


def _needed(make: Any) -> list[str]:
    """The parameters without which a composite cannot be made."""
    return [name for name, p in inspect.signature(make).parameters.items() if p.default is p.empty]


def _pictures(size: int | None, mean: str | None, std: str | None) -> models.Pictures | None:
    if size is None and mean is None and std is None:
        return None
    given: dict[str, Any] = {"size": size}
    for name, text in (("mean", mean), ("std", std)):
        if text is not None:
            given[name] = _numbers(text, f"--{name}", float)
            if len(given[name]) != 3:
                raise InputError(f"--{name} {text!r} must be three numbers: of red, green and blue")
            if name == "std" and not all(given[name]):
                raise InputError(f"--std {text!r}: a picture cannot be divided by 0")
    return models.Pictures(**given)


def _numbers(text: str, option: str, convert: type) -> tuple[Any, ...]:
    try:
        return tuple(convert(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text!r} must be numbers with commas between them") from None


def _names(path: Path) -> list[str]:
    return reading.text_of(path).splitlines()


def _what(thing: Any) -> str:
    """What it does and where it is from: its documentation, without the list of arguments."""
    return " ".join((inspect.getdoc(thing) or "").partition("\n\nArgs:")[0].partition("\n\nRaises:")[0].split())


def _signature(thing: Any) -> str:
    parts = [
        name if p.default is p.empty else f"{name}={p.default!r}"
        for name, p in inspect.signature(thing).parameters.items()
    ]
    return f"({', '.join(parts)})"


def _families(names: Any) -> str:
    return "everything" if len(names) > 8 else ", ".join(names)
