"""A page in headless Chromium: what it says to the console, what it asks for, and what text it shows."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@dataclass
class Seen:
    """What happened while a page was open."""

    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    text: str = ""
    title: str = ""
    loaded: float = 0.0


class Chromium:
    """A browser, driven over its DevTools protocol (JSON in a WebSocket, RFC 6455)."""

    def __enter__(self) -> Chromium:
        self.profile = tempfile.mkdtemp(prefix="relprop-chromium-")
        # A sandbox needs rights that containers and root do not have; the pages are our own.
        self.process = subprocess.Popen(
            [str(PROGRAM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-extensions", "--remote-debugging-port=0",
             f"--user-data-dir={self.profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        port_file = Path(self.profile, "DevToolsActivePort")
        self._wait(lambda: port_file.exists() and port_file.read_text().count("\n") >= 1)
        self.port = int(port_file.read_text().splitlines()[0])
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.terminate()
        self.process.wait(10)
        shutil.rmtree(self.profile, ignore_errors=True)

    def measured(self, path: Path, width: int, expression: str, *, dark: bool = False) -> Any:
        """What a JavaScript expression gives on a page of that width."""
        with self._loaded(path, width, dark) as (page, seen):
            return page.ask("Runtime.evaluate", seen, expression=expression, returnByValue=True)["result"]["value"]

    def printed(self, path: Path) -> bytes:
        """The page on A4 paper, as PDF."""
        with self._loaded(path, 1200) as (page, seen):
            printed = page.ask("Page.printToPDF", seen, paperWidth=8.27, paperHeight=11.69, printBackground=True)
            return base64.b64decode(printed["data"])

    @contextmanager
    def _loaded(self, path: Path, width: int, dark: bool = False) -> Iterator[tuple[_Socket, Seen]]:
        seen = Seen()
        with _Socket(self._tab()) as page:
            page.ask("Page.enable", seen)
            page.ask(
                "Emulation.setDeviceMetricsOverride", seen, width=width, height=1000, deviceScaleFactor=1, mobile=False
            )
            scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
            page.ask("Emulation.setEmulatedMedia", seen, features=scheme)
            page.ask("Page.navigate", seen, url=path.as_uri())
            page.until("Page.loadEventFired", seen)
            yield page, seen

    def _tab(self) -> str:
        """The address of a new tab: an old one would tell again what it said before."""
        new = urllib.request.Request(f"http://127.0.0.1:{self.port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(new, timeout=10) as answer:
            address: str = json.load(answer)["webSocketDebuggerUrl"]
        return address

    def open(self, path: Path) -> Seen:
        """Opens a file and waits until it is loaded."""
        seen = Seen()
        with _Socket(self._tab()) as page:
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.ask(f"{domain}.enable", seen)
            page.ask("Network.setCacheDisabled", seen, cacheDisabled=True)
            start = time.perf_counter()
            page.ask("Page.navigate", seen, url=path.as_uri())
            page.until("Page.loadEventFired", seen)
            seen.loaded = time.perf_counter() - start
            # Whatever a page would do a moment later is seen, too.
            page.ask("Runtime.evaluate", seen, expression="new Promise(r => setTimeout(r, 200))", awaitPromise=True)
            for name, expression in (("text", "document.body.textContent"), ("title", "document.title")):
                found = page.ask("Runtime.evaluate", seen, expression=expression, returnByValue=True)
                setattr(seen, name, found["result"]["value"])
        seen.requests = [url for url in seen.requests if url != path.as_uri()]
        return seen

    def visit(self, address: str, ready: str, *, seconds: float = 60.0) -> tuple[Seen, bytes]:
        """Opens an address, waits until a JavaScript expression holds, and takes a picture (PNG) of the page."""
        seen = Seen()
        with _Socket(self._tab()) as page:
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.ask(f"{domain}.enable", seen)
            page.ask(
                "Emulation.setDeviceMetricsOverride", seen, width=1400, height=1000, deviceScaleFactor=1, mobile=False
            )
            page.ask("Page.navigate", seen, url=address)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                found = page.ask("Runtime.evaluate", seen, expression=ready, returnByValue=True)
                if found["result"].get("value"):
                    break
                time.sleep(0.2)
            text = page.ask("Runtime.evaluate", seen, expression="document.body.innerText", returnByValue=True)
            seen.text = text["result"]["value"]
            picture = page.ask("Page.captureScreenshot", seen, format="png")
        return seen, base64.b64decode(picture["data"])

    def _wait(self, ready: Any) -> None:
        for _ in range(300):
            if ready():
                return
            time.sleep(0.1)
        raise TimeoutError("chromium did not start")


class _Socket:
    """A WebSocket, as much of it as DevTools needs."""

    def __init__(self, address: str) -> None:
        host, path = re.fullmatch(r"ws://([^/]+)(/.*)", address).groups()
        name, port = host.split(":")
        self.socket = socket.create_connection((name, int(port)), timeout=60)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self.buffer += self.socket.recv(4096)
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        assert b" 101 " in head.splitlines()[0]
        self.number = 0
        self.fired: set[str] = set()

    def __enter__(self) -> _Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, method: str, seen: Seen, **parameters: Any) -> Any:
        self.number += 1
        self._send(json.dumps({"id": self.number, "method": method, "params": parameters}).encode())
        while True:
            message = self._next(seen)
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]

    def until(self, event: str, seen: Seen) -> None:
        while event not in self.fired:
            self._next(seen)

    def _next(self, seen: Seen) -> dict[str, Any]:
        message = json.loads(self._receive())
        method, said = message.get("method", ""), message.get("params", {})
        self.fired.add(method)
        if method == "Runtime.consoleAPICalled":
            seen.console.append(json.dumps(said["args"]))
        elif method == "Log.entryAdded":
            seen.console.append(said["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            seen.console.append(json.dumps(said["exceptionDetails"]))
        elif method == "Network.requestWillBeSent" and not said["request"]["url"].startswith("data:"):
            seen.requests.append(said["request"]["url"])
        return message

    def _send(self, data: bytes) -> None:
        size = len(data)
        length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + struct.pack(">H", size)
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        self.socket.sendall(b"\x81" + length + mask + masked)

    def _receive(self) -> bytes:
        whole = b""
        while True:
            first, second = self._read(2)
            size = second & 0x7F
            if size >= 126:
                size = int.from_bytes(self._read(2 if size == 126 else 8), "big")
            data = self._read(size)
            if first & 0x0F in (0, 1, 2):
                whole += data
                if first & 0x80:
                    return whole

    def _read(self, size: int) -> bytes:
        parts = [self.buffer]
        have = len(self.buffer)
        while have < size:
            part = self.socket.recv(max(65536, min(size - have, 2**20)))
            if not part:
                raise ConnectionError("chromium hung up")
            parts.append(part)
            have += len(part)
        joined = b"".join(parts)
        self.buffer = joined[size:]
        return joined[:size]


__all__ = ["PROGRAM", "Chromium", "Seen"]
