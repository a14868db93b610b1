"""What gets through the guard before the page, and what does not."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from relprop.errors import InputError
from relprop.web import uploads
from relprop.web.guard import Guard, Rules
from relprop.web.limits import Limits

HOST = (b"host", b"127.0.0.1:7860")
JSON = (b"content-type", b"application/json")
FORM = (b"content-type", b"multipart/form-data; boundary=x")


def request(
    path: str = "/",
    *,
    method: str = "GET",
    headers: Any = (),
    body: bytes = b"",
    host: Any = HOST,
    rules: Rules | None = None,
    query: bytes = b"",
    raw: bytes | None = None,
    arrived: Sequence[Path] = (),
) -> tuple[int, dict[bytes, bytes], bytes]:
    """What the guard answers; 200 with what the page was given, if it lets a request through. `arrived` are its uploads."""

    async def page(scope: Any, receive: Any, send: Any) -> None:
        given = b""
        if scope["method"] == "POST":
            more = True
            while more:
                message = await receive()
                given += message.get("body", b"")
                more = message.get("more_body", False)
        found: Any = {
            "headers": [[n.decode(), v.decode("latin-1")] for n, v in scope["headers"]],
            "body": given.decode("latin-1"),
        }
        if scope["path"] == "/gradio_api/upload":
            found = [str(each) for each in arrived]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
        await send({"type": "http.response.body", "body": json.dumps(found).encode()})

    parts = [{"type": "http.request", "body": body[i : i + 100], "more_body": i + 100 < len(body)} for i in range(0, max(len(body), 1), 100)]  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "raw_path": raw or path.encode(), "query_string": query,
        "headers": [*([host] if host else []), *headers],
    }  # fmt: skip
    asyncio.run(Guard(page, rules or Rules())(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(each.get("body", b"") for each in sent[1:])


# ------------------------------------------------------------------------------------------------------------- hosts


@pytest.mark.parametrize("name", [b"127.0.0.1", b"localhost:7860", b"LOCALHOST", b"[::1]:7860", b"127.0.0.1:1"])
def test_names_of_this_machine(name: bytes) -> None:
    assert request(host=(b"host", name))[0] == 200


HOSTS = [
    b"evil.example", b"localhost.evil.example", b"127.0.0.1.evil.example", b"evil.example:7860", b"localhost@evil.example",
    b"evil.example#localhost", b"localhost:7860, evil.example", b"", b" ", b"localhost:", b"localhost:x", b"[::1", b"::1",
    b"127.0.0.1\x00", b"localhost/..", b"192.168.1.7", b"0.0.0.0", b"[::ffff:127.0.0.1]", b"2130706433", b"a" * 300, b"\xff",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTS)
def test_other_names(name: bytes) -> None:
    assert request(host=(b"host", name))[0] in (400, 421)


def test_one_host_is_named() -> None:
    assert request(host=None)[0] == 400
    assert request(headers=[HOST])[0] == 400


def test_names_that_the_server_was_given() -> None:
    rules = Rules(names=["Demo.example"], addresses=True)
    assert request(host=(b"host", b"demo.example"), rules=rules)[0] == 200
    assert (
        request(host=(b"host", b"192.168.1.7:80"), rules=rules)[0] == 200
    )  # an address cannot be bound to another machine
    assert request(host=(b"host", b"[fe80::1]"), rules=rules)[0] == 200
    assert request(host=(b"host", b"evil.example"), rules=rules)[0] == 421


# ----------------------------------------------------------------------------------------------------------- origins


@pytest.mark.parametrize(
    "headers",
    [
        [(b"origin", b"https://evil.example")], [(b"origin", b"null")], [(b"origin", b"http://127.0.0.1:7861")],
        [(b"origin", b"http://localhost:7860")], [(b"origin", b"")], [(b"origin", b"file://")],
        [(b"origin", b"http://127.0.0.1:7860.evil.example")], [(b"origin", b"http://127.0.0.1:7860@evil.example")],
        [(b"origin", b"http://127.0.0.1:7860"), (b"origin", b"http://evil.example")],
        [(b"sec-fetch-site", b"cross-site")], [(b"sec-fetch-site", b"same-site")],
        [(b"sec-fetch-site", b"cross-site"), (b"sec-fetch-mode", b"no-cors")],
        [(b"sec-fetch-site", b"cross-site"), (b"sec-fetch-mode", b"navigate"), (b"origin", b"https://evil.example")],
    ],
)  # fmt: skip
def test_requests_from_other_sites(headers: Any) -> None:
    for method, path in (("GET", "/config"), ("POST", "/gradio_api/queue/join")):
        assert request(path, method=method, headers=[*headers, JSON], body=b"{}")[0] == 403


def test_requests_from_the_page_itself() -> None:
    own = [(b"origin", b"http://127.0.0.1:7860"), (b"sec-fetch-site", b"same-origin")]
    assert request("/gradio_api/queue/join", method="POST", headers=[*own, JSON], body=b"{}")[0] == 200
    # A link on another site may lead here.
    assert request(headers=[(b"sec-fetch-site", b"cross-site"), (b"sec-fetch-mode", b"navigate")])[0] == 200


# ------------------------------------------------------------------------------------------------------------ routes


ROUTES = [
    "/gradio_api/proxy=http://evil.example/", "/gradio_api/stream/x", "/gradio_api/stream/a/b/c/playlist.m3u8",
    "/gradio_api/custom_component/a/client/component/x.js", "/gradio_api/component_server", "/gradio_api/run/predict",
    "/gradio_api/api/predict", "/gradio_api/vibe-code", "/gradio_api/vibe-edit", "/gradio_api/undo-vibe-edit",
    "/gradio_api/vibe-starter-queries", "/gradio_api/deep_link", "/gradio_api/process_recording", "/gradio_api/dev/reload",
    "/gradio_api/runs", "/gradio_api/run-history/connect", "/gradio_api/run-history/buckets", "/gradio_api/openapi.json",
    "/gradio_api/user", "/gradio_api/token", "/gradio_api/login_check", "/gradio_api/file/etc/passwd", "/gradio_api/queue/status",
    "/gradio_api/call/other", "/gradio_api/call/v2/explain", "/gradio_api/profiling/traces", "/gradio_api/mcp/sse",
    "/monitoring", "/monitoring/summary", "/login", "/logout", "/pwa_icon", "/docs", "/openapi.json", "/redoc", "/proxy=x",
    "/file=/etc/passwd", "/run/predict", "/api/predict", "/queue/join", "/upload", "//evil.example", "/\\evil.example",
    "/assets/../../../etc/passwd", "/assets/..", "/static/./x", "/assets//etc/passwd", "/assets/%2e%2e/x", "/svelte/a b",
    "/config\n", "/\r\nx: y", "/assets/\x00", "/.git/config", "/gradio_api/", "/gradio_api/heartbeat/../x",
]  # fmt: skip


@pytest.mark.parametrize("path", ROUTES)
def test_what_the_page_does_not_need_is_not_there(path: str) -> None:
    for method in ("GET", "POST"):
        status, headers, body = request(path, method=method, headers=[JSON], body=b"{}")
        assert status == 404 and b"location" not in headers
        assert b"Traceback" not in body


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "POST"])
def test_other_methods(method: str) -> None:
    assert request("/config", method=method)[0] == 405


def test_a_long_address() -> None:
    assert request("/config", query=b"a" * 5000)[0] == 414


def test_no_web_socket_is_opened() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(None, Rules())({"type": "websocket", "headers": []}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


# ------------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of uploads, with a file; a secret beside it, and links to it in the folder."""
    inside = tmp_path / "uploads"
    (inside / "abc").mkdir(parents=True)
    (inside / "abc" / "cat.png").write_bytes(b"picture")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "uploads-other").mkdir()
    (tmp_path / "uploads-other" / "x").write_text("secret")
    (inside / "link").symlink_to(tmp_path / "secret")
    (inside / "up").symlink_to(tmp_path)
    return inside


