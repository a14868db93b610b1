"""`python -m benchmarks.web`: what the page costs beyond the explanations, how it stands visitors, also hostile ones.

    python -m benchmarks.web                          # everything: about half an hour
    python -m benchmarks.web --only start clicks      # one or some of the steps
    python -m benchmarks.web --small                  # does it run? figures without meaning

EfficientNet-Lite0 over loopback, one thread of torch, the page in a process of its own. What is compared takes turns, so
that other work on the machine disturbs both alike. Two steps drive Chromium by Playwright.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from torch import nn

import relprop
from benchmarks import report
from benchmarks.web_hostile import attacked
from benchmarks.web_visitors import Reply, Visitor
from relprop.loading.photographs import PHOTOGRAPHS
from relprop.web import drawn, pictures
from relprop.web.page_subject import PageSubject, subject_of
from relprop.web.settings import PageSettings

MODEL = "efficientnet_lite0"
TINY = "benchmarks.web:tiny"
VISITORS, EVERY = 20, 10.0
"""How many visitors there are, and after how many seconds each asks about a picture."""
STEPS = ("start", "clicks", "visitors", "memory", "hostile")


class Tiny(nn.Module):
    """A network of pictures, 16 x 16, whose explanation costs next to nothing."""

    size = 16

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def tiny() -> Tiny:
    """The network; `benchmarks.web:tiny` is its name for `--model`."""
    torch.manual_seed(0)
    return Tiny().eval()


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.web", description=__doc__, formatter_class=form)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--rounds", type=int, default=15, help="rounds of the two steps that take turns (%(default)s)")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the visitors stay (%(default)s)")
    parser.add_argument("--explanations", type=int, default=10_000, help="of the step memory (%(default)s)")
    parser.add_argument("--requests", type=int, default=10_000, help="of the step hostile (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of those requests (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--small", action="store_true", help="2 rounds, half a minute, 100 explanations and requests")
    options = parser.parse_args()
    if options.small:
        options.rounds, options.minutes, options.explanations, options.requests = 2, 0.5, 100, 100
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    warnings.simplefilter("ignore")
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "start": lambda: start(options.rounds),
        "clicks": lambda: clicks(options.rounds),
        "visitors": lambda: visitors(options.minutes),
        "memory": lambda: flat(options.explanations),
        "hostile": lambda: hostile(options.requests, options.seed),
    }
    record: dict[str, Any] = {"environment": report.environment("cpu", 1)}
    print(json.dumps(record["environment"]))
    for name in options.only:
        record[name] = steps[name]()
        print(f"\n{name}")
        for what, figure in record[name].items():
            print(f"  {what}: {figure}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=1) + "\n")


# ------------------------------------------------------------------------------------------------------------ helpers


@contextmanager
def served(model: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A page in a process of its own: the process, and the address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "relprop.cli", "serve", "--port", "0", "--model", model],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=_environment(),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.match(r"(http://\S+)", process.stdout.readline())
        if found is None:
            raise SystemExit(f"the page of {model} did not start")
        yield process, found[1]
    finally:
        process.terminate()
        process.wait(20)


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield opened
        opened.close()


def opened(browser: Any, address: str, foreign: list[str], path: str = "") -> Any:
    """A page in the browser, whose requests to other hosts are listed in `foreign`."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(120_000)
    own = (address, "data:", "blob:")
    page.on("request", lambda request: None if request.url.startswith(own) else foreign.append(request.url))
    page.goto(address + path)
    return page


