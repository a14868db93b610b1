"""Runs a page's functions: errors of ours in one line, anything else in one line that tells nothing, never a traceback."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

from relprop.errors import RelpropError
from relprop.rendering.visible import visible
from relprop.web.gradio_here import gradio
from relprop.web.limits import Limits
from relprop.web.sessions import Sessions
from relprop.web.settings import LONGEST_LINK
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


def answered(act: Callable[..., Any], failed: Callable[[str, Any], Any] | None = None) -> Callable[..., Any]:
    """A function as Gradio calls it, whose errors are messages on the page.

    Its parameters `request` and `event`, if it has them, are the visitor's request and the event that was triggered. The
    others keep their names, under which programs give them.

    Args:
        act: the function.
        failed: makes the values of the fields where there is no answer, from the line that says why, and the request.
            Without it Gradio writes "Error" on each field.
    """
    gr = gradio()
    kinds = {"request": gr.Request, "event": gr.EventData}
    given_to = inspect.signature(act).parameters
    special = [name for name in kinds if name in given_to]

    def answer(*given: Any) -> Any:
        named = dict(zip(special, given, strict=False))
        try:
            return act(*given[len(special) :], **named)
        except gr.Error:
            raise
        except Exception as error:
            if not isinstance(error, RelpropError):
                log.exception("an answer failed")
            if failed is None:
                raise gr.Error(said(error), title="relprop", print_exception=False) from None
            gr.Warning(said(error), title="relprop")
            return failed(said(error), named.get("request"))

    first = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=kinds[name]) for name in special
    ]
    rest = [each.replace(annotation=inspect.Parameter.empty) for name, each in given_to.items() if name not in kinds]
    vars(answer)["__signature__"] = inspect.Signature([*first, *rest])
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
        tab: the number of the tab whose part this is; a page without tabs is one.
    """

    limits: Limits
    sessions: Sessions
    work: WorkQueue
    tab: int = 0

    def own(self, name: str) -> str:
        """A name that is no other tab's, for what is kept and for parts of the page."""
        return f"{name}-{self.tab}" if self.tab else name

    def linked(self, query: str) -> str:
        """The link of settings, which leads to this tab."""
        return f"{query}&tab={self.tab}" if self.tab and query else query

    def asked(self, query: Any) -> str:
        """The settings of the page's address, if they are for this tab."""
        text = str(query or "")
        return text if tab_of(text) == self.tab else ""

    @classmethod
    def of(cls, limits: Limits | None = None) -> Desk:
        """A desk with its own sessions."""
        limits = limits or Limits()
        return cls(limits, Sessions(limits), WorkQueue(limits.seconds))

    def leave(self, session: str) -> None:
        """A visitor closed the page."""
        self.work.leave(session)
        self.sessions.forget(session)


def tab_of(query: str) -> int:
    """The number of the tab to which an address leads; 0 where it says nothing of that form."""
    found = re.search(r"[?&]tab=(\d{1,3})(&|$)", query[:LONGEST_LINK])
    return int(found[1]) if found else 0
