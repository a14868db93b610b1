"""What a visitor asked and was answered. It belongs to the visitor's session, and is deleted with it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relprop.errors import InputError
from relprop.web import uploads
from relprop.web.limits import Limits


@dataclass(eq=False)
class Session:
    """One visitor's things.

    Attributes:
        given: what was asked about, by the name of the page's part that asked.
        answers: what was answered, by the same names.
        failed: the parts whose last question has no answer. What they answered before is kept, to ask again.
        files: what the visitor uploaded.
        used: when it was last used.
    """

    given: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    files: set[Path] = field(default_factory=set)
    used: float = 0.0

    def use(self, now: float) -> None:
        """Notes that it is used now."""
        self.used = now

    def ask(self, part: str, given: Any) -> None:
        """Keeps what a part of the page is asked about."""
        self.given[part] = given

    def keep(self, part: str, answer: Any) -> None:
        """Keeps what a part of the page answered."""
        self.answers[part] = answer
        self.failed.discard(part)

    def fail(self, part: str) -> None:
        """Notes that what a part was asked last has no answer."""
        self.failed.add(part)


class Sessions:
    """The sessions of all visitors, by the names that their browsers drew. They live in memory only."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._all: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._all)

    def of(self, name: str) -> Session:
        """The session of that name. Those that are idle for too long, and the oldest of too many, are deleted here."""
        with self._lock:
            now = self._clock()
            for old in [key for key, each in self._all.items() if now - each.used > self._limits.idle]:
                _delete(self._all.pop(old))
            session = self._all.setdefault(name, Session())
            session.use(now)
            self._all.move_to_end(name)
            while len(self._all) > self._limits.sessions:
                _delete(self._all.popitem(last=False)[1])
            return session

    def answer(self, name: str, part: str) -> Any:
        """What was answered last.

        Raises:
            InputError: nothing was, or it was deleted.
        """
        session = self.of(name)
        if part in session.failed:
            raise InputError("the last question has no answer: ask again.")
        found = session.answers.get(part)
        if found is None:
            raise InputError("there is no answer yet, or it was deleted because nobody asked about it: ask again.")
        return found

    def forget(self, name: str) -> None:
        """Deletes a session and its files."""
        with self._lock:
            session = self._all.pop(name, None)
        if session is not None:
            _delete(session)


def _delete(session: Session) -> None:
    for path in session.files:
        uploads.delete(path)
