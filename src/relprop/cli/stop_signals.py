"""SIGINT and SIGTERM while a run is written: the units at hand are finished first, unless the signal comes twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LISTENED = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """How often this process was asked to stop.

    Args:
        line: the command that continues what is stopped.
    """

    def __init__(self, line: str) -> None:
        self.count, self.line, self._patient = 0, line, False

    def asked(self) -> bool:
        """Whether it was asked to stop."""
        return self.count > 0

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Inside, the first signal is only counted."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def hear(self, number: int, frame: Any) -> None:
        """Handles a signal.

        Raises:
            KeyboardInterrupt: it is the second one, or nobody is patient.
        """
        self.count += 1
        if self.count > 1 or not self._patient:
            raise KeyboardInterrupt
        # not through sys.stderr, which this signal may have interrupted
        os.write(2, f"Stopping after the unit at hand; once more stops at once. To continue: {self.line}\n".encode())


@contextmanager
def listening(line: str) -> Iterator[StopSignals]:
    """Listens to SIGINT and SIGTERM."""
    signals = StopSignals(line)
    before = {one: signal.signal(one, signals.hear) for one in _LISTENED}
    try:
        yield signals
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
