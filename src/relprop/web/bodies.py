"""The bodies of requests: read within limits, and judged before Gradio reads them."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MOST = 2**20
"""The most bytes of a message that is no upload: settings, and a text."""
_SECONDS = 60.0
"""How long a visitor may take to send a message."""
_DEPTH = 40


class RequestRefused(Exception):
    """A request that is not let through: a status and one line."""

    def __init__(self, status: int, line: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(line)
        self.status, self.line, self.headers = status, line, headers


def cleaned(body: bytes, uploaded: Callable[[str], bool], known: Callable[[int], bool] | None = None) -> bytes:
    """A message without what Gradio would fetch or open by itself.

    Args:
        body: the message.
        uploaded: whether a path is that of an uploaded file.
        known: whether the page has an event of that number.

    Raises:
        RequestRefused: it is no JSON, holds NaN or infinity, names a file that was not uploaded, or asks for nothing
            that the page has.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestRefused(400, "the message is no JSON.") from None
    if not isinstance(message, dict):
        raise RequestRefused(400, "the message is no JSON object.")
    asked = message.get("fn_index")
    if known is not None and type(asked) is int and not known(asked):
        raise RequestRefused(404, "the page has nothing of that number to ask.")
    return json.dumps(_clean(message, 0, uploaded)).encode()


def _clean(part: Any, depth: int, uploaded: Callable[[str], bool]) -> Any:
    if depth > _DEPTH:
        raise RequestRefused(400, "the message is nested too deeply.")
    if isinstance(part, list):
        return [_clean(each, depth + 1, uploaded) for each in part]
    if isinstance(part, float) and not math.isfinite(part):  # which JSON has not, and Gradio could not write again
        raise RequestRefused(400, "the message holds a number that JSON does not have.")
    if not isinstance(part, dict):
        return part
    if "path" in part or "url" in part:
        path = part.get("path")
        if not isinstance(path, str) or not uploaded(path):
            raise RequestRefused(400, "the message names a file that was not uploaded here.")
        name = part.get("orig_name")
        size = part.get("size")
        return {
            "path": path,
            "orig_name": name if isinstance(name, str) else None,
            "size": size if type(size) is int else None,
            "meta": {"_type": "gradio.FileData"},
        }
    return {key: _clean(value, depth + 1, uploaded) for key, value in part.items()}


async def _next(receive: Receive) -> Message:
    try:
        return await asyncio.wait_for(receive(), _SECONDS)
    except asyncio.TimeoutError:
        raise RequestRefused(408, "the message took too long to arrive.") from None


async def read(receive: Receive, most: int) -> bytes:
    """A whole body.

    Raises:
        RequestRefused: it is too long, or its sender left.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await _next(receive)
        if message["type"] == "http.disconnect":
            raise RequestRefused(400, "the message ended early.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise RequestRefused(413, f"this is more than the {most / 2**20:.3g} MiB that may be sent here.")
        if not message.get("more_body"):
            return b"".join(parts)


def counted(receive: Receive, most: int) -> Receive:
    """The same body, which ends with an error where it becomes too long."""
    size, over = 0, False

    async def counted() -> Message:
        nonlocal size, over
        if over:
            return await receive()
        message = await _next(receive)
        size += len(message.get("body", b""))
        over = not message.get("more_body")
        if size > most:
            raise RequestRefused(413, f"this is more than the {most / 2**20:.3g} MiB that may be sent here.")
        return message

    return counted


def replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read, once more; then what comes."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
