"""A page where anyone can ask a network why: `relprop serve`, and parts of it for pages and notebooks of your own.

Built on Gradio, which is imported when a page is made: `pip install 'relprop[web]'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relprop.web.page import explain_block
    from relprop.web.server import serve
    from relprop.web.widget import widget

__all__ = ["explain_block", "serve", "widget"]

_LATER = {"explain_block": "page", "serve": "server", "widget": "widget"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'relprop.web' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"relprop.web.{_LATER[name]}"), name)
