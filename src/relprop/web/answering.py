"""Runs a page's functions: errors of ours in one line, anything else in one line that tells nothing, never a traceback."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

from relprop.errors import RelpropError
from relprop.rendering.visible import visible
from relprop.web.gradio_here import gradio
from relprop.web.limits import Limits
from relprop.web.sessions import Sessions
from relprop.web.work_queue import WorkQueue

log = logging.getLogger("relprop.web")
_LONGEST = 600


def said(error: Exception) -> str:
    """What a visitor is told of an error, in one line, safe as HTML."""
    if isinstance(error, RelpropError):
        text = error.message
    elif isinstance(error, ModuleNotFoundError):
        text = str(error)
    else:
        text = "something went wrong here; the terminal of this page's server says what."
    return escape(visible(" ".join(text.split()), longest=_LONGEST))


def answered(act: Callable[..., Any]) -> Callable[..., Any]:
    """A function as Gradio calls it, whose errors are messages on the page.

    Its parameters `request` and `event`, if it has them, are the visitor's request and the event that was triggered.
    """
    gr = gradio()
    kinds = {"request": gr.Request, "event": gr.EventData}
    special = [name for name in kinds if name in inspect.signature(act).parameters]

    def answer(*given: Any) -> Any:
        named = dict(zip(special, given, strict=False))
        try:
            return act(*given[len(special) :], **named)
        except gr.Error:
            raise
        except Exception as error:
            if not isinstance(error, RelpropError):
                log.exception("an answer failed")
            raise gr.Error(said(error), title="relprop", print_exception=False) from None

    first = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kinds[name]) for name in special
    ]
    rest = inspect.Parameter("values", inspect.Parameter.VAR_POSITIONAL)
    answer.__signature__ = inspect.Signature([*first, rest])  # type: ignore[attr-defined]
    answer.__annotations__ = {name: kinds[name] for name in special}
    answer.__name__ = getattr(act, "__name__", "answer")
    return answer


@dataclass(frozen=True, eq=False)
class Desk:
    """What the parts of a page share.

    Attributes:
        limits: what a visitor may send.
        sessions: what visitors asked and were answered.
        work: runs one explanation at a time.
    """

    limits: Limits
    sessions: Sessions
    work: WorkQueue

    @classmethod
    def of(cls, limits: Limits | None = None) -> Desk:
        """A desk with its own sessions."""
        limits = limits or Limits()
        return cls(limits, Sessions(limits), WorkQueue(limits.seconds))

    def leave(self, session: str) -> None:
        """A visitor closed the page."""
        self.work.leave(session)
        self.sessions.forget(session)
