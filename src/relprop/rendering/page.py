"""One static HTML page that holds all it shows: no script, nothing loaded from elsewhere, text escaped."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from itertools import groupby

from PIL import Image

from relprop.rendering.heatmap import Heatmap, overlay
from relprop.rendering.strip import colour_bar

_COLUMNS = ("Class", "Composite", "Score", "Sum of relevance", "Residual", "Time", "Scale", "Note")
_NUMBERS = _COLUMNS[2:7]


@dataclass(frozen=True, eq=False)
class Entry:
    """One explanation: a map and the numbers that belong to it.

    Attributes:
        name: The class, or whatever was explained.
        heatmap: The map.
        composite: The name of the composite that made it.
        score: The score that was explained.
        total: The sum of relevance over the input.
        residual: The part of the score that did not reach the input.
        seconds: What it took.
    """

    name: str
    heatmap: Heatmap
    composite: str
    score: float
    total: float
    residual: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Section:
    """A picture and its explanations.

    Attributes:
        title: A heading.
        picture: The picture as the network saw it.
        entries: The explanations, in the order in which they are shown.
        text: A paragraph under the heading.
    """

    title: str
    picture: Image.Image
    entries: Sequence[Entry]
    text: str = ""


def page(title: str, sections: Sequence[Section], *, text: Sequence[str] = ()) -> str:
    """Write the page; every text that is given is shown as text, whatever it holds."""
    style = resources.files("relprop.rendering").joinpath("page.css").read_text(encoding="utf-8")
    # No style but this one, to the letter; no script at all.
    style_hash = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    sources = f"default-src 'none'; img-src data:; style-src 'sha256-{style_hash}'"
    policy = f"{sources}; base-uri 'none'; form-action 'none'"
    paragraphs = "\n".join(f"<p>{escape(paragraph)}</p>" for paragraph in text)
    body = "\n".join(_section(section) for section in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{paragraphs}
{body}
</main>
</body>
</html>
"""


def _section(section: Section) -> str:
    picture = _image(section.picture, f"The picture: {section.title}")
    maps = "\n".join(
        _maps(composite, list(entries), picture, section.picture)
        for composite, entries in groupby(section.entries, key=lambda entry: entry.composite)
    )
    head = "".join(f'<th scope="col"{_number_class(column)}>{escape(column)}</th>' for column in _COLUMNS)
    rows = "\n".join(_row(entry) for entry in section.entries)
    text = f"<p>{escape(section.text)}</p>" if section.text else ""
    return f"""<section>
<h2>{escape(section.title)}</h2>
{text}
{maps}
<div class="scroll"><table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table></div>
</section>"""


def _maps(composite: str, entries: Sequence[Entry], shown: str, picture: Image.Image) -> str:
    figures = "\n".join(_figure(entry, picture) for entry in entries)
    return f"""<h3>{escape(composite)}</h3>
<div class="maps">
<figure>{shown}<figcaption><b>What the network saw</b></figcaption></figure>
{figures}
</div>"""


def _figure(entry: Entry, picture: Image.Image) -> str:
    about = f"{entry.name}, {entry.composite}"
    note = f"<span>{escape(entry.heatmap.note)}</span>" if entry.heatmap.note else ""
    return (
        "<figure>"
        + _image(overlay(entry.heatmap, picture), f"The picture in grey, tinted by relevance: {about}")
        + _image(entry.heatmap.image(), f"Heat map: {about}", "map")
        + _image(colour_bar(280, entry.heatmap.limit), f"Scale: ±{entry.heatmap.limit:.3g}", "bar")
        + f"<figcaption><b>{escape(entry.name)}</b>{note}</figcaption></figure>"
    )


def _row(entry: Entry) -> str:
    cells = (
        entry.name,
        entry.composite,
        f"{entry.score:.4f}",
        f"{entry.total:.4f}",
        f"{entry.residual:.4f}",
        f"{entry.seconds * 1e3:.0f} ms",
        f"±{entry.heatmap.limit:.3g}",
        entry.heatmap.note,
    )
    return (
        "<tr>"
        + "".join(
            f'<td class="note">{escape(cell)}</td>'
            if column == "Note"
            else f"<td{_number_class(column)}>{escape(cell)}</td>"
            for column, cell in zip(_COLUMNS, cells, strict=True)
        )
        + "</tr>"
    )


def _number_class(column: str) -> str:
    return ' class="number"' if column in _NUMBERS else ""


def _image(image: Image.Image, description: str, css_class: str = "") -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    shown_as = f' class="{css_class}"' if css_class else ""
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img{shown_as} {size} alt="{escape(description)}" src="data:image/png;base64,{data}">'
