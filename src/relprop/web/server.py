"""Serves the page on this machine: `relprop serve`."""

from __future__ import annotations

import atexit
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from relprop.errors import InputError, RelpropError
from relprop.loading.samples import PICTURES
from relprop.rendering import html
from relprop.web import run_part, scripts
from relprop.web.answering import Desk, answered, said, tab_of
from relprop.web.gradio_here import forget_session, gradio, release, upload_folder
from relprop.web.guard import Guard, Rules
from relprop.web.limits import Limits
from relprop.web.page import add
from relprop.web.page_subject import PageSubject, subject_of
from relprop.web.rows_files import ENDINGS
from relprop.web.runs import BrowsedRun

TITLE = "Ask a network why"


def made(
    loads: Sequence[tuple[str, Callable[[], PageSubject]]], limits: Limits | None = None,
    failed: Callable[[str], object] = lambda line: None, examples: Sequence[Any] | None = None,
    runs: Sequence[tuple[str, Callable[[], BrowsedRun]]] = (),
) -> Any:  # fmt: skip
    """The page for one network or run, or for several under tabs. What cannot be loaded says why on the page.

    Args:
        loads: the names of the networks, and how each is loaded.
        limits: what a visitor may send.
        failed: is called with a line for each network that cannot be loaded, for whoever starts the page.
        examples: what a visitor may start with, as `relprop.web.explain_block` takes them.
        runs: the names of runs over data sets that visitors browse, and how each is opened.

    Raises:
        InputError: nothing can be loaded.
    """
    upload_folder()
    gr = gradio()
    desk = Desk.of(limits)
    found: list[tuple[str, PageSubject | BrowsedRun | Exception]] = [
        (name, _loaded(load)) for name, load in [*loads, *runs]
    ]
    lost = [f"{name} could not be loaded: {_line(why)}" for name, why in found if isinstance(why, Exception)]
    if len(lost) == len(found):
        raise InputError(" ".join(lost))
    for line in lost:
        failed(line)
    _share_labels([each for _, each in found])
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(300, int(desk.limits.idle)), fill_width=True
    ) as blocks:
        gr.HTML(html.fragment(f"<h1>{TITLE}</h1>"), apply_default_css=False)
        if len(found) == 1:
            _part(gr, blocks, desk, *found[0], examples)
        else:
            query = gr.Textbox(visible=False)
            with gr.Tabs() as tabs:
                for n, (name, subject) in enumerate(found):
                    with gr.Tab(name, id=n):
                        _part(gr, blocks, replace(desk, tab=n), name, subject, _fitting(subject, examples))

            def chosen(query: Any) -> Any:
                # An answer that comes after a visitor chose a tab leaves it.
                tab = tab_of(str(query or ""))
                return gr.Tabs(selected=tab) if 0 < tab < len(found) else gr.skip()

            blocks.load(answered(chosen), query, tabs, js=scripts.ADDRESS, api_visibility="private")
        blocks.unload(answered(lambda request: forget_session(blocks, str(request.session_hash))))
    blocks.queue(max_size=desk.limits.waiting)
    blocks.state_session_capacity = desk.limits.sessions
    return blocks


def _fitting(subject: Any, examples: Sequence[Any] | None) -> Sequence[Any] | None:
    """Those of the page's examples that a network reads; None, its own, if it reads none of them."""
    endings = {"picture": PICTURES, "rows": ENDINGS}.get(getattr(subject, "reads", ""))
    known = (*PICTURES, *ENDINGS)
    found = [
        each
        for each in examples or ()
        if (str(each).lower().endswith(endings) if endings else not str(each).lower().endswith(known))
    ]
    return found or None


def _share_labels(found: Sequence[Any]) -> None:
    """A run of a network that is on the page has its names of classes."""
    known = {each.name: each.labels for each in found if isinstance(each, PageSubject)}
    for each in found:
        if isinstance(each, BrowsedRun) and each.labels is None:
            each.name_classes(known.get(each.model))


