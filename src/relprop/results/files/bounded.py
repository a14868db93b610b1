"""Files that others may have made, read with a bound on what is read: no link, no pipe, no device, nothing endless."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

# JSON of that many values is some 400 MB in memory; the manifest of a network of 10,000 operations has 200,000.
_VALUES = 4_000_000


@contextmanager
def opened(path: Path, most: int) -> Iterator[tuple[BinaryIO, int]]:
    """A file and its size.

    Args:
        path: the file itself: a saved result holds its files, so a link in their place leads elsewhere.
        most: bytes that it may have.

    Raises:
        ValueError: it is no ordinary file, or larger.
        OSError: it cannot be opened.
    """
    # A pipe would make `open` wait for a writer, a link would be followed; what Windows lacks of these flags is 0.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if path.is_symlink():
        raise ValueError(f"{path.name} is a link; a saved result holds its files themselves")
    with os.fdopen(os.open(path, flags), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path.name} is no ordinary file")
        if found.st_size > most:
            raise ValueError(f"{path.name} has {found.st_size:,} bytes; at most {most:,} are read")
        yield file, found.st_size


def exactly(file: BinaryIO, count: int) -> bytearray:
    """That many bytes of a file.

    Raises:
        ValueError: it ends before.
    """
    content = bytearray(count)
    view, done = memoryview(content), 0
    while done < count:
        step = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not step:
            raise ValueError(f"it ends {count - done:,} bytes early")
        done += step
    return content


def strict_json(content: bytes | bytearray) -> Any:
    """JSON as it is written here: each key once, numbers of 64 bits, nothing that is not finite.

    Raises:
        ValueError: it is none, or has too many values; RecursionError: it is nested too deeply.
    """
    # Each value but the first follows one of these.
    if sum(map(content.count, (b",", b"[", b"{", b":"))) > _VALUES:
        raise ValueError(f"it may hold more than {_VALUES:,} values")
    return json.loads(
        content.decode("utf-8"), object_pairs_hook=_once, parse_int=_integer, parse_float=_real, parse_constant=_refuse
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one place")
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
    raise ValueError(f"{text} is no number of JSON")
