"""A figure of a benchmark beside its goal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """What was measured.

    Attributes:
        what: what it is.
        value: the number; None if it could not be measured here.
        sign: ">=", "<=" or "==".
        bound: the goal.
        unit: its unit.
        digits: after the point; -1 for powers of ten.
        why: why it could not be measured, or under which conditions it was.
    """

    what: str
    value: float | None
    sign: str
    bound: float
    unit: str = ""
    digits: int = 0
    why: str = ""

    @property
    def shown(self) -> str:
        """The number as text."""
        return f"not measured: {self.why}" if self.value is None else self._number(self.value)

    @property
    def goal(self) -> str:
        """The goal as text."""
        return f"{self.sign} {self._number(self.bound)}"

    @property
    def verdict(self) -> str:
        """Whether the goal is reached."""
        if self.value is None:
            return ""
        reached = {">=": self.value >= self.bound, "<=": self.value <= self.bound, "==": self.value == self.bound}[
            self.sign
        ]
        return "" if reached else "missed"

    def _number(self, value: float) -> str:
        text = f"{value:.1e}" if self.digits < 0 else f"{value:.{self.digits}f}"
        return f"{text} {self.unit}".strip()

    def __str__(self) -> str:
        return f"{self.what}: {self.shown} (goal {self.goal}) {self.verdict}".rstrip()


def cpu(act: Callable[[], object]) -> float:
    """The CPU time that something takes in this process, in seconds."""
    start = time.process_time()
    act()
    return time.process_time() - start
