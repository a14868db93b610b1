"""A folder in which finished work is kept, so that a run that was stopped continues where it stopped.

Each line of `journal.jsonl` is one batch. A line that was cut off by a kill is ignored, so at most one batch is lost.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relprop.errors import FormatError, InputError
from relprop.evaluation.locking import Lock

FILE = "journal.jsonl"
FORMAT = 1
Key = tuple[bytes, bytes, int, int, int]


class ScoreJournal:
    """Scores and maps that were computed already, by their keys.

    Args:
        folder: the folder; it is made if it is missing.

    Raises:
        InputError: there is a file in its place, or another evaluation writes to it.
        FormatError: another version wrote it.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        place = Path(folder)
        if place.exists() and not place.is_dir():
            raise InputError(f"folder= is where finished work is kept; {str(place)!r} is a file.")
        place.mkdir(parents=True, exist_ok=True)
        self.path = place / FILE
        self._scores: dict[str, float] = {}
        self._maps: dict[str, int] = {}
        """Where the line of each map begins: maps stay on disk."""
        self._lock = Lock(place)
        try:
            self._read()
            self._file = self.path.open("a+b")
            if not self.path.stat().st_size:
                self._write({"format": FORMAT})
        except BaseException:
            self._lock.release()
            raise

    def score(self, *key: Any) -> float | None:
        """The score that was kept under a key, or None."""
        return self._scores.get(_name(*key))

    def keep(self, keys: Sequence[Key], values: Sequence[float]) -> None:
        """Keeps the scores of one batch."""
        names = [_name(*key) for key in keys]
        self._scores.update(zip(names, values, strict=True))
        self._write({"scores": names, "values": [value.hex() for value in values]})

    def map(self, key: str) -> tuple[Tensor, dict[str, Any]] | None:
        """A tensor that was kept, and what was said of it; or None."""
        start = self._maps.get(key)
        if start is None:
            return None
        self._file.seek(start)
        found = json.loads(self._file.readline())
        return _tensor(found), found["about"]

    def keep_map(self, key: str, values: Tensor, about: dict[str, Any]) -> None:
        """Keeps a tensor."""
        array = values.detach().cpu().contiguous().numpy()
        data = base64.b64encode(array.tobytes()).decode()
        record = {"data": data, "dtype": str(array.dtype), "shape": list(array.shape), "about": about}
        self._maps[key] = self._write({"map": key, **record})

    def close(self) -> None:
        """Lets go of the folder."""
        self._file.close()
        self._lock.release()

    def _write(self, record: dict[str, Any]) -> int:
        """Writes a line at the end, and returns where it begins."""
        start = self._file.seek(0, os.SEEK_END)
        self._file.write((json.dumps(record) + "\n").encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        return start

    def _read(self) -> None:
        if not self.path.exists():
            return
        start = 0
        with self.path.open("r+b") as file:
            for number, line in enumerate(iter(file.readline, b"")):
                if not line.endswith(b"\n"):
                    file.truncate(start)  # it was cut off, and must not run into the next one
                    return
                self._take(number, line, start)
                start += len(line)

    def _take(self, number: int, line: bytes, start: int) -> None:
        """Notes what a line holds."""
        try:
            record = json.loads(line)
            if number == 0 and record.get("format") != FORMAT:
                raise FormatError(
                    f"{str(self.path)!r} was written by another version of relprop: choose another folder."
                )
            if "scores" in record:
                values = [float.fromhex(value) for value in record["values"]]
                self._scores.update(zip(record["scores"], values, strict=True))
            elif "map" in record:
                _tensor(record)
                self._maps[record["map"]] = start
        except FormatError:
            raise
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise FormatError(f"line {number + 1} of {str(self.path)!r} is damaged: {error}.") from error


def _tensor(record: dict[str, Any]) -> Tensor:
    """The tensor in the record of a map.

    Raises:
        ValueError, KeyError, TypeError: it is no such record.
    """
    array = np.frombuffer(base64.b64decode(record["data"]), dtype=record["dtype"]).reshape(record["shape"])
    if not isinstance(record["about"], dict):
        raise TypeError("what is said of a map is not a table")
    return torch.from_numpy(array.copy())


def _name(sample: bytes, replaced: bytes, seed: int, a: int, b: int) -> str:
    return f"{sample.hex()[:32]}.{replaced.hex()[:16]}.{seed}.{a:x}.{b:x}"