def outside(folder: Path) -> list[str]:
    """Paths that must not be read, as a visitor may write them."""
    return [
        "/etc/passwd", "etc/passwd", "../secret", f"{folder}/../secret", f"{folder}/abc/../../secret", f"{folder}", f"{folder}/",
        f"{folder}/link", f"{folder}/up/secret", f"{folder}-other/x", f"{folder}/%2e%2e/secret", f"{folder}/..%2fsecret",
        f"{folder}/abc/cat.png\x00", "http://evil.example/x", "https://127.0.0.1:7860/", "file:///etc/passwd",
        "ftp://evil.example", "//evil.example/x", "\\\\evil.example\\share", "C:\\Windows\\win.ini", "~/.ssh/id_rsa",
        "/proc/self/environ", "/dev/zero", "", ".", "data:text/html,<script>1</script>", "\ufeff/etc/passwd",
    ]  # fmt: skip


def test_only_uploaded_files_are_served(folder: Path) -> None:
    rules = Rules(folder=folder)
    assert request(f"/gradio_api/file={folder}/abc/cat.png", rules=rules)[0] == 200
    for path in outside(folder):
        assert request(f"/gradio_api/file={path}", rules=rules)[0] in (404, 405), path
    assert request(f"/gradio_api/file={folder}/abc/cat.png", rules=Rules())[0] == 404


