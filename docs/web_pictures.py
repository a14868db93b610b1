"""Takes the pictures of the page for web.md and the README: `make web-pictures`. Chromium is driven by Playwright."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

import relprop
from relprop.web import server
from relprop.web.page_subject import subject_of
from relprop.web.runs import BrowsedRun

ROOT = Path(__file__).parent.parent
WHERE = Path(__file__).parent / "images"
WIDE, NARROW, SHOWN, GAP = 1400, 420, 1000, 16
"""The widths of the pages, that of a wide page's picture, and of a gap, in pixels."""
_DONE = "!document.querySelector('.pending, .toast-body') && document.fonts.ready"


def marked_run(folder: Path) -> BrowsedRun:
    """A run over digits of which one class has a mark, as in examples/watermark.py."""
    sys.path.insert(0, str(ROOT / "examples"))
    from watermark import digits, network

    x, y, _ = digits()
    relprop.explain_dataset(
        x, network(x, y), folder, target=y.tolist(), batch_size=128, progress=False
    )
    return BrowsedRun(folder, source=x, labels=[f"digit {n}" for n in range(10)])


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium."""
    programs = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    with sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=next(filter(None, programs), None),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield opened
        opened.close()


def taken(opened: Any, address: str, ready: str, width: int) -> Image.Image:
    """A whole page, as wide as a page of the documentation shows it."""
    page = opened.new_page(viewport={"width": width, "height": 1000})
    page.set_default_timeout(120_000)
    page.goto(address)
    page.wait_for_selector(ready)
    page.wait_for_function(_DONE)
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000)  # what fades in
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    page.close()
    if width <= SHOWN:
        return in_columns(picture)
    height = round(picture.height * SHOWN / width)
    return picture.resize((SHOWN, height), Image.Resampling.LANCZOS)


def in_columns(picture: Image.Image, columns: int = 3) -> Image.Image:
    """A long picture, cut into parts of one height, which stand side by side."""
    height = -(-picture.height // columns)
    wide = picture.width + GAP
    found = Image.new("RGB", (columns * wide - GAP, height), "#dddddd")
    for n in range(columns):
        bottom = min((n + 1) * height, picture.height)
        found.paste(picture.crop((0, n * height, picture.width, bottom)), (n * wide, 0))
    return found


def main() -> None:
    """Takes them all."""
    with tempfile.TemporaryDirectory() as folder, browser() as opened:
        network = server.start(
            server.made([("network", lambda: subject_of("efficientnet_lite0"))]), port=0
        )
        one = f"{network.address}?example=0&target=282"
        run = marked_run(Path(folder) / "digits")
        runs = server.start(server.made([], runs=[("digits", lambda: run)]), port=0)
        found = f"{runs.address}?view=clusters&by=target&size=12&neighbours=10"
        wanted = {
            "web": (f"{one}&against=285", "#maps .stage svg >> nth=2", WIDE),
            "web-narrow": (one, "#maps .stage svg", NARROW),
            "web-run": (found, "#clusters svg", WIDE),
        }
        for name, (address, ready, width) in wanted.items():
            taken(opened, address, ready, width).save(
                WHERE / f"{name}.png", optimize=True
            )
            print(WHERE / f"{name}.png")
        network.close()
        runs.close()


if __name__ == "__main__":
    main()
