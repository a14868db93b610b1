"""Work that is cut into batches, which are halved when memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

T = TypeVar("T")
_SAID = ("out of memory", "can't allocate memory", "DefaultCPUAllocator")


class BatchSize:
    """The number of rows in a batch. It falls when memory runs out, for all that share it.

    Attributes:
        rows: the number.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def attempt(self, work: Callable[[], T]) -> T | None:
        """What the work returns; None if memory ran out, with half as many rows from now on."""
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error) or self.rows == 1:
                raise
        self.rows = max(1, self.rows // 2)
        gc.collect()
        return None

    def batches(self, count: int, work: Callable[[int, int], T]) -> Iterator[T]:
        """Yields `work(start, stop)` for the rows 0 to `count`."""
        start = 0
        while start < count:
            stop = min(start + self.rows, count)
            found: Any = self.attempt(lambda a=start, b=stop: work(a, b))  # type: ignore[misc]
            if found is not None:
                yield found
                start = stop


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(said in str(error) for said in _SAID)