def test_a_message_names_only_uploaded_files(folder: Path) -> None:
    rules = Rules(folder=folder)

    def sent(data: Any) -> tuple[int, Any]:
        body = json.dumps({"data": data, "fn_index": 0, "session_hash": "abcdefgh"}).encode()
        status, _, answer = request("/gradio_api/queue/join", method="POST", headers=[JSON], body=body, rules=rules)
        return status, json.loads(json.loads(answer)["body"])["data"] if status == 200 else None

    fine = {"path": f"{folder}/abc/cat.png", "url": "http://evil.example/x", "meta": {"_type": "gradio.FileData"}, "is_stream": True}  # fmt: skip
    status, (found,) = sent([fine])
    assert status == 200
    assert found == {"path": fine["path"], "orig_name": None, "size": None, "meta": {"_type": "gradio.FileData"}}
    for path in outside(folder):
        for data in (
            [{"path": path}],
            [[{"path": path, "meta": {"_type": "gradio.FileData"}}]],
            {"a": {"b": {"path": path}}},
        ):
            assert sent(data)[0] == 400, path
    for part in (
        {"url": "http://evil.example/x"},
        {"path": None, "url": "data:image/png;base64,"},
        {"path": [1]},
        {"path": 3},
    ):
        assert sent([part])[0] == 400
    assert sent([1, "http://a.example/ is text", None, [2.5]]) == (200, [1, "http://a.example/ is text", None, [2.5]])


# ------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", [], 415), (b"{}", [(b"content-type", b"text/plain")], 415), (b"x=1", [FORM], 415), (b"{", [JSON], 400),
        (b"[]", [JSON], 400), (b"\xff\xfe", [JSON], 400), (b"", [JSON], 400), (b"[" * 100_000, [JSON], 400),
        (b'{"a":' * 50 + b"1" + b"}" * 50, [JSON], 400), (b" " * (2**20 + 1), [JSON], 413),
        (b"{}", [JSON, (b"content-length", b"9999999999")], 413), (b"{}", [JSON, (b"content-length", b"-1")], 400),
        (b"{}", [JSON, (b"content-length", b"2"), (b"content-length", b"3")], 400), (b"{}", [JSON, (b"content-length", b"0x2")], 400),
        (b"9" * 5000, [JSON], 400), (b'{"a": NaN}', [JSON], 400), (b'{"a": [-Infinity]}', [JSON], 400), (b'{"a": 1e999}', [JSON], 400),
    ],
)  # fmt: skip
def test_messages_that_are_none(body: bytes, headers: Any, status: int) -> None:
    assert request("/gradio_api/queue/join", method="POST", headers=headers, body=body)[0] == status


def test_each_upload_has_a_folder_of_its_own(tmp_path: Path) -> None:
    rules, path = Rules(folder=tmp_path), "/gradio_api/upload"
    file = tmp_path / "named-by-content" / "cat <b>.png"
    file.parent.mkdir()
    found = []
    for _ in range(2):
        file.write_bytes(b"a cat")
        status, _, body = request(path, method="POST", headers=[FORM], body=b"x", rules=rules, arrived=[file])
        assert status == 200
        found += json.loads(body)
    assert len(set(found)) == 2 and not file.exists()
    assert all(Path(each).read_bytes() == b"a cat" and Path(each).name == file.name for each in found)
    uploads.delete(Path(found[0]))
    assert not Path(found[0]).parent.exists() and Path(found[1]).exists()
    assert request(path, method="POST", headers=[FORM], body=b"x", rules=rules, arrived=[file])[0] == 409
    shared = tmp_path / "named-by-content" / "dog.png"
    shared.write_bytes(b"a dog")
    uploads.delete(shared)  # another visitor may have it
    assert shared.exists()


