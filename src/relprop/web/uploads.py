"""Uploaded files, each in a folder of its own. Gradio names them by their content, so that two visitors would share one."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from relprop.web.bodies import Message, Send

_OWN = "own-"
_REMEMBERED = 64
_EMPTY = 60.0
"""After so many seconds a folder that a file was moved from is deleted."""


class Uploads:
    """Gives each uploaded file a folder of its own.

    Args:
        folder: the folder of uploads.
        kept: the paths that the server deletes when they are old; new ones are added.
        clock: the seconds of now.
    """

    def __init__(self, folder: Path, kept: set[Any], clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self.kept, self._clock = folder, kept, clock
        self._last: dict[str, Path] = {}
        self._emptied: deque[tuple[float, Path]] = deque()

    def moved(self, path: str) -> str:
        """Moves a file that came just now, and returns where it is.

        Two uploads of one content lie at one path: the first is moved, and the second is then made from it.

        Raises:
            OSError: it is not there.
        """
        found = self.folder / f"{_OWN}{secrets.token_hex(16)}" / Path(path).name
        found.parent.mkdir(mode=0o700)
        try:
            try:
                shutil.copyfile(path, found)
            except FileNotFoundError:
                shutil.copyfile(self._last[path], found)
        except (OSError, KeyError) as error:
            shutil.rmtree(found.parent, ignore_errors=True)
            raise OSError(f"{path} is not there") from error
        if os.path.exists(path):
            os.unlink(path)
        self._last[path] = found
        while len(self._last) > _REMEMBERED:
            del self._last[next(iter(self._last))]
        self.kept.add(str(found))
        self._tidy(Path(path).parent)
        return str(found)

    def _tidy(self, emptied: Path) -> None:
        """Deletes folders that were emptied a while ago; into a later one, Gradio may just now put the same file again."""
        now = self._clock()
        if emptied != self.folder:
            self._emptied.append((now, emptied))
        while self._emptied and now - self._emptied[0][0] > _EMPTY:
            with suppress(OSError):  # it is not empty, or gone
                self._emptied.popleft()[1].rmdir()

    def answered(self, send: Send) -> Send:
        """Sends the answer to an upload, a list of paths, with those to which they are moved."""
        start: Message = {}
        parts: list[bytes] = []

        async def rewritten(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            parts.append(message.get("body", b""))
            if message.get("more_body"):
                return
            status, body = start["status"], b"".join(parts)
            if status == 200:
                try:
                    body = json.dumps([self.moved(each) for each in json.loads(body)]).encode()
                except OSError:
                    status, body = 409, b'{"detail": "the file did not arrive: send it again."}'
            headers = [pair for pair in start.get("headers", ()) if pair[0].lower() != b"content-length"]
            headers.append((b"content-length", str(len(body)).encode()))
            await send({**start, "status": status, "headers": headers})
            await send({**message, "body": body})

        return rewritten


def delete(path: Path) -> None:
    """Deletes an uploaded file, unless other visitors may have the same: then the server deletes it when it is old."""
    if path.parent.name.startswith(_OWN):
        path.unlink(missing_ok=True)
        with suppress(OSError):  # it is gone
            path.parent.rmdir()
