"""Reads files that may come from anyone: bounded in size, and never a link, a pipe or a device."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

# JSON with this many values takes some 400 MB in memory; the manifest of a network of 10,000 operations has 200,000.
_VALUES = 4_000_000


@contextmanager
def opened(path: Path, most: int) -> Iterator[tuple[BufferedReader, int]]:
    """An open file and its size.

    Args:
        path: the file. A link is refused, because a saved result holds the files themselves.
        most: the largest size allowed, in bytes.

    Raises:
        ValueError: it is not a regular file, or too large.
        OSError: it cannot be opened.
    """
    # `open` would wait for a pipe's writer and follow a link. A flag that Windows lacks is 0.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if path.is_symlink():
        raise ValueError(f"{path.name} is a link; a saved result holds the files themselves")
    with os.fdopen(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path.name} is not an ordinary file")
        if found.st_size > most:
            raise ValueError(f"{path.name} has {found.st_size:,} bytes; at most {most:,} are read")
        yield file, found.st_size


def exactly(file: BufferedReader, count: int) -> bytearray:
    """The next `count` bytes of a file.

    Raises:
        ValueError: the file ends before.
    """
    content = bytearray(count)
    view, done = memoryview(content), 0
    while done < count:
        step = file.readinto(view[done:])
        if not step:
            raise ValueError(f"it ends {count - done:,} bytes early")
        done += step
    return content


def strict_json(content: bytes | bytearray) -> Any:
    """Reads JSON as this package writes it: each key once, integers of 64 bits, finite numbers only.

    Raises:
        ValueError: it is not such JSON, or has too many values.
        RecursionError: it is nested too deeply.
    """
    # Each value but the first follows one of these characters.
    if sum(map(content.count, (b",", b"[", b"{", b":"))) > _VALUES:
        raise ValueError(f"it may hold more than {_VALUES:,} values")
    return json.loads(
        content.decode("utf-8"), object_pairs_hook=_once, parse_int=_integer, parse_float=_real, parse_constant=_refuse
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a table holds a key twice")
    return found


def _integer(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"the number {text[:20]}... has more than 64 bits")
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")
