"""The commands `index` and `concepts`: what hidden units stand for, and those of one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

import relprop
from relprop.cli.options import Mean, Model, Size, Std, Weights, pictures_of
from relprop.cli.printing import errors_in_one_line
from relprop.errors import InputError
from relprop.loading import models, samples
from relprop.loading.network import Loaded
from relprop.rendering.visible import quoted, visible
from relprop.text.parts import find_parts


class Files:
    """Pictures in a folder as a data set. Folders inside it are classes, named as the network's or by number.

    Args:
        folder: the folder.
        loaded: the network that reads them.

    Raises:
        InputError: there are no pictures, or a folder is not a class of the network.
    """

    def __init__(self, folder: Path, loaded: Loaded) -> None:
        self._loaded = loaded
        if not folder.is_dir():
            raise InputError(f"there is no folder {quoted(folder)}.")
        inside = sorted(part for part in folder.iterdir() if part.is_dir())
        labels = {part: _class_of(part.name, loaded.labels) for part in inside}
        self.items: list[tuple[Path, int | None]] = [
            (path, labels.get(part))
            for part in inside or [folder]
            for path in sorted(part.iterdir())
            if path.suffix.lower() in samples.PICTURES
        ]
        if not self.items:
            raise InputError(f"{quoted(folder)} holds no pictures ({', '.join(samples.PICTURES)}).")

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, n: int) -> Any:
        path, label = self.items[n]
        x: Tensor = samples.read(path, self._loaded)[0].inputs[0]
        return x if label is None else (x, label)


def _class_of(name: str, labels: Sequence[str] | None) -> int:
    if labels is not None and name in labels:
        return list(labels).index(name)
    if name.isdecimal():
        return int(name)
    raise InputError(
        f"the folder {quoted(name)} is not a class of the network: name it as the class, or by its number."
    )


def index(
    data: Annotated[Path, typer.Option(help="A folder of pictures; folders inside it are classes.")],
    layers: Annotated[list[str], typer.Option("--layer", help="A layer, by its path. Several times if wanted.")],
    out: Annotated[Path, typer.Option(help="Folder for the index. Unfinished work in it is continued.")] = Path(
        "relprop-index"
    ),
    model: Model = models.DEFAULT,
    weights: Weights = None,
    composite: Annotated[str, typer.Option(help="The rules.")] = "auto",
    keep: Annotated[int, typer.Option(help="References of each unit.", min=1)] = 16,
    batch_size: Annotated[int, typer.Option(help="Pictures per pass.", min=1)] = 16,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
) -> None:
    """Index what hidden units stand for: the pictures in which each had the most relevance."""
    with errors_in_one_line():
        loaded = models.load(model, weights, pictures_of(size, mean, std))
        made = relprop.index(
            loaded.model,
            Files(data, loaded),
            layers=layers,
            keep=keep,
            composite=composite,
            batch_size=batch_size,
            folder=out,
        )
        typer.echo(visible(f"{made!r}\n{out}", lines=True))


def concepts(
    picture: Annotated[Path, typer.Argument(help="A picture.")],
    folder: Annotated[Path, typer.Option("--index", help="The folder that `relprop index` wrote.")],
    data: Annotated[Path | None, typer.Option(help="The pictures of the index, for references.")] = None,
    layer: Annotated[str | None, typer.Option(help="A layer of the index.", show_default="its first")] = None,
    target: Annotated[str | None, typer.Option("--target", "-t", help="A class.", show_default="the likeliest")] = None,
    most: Annotated[int, typer.Option(help="How many units.", min=1)] = 4,
    out: Annotated[Path, typer.Option(help="The page: .svg, .png or .pdf.")] = Path("relprop-concepts.png"),
    model: Model = models.DEFAULT,
    weights: Weights = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
) -> None:
    """Show through which hidden units a network decided about a picture, and what they stand for."""
    with errors_in_one_line():
        loaded = models.load(model, weights, pictures_of(size, mean, std))
        known = relprop.load_index(folder, loaded.model, None if data is None else Files(data, loaded))
        chosen: Any = int(target) if target is not None and target.isdecimal() else target
        labels = None if loaded.labels is None else list(loaded.labels)
        x = samples.read(picture, loaded)[0].inputs
        R = relprop.attribute(loaded.model, x, chosen, labels=labels, composite=known.about["settings"]["composite"])
        page = R.concepts(known, layer, most)
        page.save(out)
        lines = [f"unit {unit}: {share:.1%}" for unit, share in zip(page.units, page.shares, strict=True)]
        typer.echo(visible("\n".join([f"{R.subject(0)}: {page.layer}", *lines, str(out)]), lines=True))


def graph(
    text: Annotated[str, typer.Argument(help="A text.")],
    model: Annotated[str, typer.Option(help="A network that reads text, hf:FOLDER or hf:NAME.")],
    against: Annotated[
        str | None, typer.Option(help="Of a language model: explain the next token rather than this one.")
    ] = None,
    keep: Annotated[int, typer.Option(help="How many heads and neurons.", min=1)] = 30,
    neurons: Annotated[bool, typer.Option(help="Whether neurons of MLPs are nodes as well.")] = True,
    composite: Annotated[str, typer.Option(help="The rules.")] = "attnlrp",
    out: Annotated[Path, typer.Option(help=".html, .svg, .png, .json, .graphml, .dot or .csv.")] = Path(
        "relprop-graph.html"
    ),
) -> None:
    """Draw which attention heads and neurons passed relevance to which, for one text."""
    with errors_in_one_line():
        loaded = models.load(model)
        if loaded.tokenizer is None:
            raise InputError(
                f"{visible(loaded.name)} reads no text: name a network that does, such as --model hf:FOLDER."
            )
        ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
        names = [loaded.tokenizer.decode([n]) for n in ids[0].tolist()]
        options: dict[str, Any] = {} if loaded.classes else {"forward_kwargs": {"use_cache": False}}
        target: Any = None
        if not loaded.classes:
            with torch.no_grad():
                best = int(loaded.model(ids, use_cache=False).logits[0, -1].argmax())
            target = (len(names) - 1, best)
            if against is not None:
                other = loaded.tokenizer(against, add_special_tokens=False)["input_ids"]
                if len(other) != 1:
                    raise InputError(f"--against is one token of the network; {quoted(against)} has {len(other)}.")
                if other[0] == best:
                    raise InputError(f"{quoted(against)} is the next token itself; name another one.")
                target = relprop.Contrast(target, (len(names) - 1, other[0]))
        seen = relprop.attribute(loaded.model, ids, target, composite=composite, layers="*.heads", **options)
        nodes: list[Any] = list(seen.layers)
        if neurons:
            nodes += [relprop.units(path, at="input").each(0, 1) for path in find_parts(loaded.model).mlp]
        made = relprop.graph(
            loaded.model, ids, target, nodes=nodes, keep=keep, composite=composite, tokens=names, **options
        )
        made.save(out)
        typer.echo(visible(f"{made!r}\n{out}", lines=True))
