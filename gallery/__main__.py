"""`python -m gallery FOLDER`: draws every map as a picture, and a page of them all; with names, those maps only."""

from __future__ import annotations

import os
import sys
import time
from itertools import groupby
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every weight is in a package: nothing is asked of the network

from gallery.maps import MAPS, Map
from relprop.rendering import Drawing, framed, html
from relprop.results.files import atomic


def main(folder: Path, *names: str) -> None:
    """Draws the gallery into a folder."""
    unknown = set(names) - {shown.name for shown in MAPS}
    if unknown:
        raise SystemExit(f"no such map: {', '.join(sorted(unknown))}; there are: {', '.join(m.name for m in MAPS)}")
    folder.mkdir(parents=True, exist_ok=True)
    body = [
        "<p>Drawn by relprop itself; every picture says its scale. Red spoke for what is explained, blue against it.</p>"
    ]
    chosen = [shown for shown in MAPS if not names or shown.name in names]
    begun, drawn = time.perf_counter(), 0
    for chapter, group in groupby(chosen, key=lambda shown: shown.chapter):
        body.append(f"<h2>{html.text(chapter)}</h2>")
        for shown in group:
            start = time.perf_counter()
            try:
                drawing = shown.draw()
            except ModuleNotFoundError as error:
                body.append(f"<p>Left out: {html.text(shown.title)} ({html.text(str(error))}).</p>")
                print(f"left out: {shown.title} ({error})", file=sys.stderr)
                continue
            framed(drawing).to_image(2).save(folder / f"{shown.name}.png", optimize=True)
            body.append(section(shown, drawing))
            drawn += 1
            print(f"{time.perf_counter() - start:5.1f} s  {shown.title}", file=sys.stderr)
    atomic.write(folder / "index.html", html.page("relprop: a gallery", "\n".join(body)).encode())
    print(f"{drawn} maps in {time.perf_counter() - begun:.0f} s: {folder / 'index.html'}")


def section(shown: Map, drawing: Drawing) -> str:
    """A map on the page, under its heading and what is seen on it."""
    return (
        f"<section><h3>{html.text(shown.title)}</h3><p>{html.text(shown.text)}</p>\n"
        f'<div class="scroll">{drawing.to_svg()}</div></section>'
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "relprop-gallery"), *sys.argv[2:])
