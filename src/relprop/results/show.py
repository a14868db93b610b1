"""Shows a result in a notebook, a terminal or the browser."""

from __future__ import annotations

import shutil
import sys
import tempfile
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import Any

from relprop.errors import InputError
from relprop.rendering import html, terminal
from relprop.rendering.image import Heatmap
from relprop.rendering.matrix import TokenMatrix
from relprop.rendering.text import TokenMap
from relprop.rendering.view import Options, View
from relprop.rendering.visible import visible
from relprop.results.picture import left_out
from relprop.results.protocol import Result


def show(result: Result, where: str | None = None, **options: Any) -> None:
    """Shows a result; see `Relevance.show`."""
    chosen = Options(**options)
    place = where or ("notebook" if in_notebook() else "terminal")
    if place == "notebook":
        from IPython.display import HTML, display

        display(HTML(fragment_of(result, **options)))
    elif place == "terminal":
        print(in_terminal(result, chosen))
    elif place == "browser":
        in_browser(result.to_html("Relevance", **options))
    else:
        raise InputError(f"where is {where!r}; a result is shown in 'notebook', 'terminal' or 'browser'.")


def in_terminal(result: Result, options: Options, *, colour: bool | None = None) -> str:
    """A result as lines for a terminal."""
    coloured = terminal.has_colour() if colour is None else colour
    columns = max(20, min(shutil.get_terminal_size().columns - 2, 96))
    parts = []
    for view in (part for whole in result.views(options) for part in _parts(whole)):
        if view.kind == "table":
            entries = sorted(view.entries, key=lambda entry: -abs(entry[1]))[:20]
            shown = terminal.bars(entries, columns // 4, colour=coloured)
        elif isinstance(view.data, TokenMap):
            shown = terminal.tokens(view.data, colour=coloured)
        elif isinstance(view.data, TokenMatrix):
            shown = terminal.matrix(view.data, columns, colour=coloured)
        elif isinstance(view.data, Heatmap):
            shown = terminal.heatmap(view.data, columns, colour=coloured)
        else:
            shown = terminal.bars(view.entries, columns // 4, colour=coloured)
        parts.append("\n".join([visible(view.title), *map(visible, view.lines), shown]))
    if more := left_out(result, options):
        parts.append(f"{more} more samples are not shown")
    return "\n\n".join(parts)


def _parts(view: View) -> list[View]:
    """The views of a comparison, under the names of their rows and columns; another view itself."""
    return [replace(part, title=f"{row}: {name}") for (row, name), part in view.cells.items()] or [view]


def in_browser(page: str) -> None:
    """Opens a page in the browser."""
    with tempfile.NamedTemporaryFile("w", prefix="relprop-", suffix=".html", delete=False, encoding="utf-8") as file:
        file.write(page)
    webbrowser.open(Path(file.name).as_uri())


def fragment_of(result: Result, **options: Any) -> str:
    """A result as HTML for a notebook."""
    chosen = Options(**options)
    body = "\n".join(html.view_html(view) for view in result.views(chosen))
    if more := left_out(result, chosen):
        body += f'<p class="note">{more} more samples are not shown.</p>'
    return html.fragment(body, palette=chosen.palette)


def in_notebook() -> bool:
    """Whether this runs in an IPython kernel, which shows HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")
