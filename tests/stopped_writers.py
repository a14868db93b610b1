"""Stops a writer of a folder at each of its lines: `python tests/stopped_writers.py soft|hard FOLDER`.

The folder has a saved result, `first`. Whenever a writer is stopped, the old or the new result must be there, and whole.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import relprop
from relprop.results.files import atomic


class Stopped(BaseException):
    """What ends a program from outside."""


def stop_at(number: int, kill: bool) -> Any:
    """Stops at the n-th line that runs in `atomic.folder` and what it calls: with an exception, or as by a signal that nothing can catch."""
    left = number

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != atomic.__file__ or frame.f_code.co_name == "write":
            return None
        if event == "line":
            left -= 1
            if left == 0:
                if kill:
                    os._exit(9)
                raise Stopped
        return trace

    return trace


def hard(write: Callable[[], None], number: int) -> bool:
    """Writes in a process that is killed on the way; whether it was."""
    child = os.fork()
    if not child:
        sys.settrace(stop_at(number, kill=True))
        write()
        os._exit(0)
    return bool(os.waitpid(child, 0)[1])


def soft(write: Callable[[], None], number: int) -> bool:
    """Writes with an exception on the way; whether it was raised."""
    sys.settrace(stop_at(number, kill=False))
    try:
        write()
    except Stopped:
        return True
    finally:
        sys.settrace(None)
    return False


def main(stop: Callable[[Callable[[], None], int], bool], folder: Path) -> None:
    result, place = relprop.load(folder / "first"), folder / "run"
    other, stopped = result[:1], 0
    for number in range(1, 200):
        result.save(place)
        if not stop(lambda: other.save(place), number):
            break
        stopped += 1
        assert len(relprop.load(place)) in (len(result), len(other))
        other.save(place)
        assert len(relprop.load(place)) == len(other)
        assert not (folder / ".run.old").exists()
    assert 15 < stopped < 199


if __name__ == "__main__":
    main({"soft": soft, "hard": hard}[sys.argv[1]], Path(sys.argv[2]))
