"""The page inside of a notebook."""

from __future__ import annotations

import atexit
from typing import Any

from relprop.optional import library
from relprop.signatures import public
from relprop.web import server
from relprop.web.guard import Rules
from relprop.web.limits import Limits
from relprop.web.page_subject import subject_of

_NOTEBOOKS = ("http://localhost:*", "http://127.0.0.1:*", "https://localhost:*")


@public("relprop.widget")
def widget(model: Any, *, height: int = 900, limits: Limits | None = None, **given: Any) -> Any:
    """Shows a page inside of a notebook where a network can be asked why. Needs Gradio and IPython.

    The page is served by a thread of the notebook's kernel, on this machine alone, and ends with the kernel. A notebook
    whose kernel runs on another machine reaches it only through a tunnel.

    Args:
        model: a `torch.nn.Module` in eval mode, or the name of one as `relprop explain --model` takes it.
        height: the height of the frame in pixels.
        limits: what may be sent, a `relprop.web.limits.Limits`.
        **given: `tokenizer`, `labels`, `preprocess`, `size`, `mean`, `std` and `reads`, as `relprop.web.explain_block` takes
            them.

    Returns:
        The frame, which a notebook shows. Its `src` is the page's address, and `frame.server.close()` ends the page.

    Raises:
        InputError: the arguments do not fit each other.
        ModelStateError: the model is in training mode.
        ModuleNotFoundError: Gradio or IPython is not installed.
    """
    display = library("IPython.display", "a widget is shown by IPython", "web")
    subject = subject_of(model, **given)
    limits = limits or Limits()
    blocks = server.made([(subject.name, lambda: subject)], limits)
    running = server.start(blocks, port=0, rules=Rules(limits, around=_NOTEBOOKS))
    atexit.register(running.close)
    frame = display.IFrame(running.address, width="100%", height=height)
    frame.server = running
    return frame
