"""What the tests of the page share: a small network that reads pictures, and a page of it that is served."""

from __future__ import annotations

import gc
import json
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from chromium import PROGRAM
from relprop.loading.network import Loaded, Pictures, picture_reading
from relprop.web.page_subject import PageSubject

LABELS = ["crane", "sea <b>lion</b>", "espresso", "crane", "lynx", "cup"]


class Small(nn.Module):
    """A network of pictures, 32 x 32, with six classes."""

    size = 32

    def __init__(self) -> None:
        super().__init__()
        self.labels = LABELS
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(6 * 14 * 14, 6),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def small() -> Small:
    """The network; `web_pages:small` is its name for `--model`."""
    torch.manual_seed(0)
    return Small().eval()


def subject(spec: str | None = "web_pages:small") -> PageSubject:
    model = small()
    return PageSubject(Loaded("small", model, LABELS, *picture_reading(model, Pictures())), spec, "picture")


def photograph(side: int = 48, seed: int = 1) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 255, (side, side + 8, 3), dtype=np.uint8)
    return Image.fromarray(values)


def asked(
    address: str, path: str = "", *, data: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """The status and the body of an answer."""
    body = json.dumps(data).encode() if data is not None and not isinstance(data, bytes) else data
    kind = {"Content-Type": "application/json"} if data is not None else {}
    request = Request(address.rstrip("/") + path, body, {**kind, **(headers or {})})
    try:
        with urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


@contextmanager
def served(subjects: Any = None, **given: Any) -> Iterator[str]:
    """The address of a page that is served meanwhile."""
    from relprop.web import server
    from relprop.web.limits import Limits

    limits = given.pop("limits", None) or Limits()
    parts = {name: given.pop(name) for name in ("examples", "runs") if name in given}
    blocks = server.made([("small", subject)] if subjects is None else subjects, limits, **parts)
    running = server.start(blocks, port=0, **given)
    try:
        yield running.address
    finally:
        running.close()
        # Sockets and loops of uvicorn, Gradio and the browser's driver end here, not in a later test that would hear of it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()


def question(address: str, path: Any, **given: Any) -> Any:
    """What the page answers a program about a picture."""
    from gradio_client import Client, handle_file

    client = Client(address, verbose=False, analytics_enabled=False)
    return client.predict(handle_file(path), **given, api_name="/explain")


class Page:
    """A page, with all that it asked for and complained about."""

    def __init__(self, browser: Any, address: str, width: int = 1400, path: str = "") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 1000}, accept_downloads=True)
        self.page.set_default_timeout(60_000)
        self.address = address
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        # it asks what its address holds once its buttons work: a key that is pressed before is lost on a slow machine
        with self.page.expect_response(lambda answer: "/queue/join" in answer.url):
            self.page.goto(address + path)
        self.page.wait_for_selector("#maps", state="attached")
        self.page.wait_for_timeout(500)  # an answer that is asked for as the stream of the first one ends may be lost

    def drop(self, path: Path) -> None:
        """Gives a file to the first field of files."""
        self.page.set_input_files("input[type=file] >> nth=0", path)

    def foreign(self) -> list[str]:
        """The requests that left this machine."""
        return [url for url in self.requests if not url.startswith((self.address, "data:", "blob:"))]


@contextmanager
def browsers() -> Iterator[Any]:
    """A browser; the test is skipped where none is installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="a browser is driven by Playwright")
    if PROGRAM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=PROGRAM,
            args=[
                "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
            ],
        )  # fmt: skip
        yield opened
        opened.close()


@contextmanager
def browsed(address: str, width: int = 1400, path: str = "") -> Iterator[Page]:
    """A page in a browser of its own."""
    with browsers() as opened:
        yield Page(opened, address, width, path)


@contextmanager
def free_port() -> Iterator[int]:
    """A port that nobody listens to."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        yield found.getsockname()[1]
