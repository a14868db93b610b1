"""What was found in Gradio, Starlette and python-multipart since 2023, tried on the page as it is served.

Each entry is a request of the kind that an advisory describes. The page must answer that it does not do such a thing; it
must not read a file, ask another address, send a browser elsewhere, or let another site ask it. Numbers of CVE are those
of the public records (github.com/CVEProject/cvelistV5), whose descriptions were read beside each request; numbers of
issues are those of github.com/gradio-app/gradio.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

import web_pages

pytest.importorskip("gradio", reason="the page needs Gradio")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Gradio about pandas, in threads of its own

META = "http://169.254.169.254/latest/meta-data/"
EVIL = "https://evil.example/"
JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with web_pages.served() as found:
        yield found


def sent(
    address: str, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    """The answer to a request that is sent as it stands: a browser or a client would tidy it first."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        given = {"Host": place.netloc, **(headers or {})}
        if body is not None and "Content-Length" not in given:
            given["Content-Length"] = str(len(body))
        for name, value in given.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def file_data(path: Any, **more: Any) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def message(*data: Any, **more: Any) -> bytes:
    return json.dumps({"data": data, "fn_index": 0, "session_hash": "abcdefgh", "trigger_id": 1, **more}).encode()


def form(parts: bytes, boundary: str = "x") -> tuple[dict[str, str], bytes]:
    return {"Content-Type": f"multipart/form-data; boundary={boundary}"}, parts