def test_two_uploads_at_one_path_are_two_files(tmp_path: Path) -> None:
    """Both have arrived before the first is moved."""
    kept: set[str] = set()
    moving = uploads.Uploads(tmp_path, kept)
    file = tmp_path / "a.png"
    file.write_bytes(b"a cat")
    first, second = moving.moved(str(file)), moving.moved(str(file))
    assert first != second and Path(first).read_bytes() == Path(second).read_bytes() == b"a cat"
    assert kept == {first, second}


def test_folders_that_were_emptied_are_deleted_after_a_while(tmp_path: Path) -> None:
    """Gradio names them by the content of a file, which says something of it."""
    now = [0.0]
    moving = uploads.Uploads(tmp_path, set(), lambda: now[0])

    def arrive(name: str) -> Path:
        file = tmp_path / name / "a.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"a cat")
        moving.moved(str(file))
        return file.parent

    first, again = arrive("first"), arrive("again")
    (again / "b.png").write_bytes(b"another")  # it just arrived, and was not moved yet
    assert first.exists()
    now[0] = 61.0
    third = arrive("third")
    assert not first.exists() and again.exists() and third.exists()


def test_uploads_end_where_they_become_too_large(tmp_path: Path) -> None:
    rules = Rules(Limits(file_bytes=1000), folder=tmp_path)
    path = "/gradio_api/upload"
    assert request(path, method="POST", headers=[FORM], body=b"x" * 900, rules=rules)[0] == 200
    assert request(path, method="POST", headers=[FORM], body=b"x" * (2**16 + 1001), rules=rules)[0] == 413
    told = (b"content-length", b"100000")
    assert request(path, method="POST", headers=[FORM, told], rules=rules)[0] == 413
    assert request(path, method="POST", headers=[JSON], body=b"{}", rules=rules)[0] == 415
    (tmp_path / "old").write_bytes(b"x" * 2000)
    full = Rules(Limits(stored_bytes=1000), folder=tmp_path)
    assert request(path, method="POST", headers=[FORM], body=b"x", rules=full)[0] == 507


# ---------------------------------------------------------------------------------------------------- headers, password


def test_headers_that_gradio_would_believe_do_not_reach_it() -> None:
    given = [
        (b"x-forwarded-host", b"evil.example"), (b"X-Forwarded-Proto", b"https"), (b"x-gradio-server", b"http://evil.example"),
        (b"range", b"bytes=0-1"), (b"authorization", b"Basic x"), (b"x-direct-url", b"x"), (b"accept", b"text/html"),
    ]  # fmt: skip
    _, _, body = request(headers=given)
    assert [name for name, _ in json.loads(body)["headers"]] == ["host", "accept"]


def test_a_browser_is_told_to_load_nothing_from_elsewhere() -> None:
    for path in ("/", "/nothing"):
        _, headers, _ = request(path, rules=Rules(around=["https://example.org"]))
        policy = headers[b"content-security-policy"].decode()
        assert "default-src 'self'" in policy and "frame-ancestors 'self' https://example.org" in policy
        assert "http" not in policy.replace("https://example.org", "")
        assert headers[b"x-content-type-options"] == b"nosniff"
    with pytest.raises(InputError, match="is no origin"):
        Rules(around=["https://example.org; script-src *"])


def test_the_password() -> None:
    rules = Rules(password="ann:se:cret")

    def given(text: bytes) -> int:
        return request(headers=[(b"authorization", text)], rules=rules)[0]

    def basic(text: str) -> bytes:
        return b"Basic " + base64.b64encode(text.encode())

    status, headers, _ = request(rules=rules)
    assert status == 401 and headers[b"www-authenticate"].startswith(b"Basic")
    assert given(basic("ann:se:cret")) == 200
    for wrong in (b"", b"Basic", b"Basic !!!", b"Bearer x", basic("ann:wrong"), basic("ann"), basic(""), basic("ann:se:cret "),
                  basic("ANN:se:cret"), b"Basic \xff"):  # fmt: skip
        assert given(wrong) == 401
    for path in ("/config", "/gradio_api/info", "/assets/x.js"):
        assert request(path, rules=rules)[0] == 401
    assert "se:cret" not in repr(rules)
    for bad in ("", "ann", ":x", "ann:"):
        with pytest.raises(InputError, match="user:password"):
            Rules(password=bad)
