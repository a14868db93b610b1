"""Visitors of the page without a browser: they send what its scripts send, and read what its scripts read."""

from __future__ import annotations

import http.client
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass
class Reply:
    """What the page answered.

    Attributes:
        data: the values of the fields that it fills.
        seconds: from sending to the answer.
        waited: the places in the queue that were told meanwhile, from 0.
        error: the page's one line, where it answered with an error.
    """

    data: list[Any]
    seconds: float
    waited: list[int] = field(default_factory=list)
    error: str = ""


class Visitor:
    """One visitor: a session, which begins with `with` and is left at its end.

    Args:
        address: the page's.
    """

    def __init__(self, address: str) -> None:
        place = urlsplit(address)
        self.host, self.port = place.hostname or "", place.port
        self.session = secrets.token_hex(6)
        self._beat: http.client.HTTPConnection | None = None
        config = json.loads(self._sent("GET", "/config"))
        self.components = {each["id"]: each for each in config["components"]}
        self.events = config["dependencies"]

    def __enter__(self) -> Visitor:
        # An open page holds this request; the page was left when it ends.
        self._beat = http.client.HTTPConnection(self.host, self.port, timeout=3600)
        self._beat.request("GET", f"/gradio_api/heartbeat/{self.session}")
        stream = self._beat.getresponse()
        threading.Thread(target=_drain, args=(stream,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._beat is not None and self._beat.sock is not None:
            self._beat.sock.shutdown(2)
            self._beat.close()

    def _sent(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=600)
        try:
            connection.request(method, path, body, {} if body is None else {"Content-Type": kind})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
            return content
        finally:
            connection.close()

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        """A file, as a field of files holds it."""
        mark = secrets.token_hex(16)
        head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{mark}--\r\n".encode()
        (path,) = json.loads(self._sent("POST", "/gradio_api/upload", body, f"multipart/form-data; boundary={mark}"))
        return {"path": path, "orig_name": name, "size": len(content), "meta": {"_type": "gradio.FileData"}}

    def ask(self, target: str, event: str, given: Any = None, data: Any = None) -> Reply:
        """Triggers an event of the page, and waits for its answer.

        Args:
            target: the `elem_id` of the field, or its type where it has none.
            event: the event's name.
            given: the value of the field itself, if the event takes it; all others have what they begin with.
            data: what the event brings.
        """
        dependency = self._dependency(target, event)
        values = [self.components[n]["props"].get("value") for n in dependency["inputs"]]
        if given is not None:
            values[0] = given
        message = {
            "data": values, "fn_index": dependency["id"], "session_hash": self.session, "trigger_id": dependency["targets"][0][0],
            "event_data": data,
        }  # fmt: skip
        start = time.perf_counter()
        found = json.loads(self._sent("POST", "/gradio_api/queue/join", json.dumps(message).encode()))
        reply = self._read(found["event_id"], start)
        reply.seconds = time.perf_counter() - start
        return reply

    def _dependency(self, target: str, event: str) -> dict[str, Any]:
        for each in self.events:
            for number, name in each["targets"]:
                part = self.components.get(number)
                named = part is not None and target in (part["props"].get("elem_id"), part["type"])
                if named and name == event:
                    found: dict[str, Any] = each
                    return found
        raise LookupError(f"the page has no event {event!r} of {target!r}")

    def _read(self, event: str, start: float) -> Reply:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=600)
        waited: list[int] = []
        warned = ""
        try:
            connection.request("GET", f"/gradio_api/queue/data?session_hash={self.session}")
            stream = connection.getresponse()
            while line := stream.readline():
                if not line.startswith(b"data: "):
                    continue
                said = json.loads(line[6:])
                if said.get("event_id") not in (event, None):
                    continue
                if said["msg"] == "estimation" and said.get("rank") is not None:
                    waited.append(said["rank"])
                if said["msg"] == "log" and said["level"] == "warning":
                    warned = said["log"]
                if said["msg"] in ("process_completed", "unexpected_error"):
                    output = said.get("output") or {}
                    error = warned if said.get("success") else str(output.get("error") or said.get("message"))
                    return Reply(output.get("data") or [], time.perf_counter() - start, waited, error)
        finally:
            connection.close()
        return Reply([], time.perf_counter() - start, waited, "the answer ended early")


def _drain(stream: http.client.HTTPResponse) -> None:
    try:
        while stream.read(64):
            pass
    except Exception:  # it was closed, on which http.client raises what happens to come
        return