KIND = {"Content-Type": "application/json"}
REQUESTS: dict[str, tuple[str, str, dict[str, str], bytes | None]] = {
    # files that were never uploaded
    "CVE-2023-51449 traversal by /file=": ("GET", "/file=../../../../../../etc/passwd", {}, None),
    "CVE-2023-51449 traversal by the new route": ("GET", "/gradio_api/file=../../../etc/passwd", {}, None),
    "CVE-2023-51449 encoded": ("GET", "/gradio_api/file=%2e%2e%2f%2e%2e%2f%2e%2e%2fetc%2fpasswd", {}, None),
    "CVE-2023-51449 encoded twice": ("GET", "/gradio_api/file=%252e%252e%252fetc%252fpasswd", {}, None),
    "CVE-2024-0964 a path in a message": ("POST", JOIN, KIND, message(file_data("/etc/passwd"))),
    "CVE-2024-1561 component_server": (
        "POST", "/component_server", KIND,
        json.dumps({"component_id": "1", "data": "/etc/passwd", "fn_name": "move_resource_to_block_cache", "session_hash": "a"}).encode(),
    ),
    "CVE-2024-1561 component_server, the new route": (
        "POST", "/gradio_api/component_server", KIND,
        json.dumps({"component_id": "1", "data": "/etc/passwd", "fn_name": "as_example", "session_hash": "a"}).encode(),
    ),
    "CVE-2024-1728 a path in an upload's message": ("POST", JOIN, KIND, message([file_data("/etc/passwd", orig_name="a.png")])),
    "CVE-2024-4941 a path in JSON": ("POST", JOIN, KIND, message({"a": [{"path": "/proc/self/environ"}]})),
    "CVE-2024-47164 beside the folder of uploads": ("GET", "/gradio_api/file=/tmp/../etc/passwd", {}, None),
    "CVE-2024-47166 custom_component": ("GET", "/custom_component/a/component/../../__init__.py", {}, None),
    "CVE-2024-47166 custom_component, the new route": ("GET", "/gradio_api/custom_component/a/client/component/..%2f..%2fx.py", {}, None),
    "CVE-2024-47868 a state that names a file": ("POST", JOIN, KIND, message({"value": {"path": "/etc/shadow", "url": None}})),
    "CVE-2024-51751 a file's preview": ("POST", JOIN, KIND, message([file_data("/root/.ssh/id_rsa")])),
    "CVE-2024-12217 a stream of NTFS": ("GET", "/gradio_api/file=C:/secret.txt::$DATA", {}, None),
    "CVE-2025-23042 letters of another case": ("GET", "/gradio_api/file=/ETC/PASSWD", {}, None),
    "CVE-2025-48889 a flag copies a file": ("POST", "/gradio_api/run/predict", KIND, message(file_data("/etc/passwd"))),
    "CVE-2026-28414 absolute without a drive": ("GET", "/gradio_api/file=/windows/win.ini", {}, None),
    "CVE-2026-28414 absolute in static": ("GET", "/static/%2Fetc%2Fpasswd", {}, None),
    "CVE-2026-28414 absolute in assets": ("GET", "/assets//etc/passwd", {}, None),
    "CVE-2023-29159 static files": ("GET", "/static/../static/../../etc/passwd", {}, None),
    "CVE-2024-10648 an audio format with a path": ("POST", JOIN, KIND, message(file_data("/tmp/x.wav", format="../../x"))),
    "GHSA-j36p-7w88-g82j segments of a path": ("POST", JOIN, KIND, message([["..", "..", "..", "etc", "passwd"], ["/etc/passwd"]])),
    "GHSA-3xvj-7669-6whx an SVG picture elsewhere": ("POST", JOIN, KIND, message(file_data(None, url="http://127.0.0.1:1/a.svg"))),
    "the configuration's file route": ("GET", "/gradio_api/file/etc/passwd", {}, None),
    "streams": ("GET", "/gradio_api/stream/a/b/0/playlist-file", {}, None),
    # other addresses
    "CVE-2024-1183 ports scanned by /file=": ("GET", "/file=http://127.0.0.1:22/", {}, None),
    "CVE-2024-2206 proxy": ("GET", f"/proxy={META}", {}, None),
    "CVE-2024-2206 proxy, the new route": ("GET", f"/gradio_api/proxy={META}", {}, None),
    "CVE-2024-4325 an address as a path": ("POST", JOIN, KIND, message(file_data(META))),
    "CVE-2024-47167 an address in a message": ("POST", JOIN, KIND, message({"video": file_data(None, url=META)})),
    "CVE-2024-48052 an address as an upload": ("POST", JOIN, KIND, message(file_data("", url=META, orig_name="a.png"))),
    "CVE-2026-28416 proxy of a loaded Space": ("GET", f"/gradio_api/proxy={quote(META, safe='')}", {}, None),
    "gopher": ("POST", JOIN, KIND, message(file_data("gopher://127.0.0.1:6379/_x"))),
    # a browser sent elsewhere
    "CVE-2024-4940 redirect by /file=": ("GET", f"/file={EVIL}", {}, None),
    "CVE-2024-8021 redirect by an encoded address": ("GET", f"/file={quote(EVIL, safe='')}", {}, None),
    "CVE-2024-8021 redirect by an encoded address, the new route": ("GET", f"/gradio_api/file={quote(EVIL, safe='')}", {}, None),
    "issue 13608 redirect by the new route": ("GET", f"/gradio_api/file={EVIL}", {}, None),
    "issue 13608 redirect by its other name": ("GET", f"/gradio_api/file/{EVIL}", {}, None),
    "issue 13593 redirect to metadata": ("GET", f"/gradio_api/file={META}", {}, None),
    "CVE-2026-28415 redirect after login": ("GET", f"/login/callback?_target_url={EVIL}", {}, None),
    "CVE-2026-28415 redirect after logout": ("GET", f"/logout?_target_url={EVIL}", {}, None),
    "CVE-2026-27167 sign-in that tells a token": ("GET", "/login/huggingface", {}, None),
    "two slashes": ("GET", "//evil.example/%2e%2e", {}, None),
    "a backslash": ("GET", "/%5cevil.example", {}, None),
    # other sites
    "CVE-2024-1727 uploads from another site": (
        "POST", UPLOAD, {"Origin": EVIL.rstrip("/"), **form(b"")[0]}, b"--x\r\nContent-Disposition: form-data; name=f; filename=a\r\n\r\na\r\n--x--\r\n",
    ),
    "CVE-2024-47084 another origin with cookies": ("POST", JOIN, {**KIND, "Origin": EVIL.rstrip("/"), "Cookie": "access-token=x"}, message(1)),
    "CVE-2024-47165 origin null": ("POST", JOIN, {**KIND, "Origin": "null"}, message(1)),
    "CVE-2025-5320 another name of this machine as the origin": ("POST", JOIN, {**KIND, "Origin": "http://0.0.0.0"}, message(1)),
    "CVE-2025-5320 another port of this machine as the origin": ("POST", JOIN, {**KIND, "Origin": "http://localhost:1"}, message(1)),
    "a name that begins like ours": ("POST", JOIN, {**KIND, "Origin": "http://127.0.0.1.evil.example"}, message(1)),
    "issue 13594 another host and origin": ("POST", JOIN, {**KIND, "Host": "spoofed.example", "Origin": EVIL.rstrip("/")}, message(1)),
    "an origin that is asked beforehand": (
        "OPTIONS", JOIN, {"Origin": EVIL.rstrip("/"), "Access-Control-Request-Method": "POST"}, None,
    ),
    # what is on although it seems off
    "CVE-2024-47168 monitoring": ("GET", "/monitoring", {}, None),
    "CVE-2024-47869 its key": ("GET", "/monitoring/AAAAAAAA", {}, None),
    "the list of runs": ("GET", "/gradio_api/runs", {}, None),
    "editing by a model": ("POST", "/gradio_api/vibe-code", KIND, b"{}"),
    "reloading of the source": ("GET", "/gradio_api/dev/reload", {}, None),
    "tools for models": ("POST", "/gradio_api/mcp/", KIND, b"{}"),
    # what takes long
    "CVE-2024-24762 a content type that is matched for long": ("POST", UPLOAD, {"Content-Type": "application/x-www-form-urlencoded; !=\"" + "\\" * 5000}, b"a=1"),
    "CVE-2024-8966 an endless boundary": ("POST", UPLOAD, *form(b"--x" + b"-" * 500_000 + b"\r\n")),
    "CVE-2024-53981 much after the end": (
        "POST", UPLOAD, *form(b"--x\r\nContent-Disposition: form-data; name=f; filename=a.txt\r\n\r\na\r\n--x--" + b"\r" * 300_000)
    ),
    "CVE-2024-47874 fields without a file": (
        "POST", UPLOAD, *form(b"--x\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n" + b"a" * 2_000_000 + b"\r\n--x--\r\n")
    ),
    "CVE-2023-30798 many fields": (
        "POST", UPLOAD, *form(b"--x\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\na\r\n" * 5000 + b"--x--\r\n")
    ),
    # what the page fails at
    "a number that JSON does not have": ("POST", JOIN, KIND, message(1, trigger_id={"a": float("nan")})),
    "an event that the page does not have": ("POST", JOIN, KIND, message(1, fn_index=10**9)),
    "an event that no page has": ("POST", JOIN, KIND, message(1, fn_index=-1)),
    "CVE-2024-10624 a date that is matched for long": ("POST", JOIN, KIND, message("1" * 20_000 + " ", "now - " + "9" * 20_000)),
}  # fmt: skip
TAKEN = {
    "CVE-2024-8966 an endless boundary", "GHSA-j36p-7w88-g82j segments of a path",
    "CVE-2024-53981 much after the end", "CVE-2024-10624 a date that is matched for long", "CVE-2024-47874 fields without a file",
}  # fmt: skip
"""What may be answered with 200, as it does no harm: an upload with something after it, and a text."""


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_a_request_of_an_advisory(address: str, name: str) -> None:
    method, path, headers, body = REQUESTS[name]
    start = time.monotonic()
    status, answered, content = sent(address, method, path, headers, body)
    assert time.monotonic() - start < 20
    assert 400 <= status < 500 or (name in TAKEN and status == 200), (status, content[:200])
    assert "location" not in answered and "access-control-allow-origin" not in answered
    assert b"root:" not in content and b"Traceback" not in content and b"PATH=" not in content


