"""The guard before the page: an ASGI middleware that lets through what the page needs, and nothing else of Gradio.

It checks the host's name (against rebinding of names), where a request comes from (against posts from other sites), the
route, the size of what is sent and the time that it takes, the password, and the files that a message names. It adds
the headers with which a browser loads nothing from elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
import os
import re
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from relprop.errors import InputError
from relprop.web import bodies
from relprop.web.bodies import Message, Receive, RequestRefused, Send
from relprop.web.limits import Limits
from relprop.web.uploads import Uploads

Scope = MutableMapping[str, Any]

_API = "/gradio_api"
_ROUTES: tuple[tuple[str, frozenset[str]], ...] = tuple(
    (pattern, frozenset(methods.split()))
    for pattern, methods in (
        (r"/", "GET HEAD"),
        (r"/config/?", "GET"),
        (r"/theme\.css", "GET"),
        (r"/favicon\.ico", "GET"),
        (r"/manifest\.json", "GET"),
        (r"/robots\.txt", "GET"),
        (r"/(assets|static|svelte)/[A-Za-z0-9_./@+=-]+", "GET HEAD"),
        (rf"{_API}/theme\.css", "GET"),
        (rf"{_API}/(info|startup-events|app_id)/?", "GET"),
        (rf"{_API}/heartbeat/[A-Za-z0-9-]{{6,64}}", "GET"),
        (rf"{_API}/queue/join", "POST"),
        (rf"{_API}/queue/data", "GET"),
        (rf"{_API}/cancel", "POST"),
        (rf"{_API}/reset/?", "POST"),
        (rf"{_API}/call/explain(_\d{{1,2}})?/?", "POST"),
        (rf"{_API}/call/explain(_\d{{1,2}})?/[A-Za-z0-9]{{1,64}}", "GET"),
        (rf"{_API}/upload", "POST"),
        (rf"{_API}/upload_progress", "GET"),
        (rf"{_API}/file=.+", "GET HEAD"),
    )
)
"""The routes that the page and its programs use, and their methods. All others are unknown here."""
_COMPILED = [(re.compile(pattern), methods) for pattern, methods in _ROUTES]

_DROPPED = frozenset(
    (
        b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port", b"x-forwarded-prefix",
        b"x-forwarded-server", b"forwarded", b"x-real-ip", b"x-gradio-server", b"x-direct-url", b"x-original-url",
        b"x-rewrite-url", b"range", b"authorization", b"x-ip-token", b"x-gradio-user",
    )
)  # fmt: skip
"""Headers that Gradio would believe, or repeat. No proxy of ours sends them."""
_OVERHEAD = 2**16
"""What a form adds to the bytes of its file."""
_LONGEST_TARGET = 4096
_LOCAL = frozenset(("localhost", "127.0.0.1", "::1"))


@dataclass(frozen=True, eq=False)
class Rules:
    """What the guard lets through.

    Attributes:
        limits: the sizes of what is sent.
        names: further names of this machine, beside `localhost`, under which the page may be asked for.
        addresses: whether it may be asked for under any address in numbers. A name can be bound to another machine;
            an address cannot.
        password: "user:password"; None asks for none.
        around: the origins of pages that may show it inside of them, such as a notebook's.
        folder: the folder of uploaded files; None is Gradio's.
    """

    limits: Limits = field(default_factory=Limits)
    names: Sequence[str] = ()
    addresses: bool = False
    password: str | None = field(default=None, repr=False)
    around: Sequence[str] = ()
    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.password is not None and not all(self.password.partition(":")[::2]):
            raise InputError("the password has the form user:password, and neither is empty.")
        for origin in self.around:
            if not re.fullmatch(r"https?://[A-Za-z0-9.*:\[\]-]+", origin):
                raise InputError(f"{origin!r} is no origin, such as https://example.org.")


class Guard:
    """Lets through what the page needs.

    Args:
        application: the page.
        rules: what is let through.
        kept: the paths of uploads that the page deletes when they are old.
        known: whether the page has an event of that number; Gradio fails (500) at others. None takes all.
    """

    def __init__(
        self, application: Any, rules: Rules, kept: set[Any] | None = None, known: Callable[[int], bool] | None = None
    ) -> None:  # fmt: skip
        self.application, self.rules, self._known = application, rules, known
        folder = rules.folder or os.environ.get("GRADIO_TEMP_DIR")
        self._folder = None if folder is None else Path(os.path.realpath(folder))
        self._uploads = None if self._folder is None else Uploads(self._folder, set() if kept is None else kept)
        self._headers = _response_headers(rules.around)
        # What a visitor uploaded is a picture or data here, never a page.
        alone = (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; sandbox")
        self._of_files = [alone, *self._headers[1:]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "lifespan":
            await self.application(scope, receive, send)
            return
        if scope["type"] != "http":  # the page opens no WebSocket
            await send({"type": "websocket.close", "code": 1008})
            return
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                given = self._of_files if str(scope["path"]).startswith(f"{_API}/file=") else self._headers
                ours = {name for name, _ in given}
                kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in ours]
                message = {**message, "headers": [*kept, *given]}
            await send(message)

        try:
            headers = _headers_of(scope)
            self._check_host(headers)
            _check_origin(headers)
            self._check_password(headers)
            path = self._check_route(scope)
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0].lower() not in _DROPPED]}
            if scope["method"] == "POST":
                receive = await self._checked_body(path, headers, receive)
            upload = self._uploads if path == f"{_API}/upload" else None
            await self.application(scope, receive, answer if upload is None else upload.answered(answer))
        except RequestRefused as refused:
            if not begun:
                await _refuse(answer, refused)

    def _check_host(self, headers: dict[bytes, list[bytes]]) -> None:
        given = headers.get(b"host", [])
        name = _host_name(given[0].decode("latin-1")) if len(given) == 1 else None
        if name is None:
            raise RequestRefused(400, "a request names one host.")
        if name in _LOCAL or name in {each.lower() for each in self.rules.names}:
            return
        if self.rules.addresses and _is_address(name):
            return
        raise RequestRefused(
            421, "this page is not served under that name. Its server's --host and --name say under which it is."
        )

    def _check_password(self, headers: dict[bytes, list[bytes]]) -> None:
        wanted = self.rules.password
        if wanted is None:
            return
        given = headers.get(b"authorization", [])
        scheme, _, code = (given[0] if len(given) == 1 else b"").partition(b" ")
        try:
            said = base64.b64decode(code.strip(), validate=True) if scheme.lower() == b"basic" else b""
        except binascii.Error:
            said = b""
        if not hmac.compare_digest(said, wanted.encode()):
            ask = (b"www-authenticate", b'Basic realm="relprop", charset="UTF-8"')
            raise RequestRefused(401, "this page asks for a user and a password.", [ask])

    def _check_route(self, scope: Scope) -> str:
        raw = scope.get("raw_path") or scope["path"].encode()
        if len(raw) + len(scope.get("query_string", b"")) > _LONGEST_TARGET:
            raise RequestRefused(414, "the address is too long.")
        path: str = scope["path"]
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in path) or "\\" in path:
            raise RequestRefused(404, "there is nothing here.")
        if re.search(r"(^|/)\.\.?(/|$)|//", path.partition("=")[0]):
            raise RequestRefused(404, "there is nothing here.")
        methods = next((methods for pattern, methods in _COMPILED if pattern.fullmatch(path)), None)
        if methods is None:
            raise RequestRefused(404, "there is nothing here.")
        if scope["method"] not in methods:
            raise RequestRefused(405, "this cannot be done here.", [(b"allow", ", ".join(sorted(methods)).encode())])
        if path.startswith(f"{_API}/file="):
            self._check_file(path.partition("=")[2])
        if path.startswith(f"{_API}/upload") and self._full():
            raise RequestRefused(507, "there is no room for more files now; try again in some minutes.")
        return path

    def _check_file(self, name: str) -> None:
        """Lets through files in the folder of uploads, and no other, however their path is written."""
        if not self._uploaded(name):
            raise RequestRefused(404, "there is nothing here.")

    def _uploaded(self, path: str) -> bool:
        """Whether a path is that of an uploaded file, as it is written and as it would be decoded once more."""
        decoded = unquote_to_bytes(path).decode("utf-8", "replace")
        return all("\x00" not in each and os.path.isabs(each) and self._inside(each) for each in (path, decoded))

    def _inside(self, path: str) -> bool:
        if self._folder is None:
            return False
        found = Path(os.path.realpath(path))
        return found != self._folder and found.is_relative_to(self._folder)

    def _full(self) -> bool:
        if self._folder is None or not self._folder.is_dir():
            return False
        total = 0
        for place, _, files in os.walk(self._folder):
            for file in files:
                try:
                    total += os.lstat(os.path.join(place, file)).st_size
                except OSError:  # it was deleted meanwhile
                    continue
        return total > self.rules.limits.stored_bytes

    async def _checked_body(self, path: str, headers: dict[bytes, list[bytes]], receive: Receive) -> Receive:
        """The body of a message within its limits. A message of the page is read here, and judged, before Gradio reads it."""
        upload = path.startswith(f"{_API}/upload")
        most = self.rules.limits.file_bytes + _OVERHEAD if upload else bodies.MOST
        told = headers.get(b"content-length", [b"0"])
        if len(told) != 1 or not re.fullmatch(rb"\d{1,18}", told[0]):
            raise RequestRefused(400, "the length of the message is no number.")
        if int(told[0]) > most:
            raise RequestRefused(413, f"this is more than the {most / 2**20:.3g} MiB that may be sent here.")
        kind = (headers.get(b"content-type") or [b""])[0].split(b";")[0].strip().lower()
        if kind != (b"multipart/form-data" if upload else b"application/json"):
            raise RequestRefused(415, "a message of this page is JSON, and a file comes in a form.")
        if upload:
            return bodies.counted(receive, most)
        body = await bodies.read(receive, most)
        return bodies.replayed(bodies.cleaned(body, self._uploaded, self._known), receive)


def _headers_of(scope: Scope) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.lower(), []).append(value)
    return found


def _host_name(host: str) -> str | None:
    """The name in a `Host` header, in small letters and without its port; None if it is none."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_.-]{1,253})(:\d{1,5})?", host)
    return found[1].strip("[]").lower() if found else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _check_origin(headers: dict[bytes, list[bytes]]) -> None:
    """Refuses what another site's page sends. A browser says so in `Origin`, and newer ones in `Sec-Fetch-Site`."""
    site = [value.decode("latin-1") for value in headers.get(b"sec-fetch-site", [])]
    mode = [value.decode("latin-1") for value in headers.get(b"sec-fetch-mode", [])]
    if any(each not in ("same-origin", "none") for each in site) and mode != ["navigate"]:
        raise RequestRefused(403, "this request comes from another site.")
    origins = headers.get(b"origin", [])
    if not origins:
        return
    origin = urlsplit(origins[0].decode("latin-1")) if len(origins) == 1 else urlsplit("")
    host = headers[b"host"][0].decode("latin-1").lower()
    if origin.scheme not in ("http", "https") or origin.netloc.lower() != host:
        raise RequestRefused(403, "this request comes from another site.")


def _response_headers(around: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """What a browser is told: it loads nothing from elsewhere, and only the listed pages may show this one."""
    policy = (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
        "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
        f"frame-ancestors {' '.join(['self', *around]).replace('self', chr(39) + 'self' + chr(39), 1)}"
    )
    return [
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
    ]


async def _refuse(send: Send, refused: RequestRefused) -> None:
    body = json.dumps({"detail": refused.line}).encode()
    headers = [
        (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close"),
        *refused.headers,
    ]  # fmt: skip
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
