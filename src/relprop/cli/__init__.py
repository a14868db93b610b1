"""The command `relprop`."""

from __future__ import annotations

import sys
from collections.abc import Callable


def main(loaded: Callable[[], object] = lambda: None) -> None:
    """Runs the command, or says in one line which package it lacks.

    Args:
        loaded: is called when everything is loaded, before the command runs.
    """
    try:
        from relprop.cli.app import app
        from relprop.cli.output_encoding import encode_anything
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"typer", "rich", "PIL", "numpy"}:
            raise
        sys.exit(f"relprop: the command needs {error.name}: pip install 'relprop[cli]'")
    encode_anything()
    loaded()
    app()
