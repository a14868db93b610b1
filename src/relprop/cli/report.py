"""Write pictures and the page into a folder; print the numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from relprop.cli.explaining import Explanation
from relprop.rendering import Panel, Section, overlay, page, strip

_PAGE_TEXT = (
    "Layer-wise relevance propagation takes the score of a class and hands it back, layer by layer, to the "
    "pixels. Red pixels spoke for the class, blue ones against it; white ones had no say. Relevance is "
    "summed over the three colour channels, and each map has its own scale; pixels beyond its end are "
    "counted under the map.",
    "Above: the picture in grey, tinted by relevance. Below: relevance alone. The residual is the part of "
    "the score that did not arrive at the pixels, because biases inside the network kept it or the rules of "
    "the composite took it.",
)


def write(explanations: Sequence[Explanation], folder: Path, title: str) -> list[Path]:
    """Write an overlay for each map, a strip for each composite, and last `index.html`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise FileExistsError(f"{folder} is a file: choose a folder with --out") from error
    paths = []
    for explanation in explanations:
        stem = _slug(Path(explanation.title).stem)
        for composite, group in groupby(explanation.entries, key=lambda entry: entry.composite):
            entries = list(group)
            # "auto (gamma_flat)" is auto in a file name, whatever it chose.
            prefix = f"{stem}-{_slug(composite.partition(' ')[0])}"
            panels = [Panel(explanation.picture, "What the network saw")]
            for entry in entries:
                tinted = overlay(entry.heatmap, explanation.picture)
                numbers = f"score {entry.score:.2f}, sum {entry.total:.2f}"
                caption = f"{entry.name}\n{numbers}\n{entry.heatmap.note}".rstrip()
                panels.append(Panel(tinted, caption))
                panels.append(Panel(entry.heatmap.image(), caption, entry.heatmap.limit))
                paths.append(folder / f"{prefix}-{_slug(entry.name)}.png")
                tinted.save(paths[-1])
            paths.append(folder / f"{prefix}.png")
            strip(panels, title=f"{explanation.title}, {composite}").save(paths[-1])
    sections = [Section(each.title, each.picture, each.entries, each.text) for each in explanations]
    paths.append(folder / "index.html")
    paths[-1].write_text(page(title, sections, text=_PAGE_TEXT), encoding="utf-8")
    return paths


def show(explanations: Sequence[Explanation], console: Console) -> None:
    """Print a table for each picture."""
    for explanation in explanations:
        table = Table(
            title=Text(explanation.title),
            caption=Text(explanation.text),
            title_justify="left",
            caption_justify="left",
        )
        for column in ("Class", "Composite"):
            table.add_column(column)
        for column in ("Score", "Sum", "Residual", "Time"):
            table.add_column(column, justify="right", no_wrap=True)
        for entry in explanation.entries:
            numbers = (f"{entry.score:.3f}", f"{entry.total:.3f}", f"{entry.residual:.3f}")
            table.add_row(Text(entry.name), Text(entry.composite), *numbers, f"{entry.seconds * 1e3:.0f} ms")
        console.print(table)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "picture"
