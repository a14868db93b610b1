"""How Sphinx builds the documentation: `make docs`. Nothing is fetched; every warning is an error."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import jupytext
from sphinx.application import Sphinx
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).parent))

import pictured
import tables

import relprop

project = "relprop"
author = "The relprop developers"
copyright = "the relprop developers"
version = release = relprop.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# The tutorials run when the pages are built. A cell that raises fails the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_output_stderr = "remove"  # progress bars
myst_heading_anchors = 3

default_role = "code"  # single backticks in docstrings are code
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_use_rtype = False
# Links to other projects would need their inventories from the network; our own public names must all be found.
nitpicky = True
nitpick_ignore_regex = [
    (
        "py:.*",
        r"(?!relprop\b).*|relprop\.(engine|composites\.places|attribution\.conditions|concepts\.(tops|mixtures))\..*",
    ),
    ("py:.*", r"relprop\.evaluation\.(methods|adapters|metric|asks)\..*"),
]

html_theme = "furo"
html_title = f"relprop {release}"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

# Whatever these modules call public is in the reference, or the build fails.
PUBLIC = (
    "relprop",
    "relprop.rules",
    "relprop.composites",
    "relprop.errors",
    "relprop.attribution",
    "relprop.rendering",
)


def fill_tables(app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = tables.fill(source[0])


def draw_the_gallery(app: Sphinx, page: str, source: list[str]) -> None:
    if pictured.MARK in source[0]:
        drawn = pictured.page(Path(app.outdir) / pictured.FOLDER)
        source[0] = source[0].replace(pictured.MARK, drawn)


def check_the_reference(app: Sphinx, env: Any) -> None:
    shown = {
        name.rpartition(".")[2]
        for name, *_ in env.get_domain("py").get_objects()
        if name.startswith("relprop")
    }
    for module in map(importlib.import_module, PUBLIC):
        public = getattr(
            module, "__all__", [name for name in vars(module) if name[0].isupper()]
        )
        for name in set(public) - shown:
            logging.getLogger(__name__).warning(
                "%s.%s is public and not in the reference", module.__name__, name
            )


TUTORIALS = Path(__file__).parent / "tutorials"


def offer_the_notebook(app: Sphinx, page: str, source: list[str]) -> None:
    """Puts a link to the notebook under the title of a tutorial."""
    if page.startswith("tutorials/") and page != "tutorials/index":
        head, title, rest = source[0].partition("\n# ")
        name, _, text = rest.partition("\n")
        link = f'<a class="reference download" download href="{Path(page).name}.ipynb">Download this page as a notebook</a>'
        source[0] = (
            f"{head}{title}{name}\n\n```{{raw}} html\n<p>{link}</p>\n```\n{text}"
        )


def write_the_notebooks(app: Sphinx, error: Exception | None) -> None:
    """Writes each tutorial as a notebook, without outputs, beside its page."""
    if error is None and app.builder.format == "html":
        for path in TUTORIALS.glob("*.md"):
            if path.name != "index.md":
                jupytext.write(
                    jupytext.read(path),
                    Path(app.outdir) / "tutorials" / f"{path.stem}.ipynb",
                )


def setup(app: Sphinx) -> None:
    app.connect("source-read", fill_tables)
    app.connect("source-read", draw_the_gallery)
    app.connect("source-read", offer_the_notebook)
    app.connect("build-finished", write_the_notebooks)
    app.connect("env-check-consistency", check_the_reference)
