"""The page inside of a notebook."""

from __future__ import annotations

import atexit
from dataclasses import dataclass
from typing import Any

from relprop.signatures import public
from relprop.web import server
from relprop.web.guard import Rules
from relprop.web.limits import Limits
from relprop.web.page_subject import subject_of

_NOTEBOOKS = ("http://localhost:*", "http://127.0.0.1:*", "https://localhost:*")


@dataclass(frozen=True, eq=False)
class WidgetFrame:
    """A page inside of a notebook, which shows it where this is the value of a cell.

    Attributes:
        src: the page's address.
        height: the height of the frame in pixels.
        server: serves the page; its `close()` ends that.
    """

    src: str
    height: int
    server: server.Server

    def _repr_html_(self) -> str:
        style = f"border: 0; width: 100%; height: {self.height:d}px"
        return f'<iframe src="{self.src}" title="relprop" style="{style}" allow="camera; clipboard-write"></iframe>'


@public("relprop.widget")
def widget(model: Any, *, height: int = 900, limits: Limits | None = None, **given: Any) -> WidgetFrame:
    """Shows a page inside of a notebook where a network can be asked why. Needs Gradio.

    The page is served by a thread of the notebook's kernel, on this machine alone, and ends with the kernel. A notebook
    whose kernel runs on another machine reaches it only through a tunnel.

    Args:
        model: a `torch.nn.Module` in eval mode, or the name of one as `relprop explain --model` takes it.
        height: the height of the frame in pixels.
        limits: what may be sent, a `relprop.web.limits.Limits`.
        **given: `tokenizer`, `labels`, `preprocess`, `size`, `mean`, `std` and `reads`, as `relprop.web.explain_block` takes
            them.

    Returns:
        The frame, which a notebook shows. Its `src` is the page's address. `frame.server.close()` ends the page, and lets
        go of the network.

    Raises:
        InputError: the arguments do not fit each other.
        ModelStateError: the model is in training mode.
        ModuleNotFoundError: Gradio is not installed: `pip install 'relprop[web]'`.
    """
    subject = subject_of(model, **given)
    limits = limits or Limits()
    blocks = server.made([(subject.name, lambda: subject)], limits)
    running = server.start(blocks, port=0, rules=Rules(limits, around=_NOTEBOOKS))
    atexit.register(running.close)
    return WidgetFrame(running.address, height, running)
