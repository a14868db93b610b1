"""One explanation at a time, for a limited time, ended early when its visitor leaves."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from relprop.errors import InputError

T = TypeVar("T")
_AGAIN = 2.0
"""After so many seconds, what did not stop is told again."""


class _Stopped(BaseException):
    """Raised in the thread of an explanation that shall end. No handler of ordinary errors catches it."""


class _Job:
    """What runs now. It is told to stop until it ends, and never afterwards."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.why = ""
        self._thread = ctypes.c_ulong(threading.get_ident())
        self._lock = threading.Lock()
        self._over = False

    def stop(self, why: str) -> None:
        """Raises `_Stopped` in its thread, at the next step of Python there."""
        with self._lock:
            if self._over:
                return
            self.why = self.why or why
            ctypes.pythonapi.PyThreadState_SetAsyncExc(self._thread, ctypes.py_object(_Stopped))
        # A destructor or a callback may have swallowed it.
        again = threading.Timer(_AGAIN, self.stop, [why])
        again.daemon = True
        again.start()

    def end(self) -> None:
        """No later stop reaches it, and one that is on its way is taken back."""
        with self._lock:
            self._over = True
            ctypes.pythonapi.PyThreadState_SetAsyncExc(self._thread, None)


_Asked = tuple["Future[Any]", str, Callable[[], Any]]


def _work(waiting: SimpleQueue[_Asked | None], queue: weakref.ref[WorkQueue]) -> None:
    """Runs what is asked, until nobody has the queue any more."""
    while (asked := waiting.get()) is not None:
        future, session, act = asked
        runs = queue()
        try:
            if runs is not None:
                future.set_result(runs.run(session, act))
        except BaseException as error:
            future.set_exception(error)
        del asked, future, act, runs  # else what a visitor was answered would stay until the next question


class WorkQueue:
    """Runs explanations one after the other, in a thread of their own.

    A server answers from many threads, and the allocator of C keeps what each thread freed for that thread alone: if each
    of them explained now and then, each would keep the memory of an explanation.

    Args:
        seconds: the time that each may take.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._waiting: SimpleQueue[_Asked | None] = SimpleQueue()
        self._now: _Job | None = None
        # Ending the program does not wait for an explanation.
        work = threading.Thread(
            target=_work, args=(self._waiting, weakref.ref(self)), name="relprop-explains", daemon=True
        )
        work.start()
        weakref.finalize(self, self._waiting.put, None)  # a page that was closed leaves no thread

    def do(self, session: str, act: Callable[[], T]) -> T:
        """Runs a function when it is its turn.

        Raises:
            InputError: it took too long, or its visitor left.
        """
        future: Future[T] = Future()
        self._waiting.put((future, session, act))
        return future.result()

    def run(self, session: str, act: Callable[[], T]) -> T:
        """Runs a function at once, in this thread; `do` does so when it is its turn, in the queue's.

        Raises:
            InputError: it took too long, or its visitor left.
        """
        job = self._now = _Job(session)
        timer = threading.Timer(
            self.seconds, job.stop, [f"this took longer than the {self.seconds:g} seconds that a question may take."]
        )
        timer.daemon = True
        timer.start()
        try:
            try:
                return act()
            finally:
                job.end()
        except _Stopped:
            job.end()
            raise InputError(job.why) from None
        finally:
            timer.cancel()
            self._now = None

    def leave(self, session: str) -> None:
        """Stops what runs for a visitor who left."""
        job = self._now
        if job is not None and job.session == session:
            job.stop("the page was left.")