def test_cve_2025_62727_many_ranges(address: str) -> None:
    """`Range` does not reach Starlette: the whole file comes, at once."""
    ranges = "bytes=" + ",".join(f"{n}-{n + 1}" for n in range(0, 4000, 2))
    start = time.monotonic()
    status, _, content = sent(address, "GET", "/theme.css", {"Range": ranges})
    assert status == 200 and len(content) > 100 and time.monotonic() - start < 10


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.xhtml", "a.htm", "a.js", "a.xml"])
def test_cve_2024_47872_an_upload_runs_no_script(address: str, name: str) -> None:
    content = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(document.domain)</script></svg>"
    disposition = f'Content-Disposition: form-data; name="files"; filename="{name}"\r\nContent-Type: text/html\r\n\r\n'
    body = f"--x\r\n{disposition}".encode() + content + b"\r\n--x--\r\n"
    status, _, answer = sent(address, "POST", UPLOAD, *form(body))
    assert status == 200
    (path,) = json.loads(answer)
    status, headers, _ = sent(address, "GET", f"/gradio_api/file={path}")
    assert status == 200
    assert "sandbox" in headers["content-security-policy"] and "script-src" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert Path(path).name == name  # and below a folder whose name nobody can guess
    assert sent(address, "GET", f"/gradio_api/file={Path(path).parent}")[0] in (403, 404)


@pytest.mark.parametrize(
    "name", ["../../evil.png", "/etc/cron.d/evil", "..\\..\\evil.png", "%2e%2e%2fevil.png", "a\x00.png", "." * 300]
)
def test_a_name_of_an_upload_stays_in_its_folder(address: str, name: str) -> None:
    disposition = b'Content-Disposition: form-data; name="files"; filename="' + name.encode() + b'"\r\n\r\n'
    status, _, answer = sent(address, "POST", UPLOAD, *form(b"--x\r\n" + disposition + b"a\r\n--x--\r\n"))
    if status == 200:
        import os

        root = os.path.realpath(os.environ["GRADIO_TEMP_DIR"])
        assert all(os.path.realpath(path).startswith(root + os.sep) for path in json.loads(answer))
    else:
        assert 400 <= status < 500


def test_cve_2024_47870_the_address_is_not_what_a_header_says(address: str) -> None:
    headers = {
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X-Gradio-Server": "https://evil.example",
    }
    for path in ("/config", "/"):
        status, _, content = sent(address, "GET", path, headers)
        assert status == 200 and b"evil.example" not in content
    assert b"evil.example" not in sent(address, "GET", "/config")[2]