def _loaded(load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (RelpropError, ModuleNotFoundError, OSError) as error:
        return error


def _line(error: Exception) -> str:
    return error.message if isinstance(error, RelpropError) else str(error)


def _part(
    gr: Any,
    blocks: Any,
    desk: Desk,
    name: str,
    subject: PageSubject | BrowsedRun | Exception,
    examples: Sequence[Any] | None,
) -> None:
    if isinstance(subject, Exception):
        gr.HTML(
            html.fragment(f"<p><strong>{html.text(name)}</strong> could not be loaded: {said(subject)}</p>"),
            apply_default_css=False,
        )
        return
    if isinstance(subject, BrowsedRun):
        said_of = f"Run {subject.name}: {len(subject.table()):,} samples of {subject.model}"
        gr.HTML(html.fragment(f"<p>{html.text(said_of)}</p>"), apply_default_css=False)
        run_part.add(blocks, subject, desk)
        return
    gr.HTML(html.fragment(f"<p>Network: {html.text(subject.name)}</p>"), apply_default_css=False)
    try:
        add(blocks, subject, desk, examples)
    except RelpropError as error:
        gr.HTML(html.fragment(f"<p>{said(error)}</p>"), apply_default_css=False)


_CONTRAST = """
.min_value, .max_value, .or, input.subdued { color: var(--body-text-color-subdued) !important; }
.icon-button[title="common.upload"] { display: none; }
[data-testid="status-tracker"] .error { font-size: 0; }
[data-testid="status-tracker"] .error::after { font-size: 1rem; content: "This question was not answered: ask again."; }
"""
"""Texts of Gradio that are fainter than its theme says, a button in a button, and what "Error" means: a full queue."""


def _colours() -> dict[str, str]:
    """Colours of text and of what is behind it that differ enough for everyone (WCAG 2.2, 1.4.3)."""
    blue, darker = "#1b5e9b", "#154a7a"
    found = {"color_accent": blue, "body_text_color_subdued": "#5f5f5f", "input_placeholder_color": "#5f5f5f"}
    for end in ("", "_dark"):
        found |= {f"button_primary_background_fill{end}": blue, f"button_primary_background_fill_hover{end}": darker}
        found[f"button_primary_text_color{end}"] = "white"
    return found | {"block_info_text_color": "#5f5f5f"}


def application(blocks: Any, rules: Rules) -> Any:
    """The ASGI application: the page behind its guard."""
    gr = gradio()
    import fastapi

    outer = fastapi.FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]).set(**_colours())
    gr.mount_gradio_app(
        outer, blocks, "/", footer_links=[], run_history=False, show_error=False, ssr_mode=False, mcp_server=False, pwa=False,
        enable_monitoring=False, max_file_size=rules.limits.file_bytes, theme=theme, css=_CONTRAST, server_name="127.0.0.1",
        root_path="",
    )  # fmt: skip
    # Gradio checks the paths of files only in pages that were launched its own way.
    blocks.has_launched = True
    return Guard(outer, rules, blocks.upload_file_set, lambda number: number in blocks.fns)


@dataclass(eq=False)
class Server:
    """A page that is served by a thread.

    Attributes:
        address: where it is.
    """

    address: str
    _server: Any
    _thread: threading.Thread
    _blocks: Any

    def close(self) -> None:
        """Ends it, and lets go of its networks and of what visitors asked."""
        self._server.should_exit = True
        self._thread.join(10)
        release(self._blocks)
        atexit.unregister(self.close)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one.

    Raises:
        InputError: the port is taken, or there is no such host.
    """
    found = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen()  # two pages could bind one port, and the second would fail later
    except (OSError, OverflowError) as error:
        if found is not None:
            found.close()
        raise InputError(f"{host}:{port} cannot be listened to: {error}. Choose another --port.") from error
    return found


def served(
    blocks: Any,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    rules: Rules | None = None,
    place: socket.socket | None = None,
) -> tuple[Any, socket.socket, str]:
    """The server of a page that does not run yet, its socket (`place`, if that listens already), and its address."""
    import uvicorn

    rules = rules or Rules(Limits())
    place = place or listening(host, port)
    config = uvicorn.Config(
        application(blocks, rules), log_level="warning", access_log=False, server_header=False, date_header=False,
        proxy_headers=False, ws="none", timeout_keep_alive=10, limit_concurrency=400, h11_max_incomplete_event_size=32 * 1024,
        http="h11", timeout_graceful_shutdown=1,
    )  # fmt: skip
    shown = f"[{host}]" if ":" in host else host
    return uvicorn.Server(config), place, f"http://{shown}:{place.getsockname()[1]}/"


def start(blocks: Any, **given: Any) -> Server:
    """Serves a page from a thread of its own, and returns when it answers."""
    server, place, address = served(blocks, **given)
    thread = threading.Thread(target=lambda: server.run(sockets=[place]), daemon=True)
    thread.start()
    for _ in range(600):
        if server.started:
            return Server(address, server, thread, blocks)
        if not thread.is_alive():
            break
        time.sleep(0.05)
    raise InputError(f"the page at {address} did not start.")


def serve(models: Sequence[str] = ("efficientnet_lite0",), *, limits: Limits | None = None, **given: Any) -> Server:
    """Serves the page for networks by their names, as `relprop serve`, from a thread of its own.

    Args:
        models: the networks, as `relprop explain --model` names them.
        limits: what a visitor may send.
        **given: `host`, `port`, and `rules` of the guard.
    """
    blocks = made([(name, partial(subject_of, name)) for name in models], limits)
    return start(blocks, **given)
