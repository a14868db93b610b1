"""Gradio, imported where a page is made, with everything off that would speak to the outside."""

from __future__ import annotations

import atexit
import gc
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
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


_FOLDER = "relprop-web-"


@cache
def gradio() -> Any:
    """The module `gradio`: no analytics, no share link, and a folder of its own for what is uploaded.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    os.environ.update(_QUIET)
    with without_garbage(), _without_stubs():
        return library("gradio", "the page needs Gradio", "web")


@contextmanager
def without_garbage() -> Iterator[None]:
    """Looks for no garbage. What imports and a start make stays; to look through it takes a fifth of their time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def _without_stubs() -> Iterator[None]:
    """Lets Gradio write no type stubs. For each class of fields it parses the class's file, and writes another beside it.

    That is half of the time of its import, and writes among the installed packages. Editors alone read these files.
    """
    finder = _StublessFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _StublessFinder(MetaPathFinder):
    """Finds the module of Gradio that writes type stubs, and no other."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        found = PathFinder.find_spec(name, path, target) if name == "gradio.component_meta" else None
        if found is None or not isinstance(found.loader, SourceFileLoader):
            return None
        return ModuleSpec(name, _StublessLoader(name, found.loader.path), origin=found.origin)


class _StublessLoader(SourceFileLoader):
    """Loads that module without the function that writes them."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        vars(module)["create_or_modify_pyi"] = lambda component_class, class_name, events: None


def forget_session(blocks: Any, session: str) -> None:
    """Deletes what Gradio keeps of a visitor who left: the values of all fields, which it would keep for an hour."""
    holder = getattr(blocks, "state_holder", None)
    if holder is not None:
        with holder.lock:
            holder.session_data.pop(session, None)
            holder.time_last_used.pop(session, None)


def release(blocks: Any) -> None:
    """Takes from a page that is served no more its functions, which know the networks.

    The page itself stays in memory: FastAPI remembers the functions of the last thousands of routes, and they know it.
    """
    holder = getattr(blocks, "state_holder", None)
    if holder is not None:
        with holder.lock:
            holder.session_data.clear()
    blocks.clear()
    blocks.queue()  # another queue, which has not counted how long the functions took


def upload_folder() -> Path:
    """The folder of what visitors upload, whose name cannot be guessed. Only this user may read it, and it ends with us."""
    if "GRADIO_TEMP_DIR" not in os.environ:
        os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix=f"{_FOLDER}{secrets.token_hex(16)}-")
        atexit.register(delete_uploads)
    return Path(os.environ["GRADIO_TEMP_DIR"])


def delete_uploads() -> None:
    """Deletes the folder of uploads, if it is ours."""
    folder = Path(os.environ.get("GRADIO_TEMP_DIR", ""))
    if folder.name.startswith(_FOLDER):
        shutil.rmtree(folder, ignore_errors=True)
