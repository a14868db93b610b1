"""`python -m gallery FOLDER`: draws every map as a picture, and a page of them all."""

from __future__ import annotations

import sys
import time
from itertools import groupby
from pathlib import Path

from gallery.maps import MAPS
from relprop.rendering import html
from relprop.rendering.drawing import framed
from relprop.storage import atomic


def main(folder: Path) -> None:
    """Draws the gallery into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    body = [
        "<p>Drawn by relprop itself; every picture says its scale. Red spoke for what is explained, blue against it.</p>"
    ]
    begun = time.perf_counter()
    for chapter, group in groupby(MAPS, key=lambda shown: shown.chapter):
        body.append(f"<h2>{html.text(chapter)}</h2>")
        for shown in group:
            start = time.perf_counter()
            drawing = shown.draw()
            image = framed(drawing).to_image(2)
            image.save(folder / f"{shown.draw.__name__.replace('_', '-')}.png", optimize=True)
            body.append(
                f"<section><h3>{html.text(shown.title)}</h3><p>{html.text(shown.text)}</p>\n"
                f'<div class="scroll">{drawing.to_svg()}</div></section>'
            )
            print(f"{time.perf_counter() - start:5.1f} s  {shown.title}", file=sys.stderr)
    atomic.write(folder / "index.html", html.page("relprop: a gallery", "\n".join(body)).encode())
    print(f"{len(MAPS)} maps in {time.perf_counter() - begun:.0f} s: {folder / 'index.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "relprop-gallery"))
