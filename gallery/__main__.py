"""`python -m gallery FOLDER`: draws every map as a picture, and a page of them all; with names, those maps only."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every weight is in a package: nothing is asked of the network

from gallery.code import code
from gallery.maps import MAPS, Map
from relprop.rendering import Drawing, framed, html
from relprop.results.files import atomic


def main(folder: Path, *names: str) -> None:
    """Draws the gallery into a folder."""
    chosen = named(names)
    folder.mkdir(parents=True, exist_ok=True)
    body = [
        "<p>Drawn by relprop itself; every picture says its scale. Red spoke for what is explained, blue against it.</p>"
    ]
    begun, count = time.perf_counter(), 0
    for chapter, group in groupby(drawn(folder, chosen), key=lambda pair: pair[0].chapter):
        body.append(f"<h2>{html.text(chapter)}</h2>")
        for shown, drawing in group:
            if isinstance(drawing, str):
                body.append(f"<p>Left out: {html.text(shown.title)} ({html.text(drawing)}).</p>")
            else:
                body.append(section(shown, drawing))
                count += 1
    atomic.write(folder / "index.html", html.page("relprop: a gallery", "\n".join(body)).encode())
    print(f"{count} maps in {time.perf_counter() - begun:.0f} s: {folder / 'index.html'}")


def named(names: Sequence[str]) -> list[Map]:
    """The maps of these names, in the order of the page; without names, all."""
    unknown = set(names) - {shown.name for shown in MAPS}
    if unknown:
        raise SystemExit(f"no such map: {', '.join(sorted(unknown))}; there are: {', '.join(m.name for m in MAPS)}")
    return [shown for shown in MAPS if not names or shown.name in names]


def drawn(folder: Path, maps: Sequence[Map]) -> Iterator[tuple[Map, Drawing | str]]:
    """Draws each map and writes it as a picture. In place of a map whose package is missing, what is missing."""
    for shown in maps:
        start = time.perf_counter()
        try:
            drawing = shown.draw()
        except ModuleNotFoundError as error:
            print(f"left out: {shown.title} ({error})", file=sys.stderr)
            yield shown, str(error)
            continue
        framed(drawing).to_image(2).save(folder / f"{shown.name}.png", optimize=True)
        print(f"{time.perf_counter() - start:5.1f} s  {shown.title}", file=sys.stderr)
        yield shown, drawing


def section(shown: Map, drawing: Drawing) -> str:
    """A map on the page, under its heading and what is seen on it, with its code."""
    return (
        f"<section><h3>{html.text(shown.title)}</h3><p>{html.text(shown.text)}</p>\n"
        f'<div class="scroll">{drawing.to_svg()}</div>\n'
        f"<details class=screen><summary>The code</summary><pre>{html.lines(code(shown))}</pre></details></section>"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "relprop-gallery"), *sys.argv[2:])
