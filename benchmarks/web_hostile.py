"""Requests that mean harm, made at random and sent to a page as they stand: none may get through.

A request gets through if its answer holds what lies in a file that was never uploaded, if another address is asked, if a
browser would be sent or let elsewhere, if a file is written outside the folder of uploads, if an answer holds a traceback,
or if the server fails (5xx) or takes long.
"""

from __future__ import annotations

import http.client
import json
import random
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

SECONDS = 30.0
"""An answer that takes longer counts as one that got through."""
_ROUTES = [
    "/", "/config", "/theme.css", "/static/", "/assets/", "/file=", "/file/", "/gradio_api/file=", "/gradio_api/file/", "/proxy=",
    "/gradio_api/proxy=", "/gradio_api/queue/join", "/gradio_api/queue/data", "/gradio_api/upload", "/gradio_api/call/explain",
    "/gradio_api/call/explain/", "/gradio_api/run/explain", "/gradio_api/heartbeat/", "/gradio_api/component_server", "/monitoring/",
    "/gradio_api/info", "/login", "/logout", "/custom_component/", "/gradio_api/stream/", "/gradio_api/reset", "/gradio_api/cancel",
    "/gradio_api/upload_progress", "/gradio_api/mcp/", "/gradio_api/vibe-code", "/gradio_api/startup-events", "/.git/config",
]  # fmt: skip
_STEPS = [
    "../",
    "..%2f",
    "%2e%2e/",
    "%252e%252e%252f",
    "..\\",
    "....//",
    "/",
    "//",
    "%00",
    "%5c",
    "~",
    "::$DATA",
    "?",
    "#",
    ";",
    "\u00e9",
]
_JOIN = "/gradio_api/queue/join"
_KINDS = ["application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "multipart/form-data", "a/b; " + "\\" * 400, ""]  # fmt: skip
_NAMES = [
    "a.png",
    "../../a.png",
    "/etc/cron.d/a",
    "..\\a.svg",
    "a\x00.png",
    "." * 300,
    "<b>.csv",
    "a.html",
    "CON",
    "a.npy",
    "a.wav",
]
_CONTENTS = [
    b"", b"\x89PNG\r\n\x1a\n", b"GIF89a" + b"\xff" * 60, b"PK\x03\x04" + b"\x00" * 80, b"\x93NUMPY\x01\x00\xff\xff{'descr': '|O'}",
    b"RIFF\xff\xff\xff\xffWAVEfmt ", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", b"a,b\n" + b"1,2\n" * 50,
    b"%PDF-1.4", b"\xff\xd8\xff\xe0" + b"\x00" * 100, b"II*\x00" + b"\xff" * 50,
]  # fmt: skip


@dataclass
class Found:
    """What came of the requests.

    Attributes:
        sent: how many were sent.
        through: a line for each that got through.
    """

    sent: int = 0
    through: list[str] = field(default_factory=list)


@contextmanager
def _elsewhere(asked: list[str]) -> Iterator[str]:
    """Another address on this machine, which notes whoever asks it."""

    class Note(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *given: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Note)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


class _Maker:
    """Makes requests at random.

    Args:
        chance: the source of chance.
        secret: a file that no request may read.
        elsewhere: an address that no request may make the page ask.
        own: the page's host and port.
    """

    def __init__(self, chance: random.Random, secret: Path, elsewhere: str, own: str) -> None:
        self.chance, self.secret, self.elsewhere, self.own = chance, secret, elsewhere, own
        config = json.loads(_answer(own, "GET", "/config", [("Host", own)], None)[2])
        self.inputs = {each["id"]: len(each["inputs"]) for each in config["dependencies"] if each["backend_fn"]}

    def target(self) -> str:
        """What a request would like to have: a file, or another address."""
        name = str(self.secret)
        made = self.chance.choice(
            [
                name,
                name[1:],
                "../" * 8 + name[1:],
                self.elsewhere,
                self.elsewhere.replace("http", "gopher"),
                "/etc/passwd",
            ]
        )
        return self.chance.choice([made, quote(made, safe=""), quote(quote(made, safe=""), safe=""), made.upper()])

    def path(self) -> str:
        """An address on the page."""
        parts = [self.chance.choice(_ROUTES)]
        parts += self.chance.choices([*_STEPS, self.target(), secrets.token_hex(3)], k=self.chance.randrange(4))
        found = "".join(parts) + "A" * (self.chance.random() < 0.02) * 9000
        return quote(found, safe="/%?#=&:;\\$~.")

    def headers(self) -> list[tuple[str, str]]:
        """Headers that a request of another site, or one that lies, would have."""
        odd = ["evil.example", f"{self.own}.evil.example", "localhost@evil.example", "0.0.0.0", "[::1", "127.0.0.1:1"]
        found = [("Host", self.own if self.chance.random() < 0.7 else self.chance.choice(odd))]
        if self.chance.random() < 0.3:
            found.append(
                (
                    "Origin",
                    self.chance.choice(
                        ["null", "http://evil.example", f"http://{self.own}", "file://", self.elsewhere]
                    ),
                )
            )
        if self.chance.random() < 0.3:
            name = self.chance.choice(
                [
                    "X-Forwarded-Host",
                    "X-Forwarded-For",
                    "X-Gradio-Server",
                    "X-Direct-Url",
                    "Range",
                    "Cookie",
                    "Referer",
                    "X-Ip-Token",
                ]
            )
            found.append(
                (name, self.chance.choice([self.elsewhere, "bytes=" + "0-1," * 300, "access-token=x", "evil.example"]))
            )
        return found

    def value(self, depth: int = 0) -> Any:
        """A value of a field."""
        simple = [
            None, True, -1, 1e308, "9" * 40, "<script>", "=cmd|' /c calc'!A1", "../" * 5, [], {}, self.target(), "\ud7ff" * 9,
            {"path": self.target(), "meta": {"_type": "gradio.FileData"}}, {"url": self.elsewhere, "path": ""},
            {"path": str(self.secret), "url": None, "orig_name": "a.png"}, {"box": [0, 0, 1, float("nan")]}, {"n": -1},
        ]  # fmt: skip
        if depth < 3 and self.chance.random() < 0.3:
            return self.chance.choice(
                [[self.value(depth + 1)], {"value": self.value(depth + 1)}, [[self.value(depth + 1)]] * 2]
            )
        return self.chance.choice(simple)

    def message(self) -> bytes:
        """A message of the page's scripts, or what is none."""
        if self.chance.random() < 0.1:
            return self.chance.choice([b"", b"{", b"[" * 3000, b"\xff\xfe", b'{"data": 1', b"null", b"0" * 5000])
        asked, count = self.chance.choice(list(self.inputs.items()))
        if self.chance.random() < 0.2:
            asked, count = self.chance.choice([*range(40), -1, 10**9, "0", None]), self.chance.randrange(14)
        found: dict[str, Any] = {"data": [self.value() for _ in range(count)], "session_hash": secrets.token_hex(5)}
        found |= {"fn_index": asked, "trigger_id": self.value() if self.chance.random() < 0.2 else None}
        if self.chance.random() < 0.5:
            found["event_data"] = self.value()
        return json.dumps(found).encode()

    def form(self) -> bytes:
        """An upload."""
        name, content = self.chance.choice(_NAMES), self.chance.choice(_CONTENTS)
        head = f'--x\r\nContent-Disposition: form-data; name="{self.chance.choice(["files", "f", ""])}"; filename="{name}"\r\n\r\n'
        return (
            head.encode() * self.chance.choice([1, 1, 1, 60])
            + content
            + self.chance.choice([b"\r\n--x--\r\n", b"\r\n--x", b""])
        )


def _answer(
    own: str, method: str, path: str, headers: list[tuple[str, str]], body: bytes | None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(own, timeout=SECONDS)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        # A stream of events has no end; its beginning is enough.
        content = answer.read1(2**20) if "event-stream" in (answer.headers["content-type"] or "") else answer.read()
        if path == _JOIN and answer.status == 200 and body is not None:
            content += _events(own, json.loads(body)["session_hash"])
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content
    finally:
        connection.close()


def _events(own: str, session: str) -> bytes:
    """What the page answers to a question that it took."""
    connection = http.client.HTTPConnection(own, timeout=SECONDS)
    try:
        connection.request("GET", f"/gradio_api/queue/data?session_hash={session}")
        stream, said = connection.getresponse(), b""
        while line := stream.readline():
            said += line
            if b'"process_completed"' in line or b'"unexpected_error"' in line or b'"close_stream"' in line:
                break
        return said
    finally:
        connection.close()


def attacked(address: str, requests: int, folder: Path, seed: int = 0) -> Found:
    """Sends requests at random to a page.

    Args:
        address: the page's.
        requests: how many.
        folder: an empty folder, where the file lies that none may read, and where none may write.
        seed: of the chance.
    """
    mark = secrets.token_hex(16)
    secret = folder / "secret.png"
    secret.write_text(mark)
    found, asked = Found(), list[str]()
    own = urlsplit(address).netloc
    with _elsewhere(asked) as elsewhere:
        maker = _Maker(random.Random(seed), secret, elsewhere, own)
        for n in range(requests):
            method = maker.chance.choice(["GET", "GET", "POST", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
            headers, body = maker.headers(), None
            if method == "POST":
                upload = maker.chance.random() < 0.3
                path = (
                    "/gradio_api/upload"
                    if upload
                    else maker.chance.choice([_JOIN, _JOIN, "/gradio_api/call/explain", maker.path()])
                )
                body = maker.form() if upload else maker.message()
                usual = "multipart/form-data; boundary=x" if upload else "application/json"
                headers += [
                    ("Content-Type", usual if maker.chance.random() < 0.8 else maker.chance.choice(_KINDS)),
                    ("Content-Length", str(len(body))),
                ]
            else:
                path = maker.path()
            what = f"{n}: {method} {path[:120]} {body[:120] if body is not None else ''!r}"
            found.sent += 1
            if said := _judged(own, method, path, headers, body, mark):
                found.through.append(f"{said}: {what}")
            if asked:
                found.through.append(f"another address was asked: {what}")
                asked.clear()
        time.sleep(1.0)  # what the page does after it answered
        found.through += [f"another address was asked: {path}" for path in asked]
    if [each.name for each in folder.iterdir()] != [secret.name] or secret.read_text() != mark:
        found.through.append("a file was written")
    return found


def _judged(own: str, method: str, path: str, headers: list[tuple[str, str]], body: bytes | None, mark: str) -> str:
    """What a request did that it must not; nothing if it did no harm."""
    start = time.perf_counter()
    try:
        status, given, content = _answer(own, method, path, headers, body)
    except (http.client.HTTPException, ConnectionError):  # it was hung up on
        return ""
    except TimeoutError:
        return f"no answer within {SECONDS:g} s"
    if time.perf_counter() - start > SECONDS:
        return "it took long"
    if mark.encode() in content or b"root:x:" in content:
        return "a file was read"
    if b"Traceback" in content:
        return "a traceback"
    if b"something went wrong here" in content:
        return "an error that is none of ours"
    if status >= 500:
        return f"status {status}"
    if (
        not given.get("location", f"http://{own}/").startswith(f"http://{own}/")
        or given.get("access-control-allow-origin", f"http://{own}") != f"http://{own}"
    ):
        return "it leads elsewhere, or lets another site in"
    return ""
