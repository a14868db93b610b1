"""Many visitors at once, in short: `python -m benchmarks.web` has the long form. Nobody gets another's answer, and nothing stays."""

from __future__ import annotations

import gc
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.web import heading, png, visited
from benchmarks.web_hostile import attacked
from benchmarks.web_visitors import Reply, Visitor

import web_pages
from relprop.web import pictures
from relprop.web.limits import Limits
from relprop.web.settings import PageSettings

pytest.importorskip("gradio", reason="the page needs Gradio")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Gradio about pandas, in threads of its own


def files() -> list[Path]:
    """What visitors uploaded and was not deleted."""
    # `os.walk` passes over folders that go meanwhile.
    return [
        Path(at, name) for at, _, names in os.walk(os.environ["GRADIO_TEMP_DIR"]) for name in names if "visitor" in name
    ]


def live() -> int:
    """The tensors that are alive."""
    gc.collect()
    return sum(isinstance(each, torch.Tensor) for each in gc.get_objects())


def remembered() -> set[str]:
    """The sessions of which Gradio keeps the values of fields."""
    from gradio.state_holder import StateHolder

    return {name for each in gc.get_objects() if isinstance(each, StateHolder) for name in each.session_data}


def test_visitors_get_their_own_answers_and_wait_for_their_turn() -> None:
    given = [[web_pages.photograph(seed=10 * v + n) for n in range(2)] for v in range(8)]
    subject = web_pages.subject()
    expected = [[heading(pictures.ask(subject, [("a.png", each)], PageSettings())) for each in own] for own in given]
    assert len({each for own in expected for each in own}) > 8  # a mistake could be seen
    with web_pages.served() as address:
        replies, wrong, _ = visited(address, given, expected, 0.0, 0.2, least=2)
        assert not wrong and not [reply.error for reply in replies if reply.error]
        assert len(replies) == 2 * len(given)
        assert max(reply.waited[0] for reply in replies) > 0  # the page shows it as "queue: 2/3"


def test_what_a_visitor_leaves_is_deleted() -> None:
    def ask(visitor: Visitor, count: int) -> list[Reply]:
        uploaded = visitor.upload("visitor.png", png(web_pages.photograph()))
        first = visitor.ask("image", "upload", uploaded)
        numbers = [number for _, number in first.data[2]["choices"]]
        return [first, *(visitor.ask("classes", "input", numbers[n % 5]) for n in range(count))]

    with web_pages.served() as address:
        with Visitor(address) as visitor:
            ask(visitor, 1)
        _until(lambda: not files())
        before, names = live(), set()
        for _ in range(3):
            with Visitor(address) as visitor:
                assert not any(reply.error for reply in ask(visitor, 6))
                assert files() and visitor.session in remembered()
                names.add(visitor.session)
        _until(lambda: not files())
        _until(lambda: not names & remembered())
        _until(lambda: live() <= before)


def test_two_visitors_with_the_same_file_do_not_share_it() -> None:
    """Uploads are named by their content: the file of one went when the other left."""
    content = png(web_pages.photograph())
    with web_pages.served() as address, Visitor(address) as first:
        paths = []
        with Visitor(address) as second:
            paths = [each.upload("visitor.png", content)["path"] for each in (first, second)]
            assert paths[0] != paths[1] and all(Path(path).read_bytes() == content for path in paths)
            assert not second.ask("image", "upload", {"path": paths[1], "meta": {"_type": "gradio.FileData"}}).error
        _until(lambda: not Path(paths[1]).exists())
        assert not first.ask("image", "upload", {"path": paths[0], "meta": {"_type": "gradio.FileData"}}).error


def test_a_full_page_says_so() -> None:
    """A question beyond those that may wait is refused with a message, and the others are answered."""
    import threading

    found: list[str] = []

    def ask() -> None:
        with Visitor(address) as visitor:
            try:
                reply = visitor.ask("image", "upload", visitor.upload("visitor.png", png(web_pages.photograph())))
                found.append(reply.error or "answered")
            except RuntimeError as error:
                found.append(str(error))

    with web_pages.served(limits=Limits(waiting=2)) as address:
        threads = [threading.Thread(target=ask) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    refused = [each for each in found if each != "answered"]
    assert "answered" in found and refused
    assert not [each for each in refused if "Queue is full" not in each]


def _until(holds: object, seconds: float = 15.0) -> None:
    """Waits until a condition holds: leaving is told to the server, which then acts."""
    assert callable(holds)
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, holds
        time.sleep(0.2)


def test_hostile_requests_at_random(tmp_path: Path) -> None:
    with web_pages.served() as address:
        found = attacked(address, 400, tmp_path, seed=1)
    assert found.sent == 400 and not found.through, "\n".join(found.through)


def test_a_page_that_lets_something_through_is_noticed(tmp_path: Path) -> None:
    class Open(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            config = {"dependencies": [{"id": 0, "inputs": [1], "backend_fn": True}]}
            self.answer(json.dumps(config) if self.path == "/config" else (tmp_path / "secret.png").read_text())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            (tmp_path / "written").touch()
            self.answer("", 500)

        def answer(self, text: str, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *given: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Open)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = attacked(f"http://127.0.0.1:{server.server_port}/", 40, tmp_path)
    server.shutdown()
    server.server_close()
    kinds = {line.partition(":")[0] for line in found.through}
    assert {"a file was read", "status 500", "a file was written"} <= kinds