def resident(process: subprocess.Popen[str]) -> int:
    """The resident memory of a process, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def processor(process: subprocess.Popen[str]) -> float:
    """The processor time of a process, in seconds: other work on the machine does not add to it."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _children() -> float:
    """The processor time of all processes that were started and have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{median(values):.3f} [{min(values):.3f} to {max(values):.3f}]"


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


# -------------------------------------------------------------------------------------------------------------- start


def start(rounds: int) -> dict[str, Any]:
    """From the command to the first page in a browser, and loading the model alone, in turns."""
    loading, page, foreign = [], [], []  # type: ignore[var-annotated]
    worked: list[float] = []
    load = f"from relprop.web.page_subject import subject_of; subject_of({MODEL!r})"
    with browser() as driven:
        for n in range(rounds + 1):
            began, before = time.perf_counter(), _children()
            subprocess.run([sys.executable, "-c", load], check=True, env=_environment())
            alone, worked_alone = time.perf_counter() - began, _children() - before
            began = time.perf_counter()
            with served(MODEL) as (process, address):
                shown = opened(driven, address, foreign)
                shown.wait_for_selector("#maps .hint")
                whole, worked_whole = time.perf_counter() - began, processor(process)
                shown.close()
            if n:  # the first round reads files that the machine then keeps in memory
                loading.append(alone)
                page.append(whole)
                worked.append(worked_whole - worked_alone)
    beyond = [whole - alone for whole, alone in zip(page, loading, strict=True)]
    return {
        "loading the model alone, s": spread(loading), "command to first page, s": spread(page),
        "beyond loading, s (goal 3)": spread(beyond), "processor time of the page beyond loading, s": spread(worked),
        "requests to other hosts (goal 0)": len(foreign),
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- clicks

_CLICK = """(number) => new Promise((done) => {
    const button = document.querySelectorAll('#classes input')[number], maps = document.querySelector('#maps');
    const before = maps.querySelector('h3').innerText, began = performance.now();
    const seen = new MutationObserver(async () => {
        const now = maps.querySelector('h3');
        if (!now || now.innerText === before) return;
        seen.disconnect();
        await Promise.all([...maps.querySelectorAll('image')].map((each) => {
            const shown = new Image();
            shown.src = each.href.baseVal;
            return shown.decode();
        }));
        requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
    });
    seen.observe(maps, {childList: true, subtree: true, characterData: true});
    button.click();
})"""
"""Presses the button of a class. The time ends when its maps are decoded, and drawn in a frame."""


def clicks(rounds: int) -> dict[str, Any]:
    """From a click on another class to its map in the browser, and `attribute` with the same drawing alone, in turns."""
    subject = subject_of(MODEL)
    name, picture = next((each.title, each.open()) for each in PHOTOGRAPHS)
    answer = pictures.ask(subject, [(name, picture)], PageSettings())
    numbers = [number for number, *_ in answer.classes[:2]]
    bare, page, foreign = [], [], []  # type: ignore[var-annotated]
    explaining, drawing = [], []
    with served(MODEL) as (_, address), browser() as driven:
        shown = opened(driven, address, foreign, "?example=0")
        shown.wait_for_selector("#maps .stage svg")
        shown.wait_for_selector("#classes input >> nth=1")
        for n in range(2 * rounds + 2):
            place = (n + 1) % 2
            explained, drew = _bare(subject, answer, numbers[place])
            took = shown.evaluate(_CLICK, place) / 1000
            if n > 1:  # warm
                explaining.append(explained)
                drawing.append(drew)
                bare.append(explained + drew)
                page.append(took)
    beyond = [whole - 1.15 * alone for whole, alone in zip(page, bare, strict=True)]
    return {
        "attribute, s": spread(explaining), "drawing, s": spread(drawing), "attribute and drawing, s": spread(bare),
        "click to map, s": spread(page), "beyond 1.15 times that, s (goal 0.150)": spread(beyond),
        "requests to other hosts (goal 0)": len(foreign),
    }  # fmt: skip


def _bare(subject: PageSubject, answer: pictures.PictureAnswer, target: int) -> tuple[float, float]:
    """The seconds of an explanation as a program asks for it, and of drawing what the page draws of it."""
    began = time.perf_counter()
    relprop.attribute(subject.loaded.model, answer.inputs, target, labels=subject.labels, ledger=True)
    between = time.perf_counter()
    drawn.maps_html(answer, answer.settings)
    return between - began, time.perf_counter() - between


# ----------------------------------------------------------------------------------------------------------- visitors


def visitors(minutes: float) -> dict[str, Any]:
    """Visitors who each ask about a picture of their own every ten seconds."""
    subject = subject_of(MODEL)
    given = [[_picture(v, n) for n in range(3)] for v in range(VISITORS)]
    expected = [[heading(pictures.ask(subject, [("a.png", each)], PageSettings())) for each in own] for own in given]
    foreign: list[str] = []
    with served(MODEL) as (process, address):
        replies, wrong, resources = visited(address, given, expected, 60 * minutes, EVERY, lambda: resident(process))
        with browser() as driven:
            seen = opened(driven, address, foreign)
            seen.wait_for_selector("#maps .hint")
            shown = _waiting_shown(seen, address, given)
    seconds = [reply.seconds for reply in replies]
    early = median(resources[len(resources) // 10 : len(resources) // 5] or resources)
    late = median(resources[-len(resources) // 10 :])
    return {
        "visitors": VISITORS, "minutes": minutes, "answers": len(replies),
        "errors (goal 0)": sum(bool(reply.error) for reply in replies) + sum("error" in each for each in wrong),
        "answers of another picture or visitor (goal 0)": sum("error" not in each for each in wrong),
        "seconds to the answer": spread(seconds), "answers that waited": sum(len(reply.waited) > 1 for reply in replies),
        "the page shows that it waits": shown, "memory after the first minute, MB": round(early / 2**20, 1),
        "memory in the last minute, MB": round(late / 2**20, 1), "change (goal 5 %)": f"{late / early - 1:+.1%}",
        "requests to other hosts (goal 0)": len(foreign),
    }  # fmt: skip


def _picture(visitor: int, number: int) -> Image.Image:
    """A picture that no other visitor has."""
    whole = PHOTOGRAPHS[(visitor + number) % len(PHOTOGRAPHS)].open()
    side = min(whole.size) * (60 + 2 * (visitor % 10)) // 100
    left, top = (whole.width - side) * number // 2, (whole.height - side) * (visitor // 10) // 2
    return whole.crop((left, top, left + side, top + side)).resize((256, 256))


def heading(answer: pictures.PictureAnswer) -> str:
    """What stands above the map: the class and its score, to three digits."""
    found = re.search(r"<h3>.*?</h3>", drawn.maps_html(answer, answer.settings))
    assert found is not None
    return found[0]


def visited(
    address: str, given: list[list[Image.Image]], expected: list[list[str]], seconds: float, every: float,
    measure: Callable[[], int] = lambda: 0, least: int = 0,
) -> tuple[list[Reply], list[str], list[int]]:  # fmt: skip
    """Lets visitors ask about their pictures in turn.

    Args:
        address: the page's.
        given: the pictures of each visitor.
        expected: what stands above the map of each.
        seconds: how long they stay.
        every: the seconds from one question of a visitor to the next, or as long as the answer takes.
        measure: is called once a second.
        least: how many questions each asks, even if that takes longer.

    Returns:
        The answers; a line for each that was wrong or did not come; and what was measured.
    """
    replies: list[Reply] = []
    wrong: list[str] = []
    end = time.monotonic() + seconds

    def stay(n: int) -> None:
        try:
            with Visitor(address) as visitor:
                time.sleep(every * n / len(given))
                turn = 0
                while time.monotonic() < end or turn < least:
                    next_at = time.monotonic() + every
                    place = turn % len(given[n])
                    name = f"visitor-{n}-{place}.png"
                    reply = visitor.ask("image", "upload", visitor.upload(name, png(given[n][place])))
                    replies.append(reply)
                    if not reply.error and not (
                        expected[n][place] in reply.data[1] and any(name in str(each) for each in reply.data)
                    ):
                        wrong.append(f"visitor {n} got another answer to picture {place}")
                    turn += 1
                    time.sleep(max(0.0, min(next_at, end) - time.monotonic()))
        except Exception as error:  # whatever it is, the visitor got no answer
            wrong.append(f"visitor {n}: error {type(error).__name__}: {error}")

    threads = [threading.Thread(target=stay, args=(n,)) for n in range(len(given))]
    for thread in threads:
        thread.start()
    measured = []
    while any(thread.is_alive() for thread in threads):
        measured.append(measure())
        time.sleep(1.0)
    return replies, wrong, measured


def _waiting_shown(page: Any, address: str, given: list[list[Image.Image]]) -> bool:
    """Whether a visitor in a browser is told the place in the queue while others are before."""

    ready = threading.Barrier(len(given) + 1)

    def ask(n: int) -> None:
        with Visitor(address) as visitor:
            uploaded = visitor.upload("a.png", png(given[n][0]))
            ready.wait()
            visitor.ask("image", "upload", uploaded)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(len(given))]
    for thread in threads:
        thread.start()
    ready.wait()
    time.sleep(0.3)
    page.click(".examples button >> nth=0")
    try:
        page.wait_for_function("document.body.innerText.match(/queue: \\d+\\/\\d+/)", timeout=20_000)
        return True
    except Exception:
        return False
    finally:
        for thread in threads:
            thread.join()


# ------------------------------------------------------------------------------------------------------------- memory


def flat(explanations: int) -> dict[str, Any]:
    """The memory of a page whose visitors come, ask a hundred times, and leave."""
    found: list[int] = []
    failed = 0
    with served(TINY) as (process, address):
        while (done := len(found) * 100) < explanations:
            with Visitor(address) as visitor:
                visitor.ask("image", "upload", visitor.upload("a.png", png(_picture(done // 100, 0))))
                for n in range(min(100, explanations - done) - 1):
                    failed += bool(visitor.ask("classes", "input", n % 5).error)
            found.append(resident(process))
    tenth = max(len(found) // 10, 1)
    early, late = median(found[tenth : 2 * tenth] or found), median(found[-tenth:])
    return {
        "explanations": explanations, "errors (goal 0)": failed,
        "memory after a tenth, MB": round(early / 2**20, 1), "at the end, MB": round(late / 2**20, 1),
        "change (goal 5 %)": f"{late / early - 1:+.1%}",
        "bytes for each explanation": round((late - early) / (0.85 * explanations)),
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ hostile


def hostile(requests: int, seed: int) -> dict[str, Any]:
    """Requests that mean harm, made at random, sent to the page of the tiny network."""
    with tempfile.TemporaryDirectory() as folder, served(TINY) as (process, address):
        first = attacked(address, requests // 5, Path(folder), seed)
        before = resident(process)  # what a page needs for its first visitors is there
        found = attacked(address, requests - first.sent, Path(folder), seed + 1)
        with Visitor(address) as visitor:
            answers = not visitor.ask("image", "upload", visitor.upload("a.png", png(_picture(0, 0)))).error
        grown = resident(process) / before - 1
    through = [*first.through, *found.through]
    for line in through:
        print(f"  {line}", flush=True)
    return {
        "requests": first.sent + found.sent, "got through (goal 0)": len(through), "the page answers afterwards": answers,
        "memory after the first fifth": f"{grown:+.1%}",
    }  # fmt: skip


if __name__ == "__main__":
    main()
