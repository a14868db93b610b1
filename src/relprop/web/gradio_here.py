"""Gradio, imported where a page is made, with everything off that would speak to the outside."""

from __future__ import annotations

import gc
import os
import secrets
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from relprop.optional import library

_QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_SHARE": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_RUN_HISTORY": "False",
    # Its list of events is shown by a route that we do not serve.
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000",
}


@cache
def gradio() -> Any:
    """The module `gradio`: no analytics, no share link, and a folder of its own for what is uploaded.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    os.environ.update(_QUIET)
    # What an import makes stays; to look through it for garbage takes a fifth of its time.
    collects = gc.isenabled()
    gc.disable()
    try:
        return library("gradio", "the page needs Gradio", "web")
    finally:
        if collects:
            gc.enable()


def forget_session(blocks: Any, session: str) -> None:
    """Deletes what Gradio keeps of a visitor who left: the values of all fields, which it would keep for an hour."""
    holder = getattr(blocks, "state_holder", None)
    if holder is not None:
        with holder.lock:
            holder.session_data.pop(session, None)
            holder.time_last_used.pop(session, None)


def upload_folder() -> Path:
    """The folder of what visitors upload, whose name cannot be guessed. Only this user may read it."""
    if "GRADIO_TEMP_DIR" not in os.environ:
        os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix=f"relprop-web-{secrets.token_hex(16)}-")
    return Path(os.environ["GRADIO_TEMP_DIR"])
