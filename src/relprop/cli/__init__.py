"""The command `relprop`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command, or says in one line which package it lacks."""
    try:
        from relprop.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"typer", "rich", "PIL", "numpy"}:
            raise
        sys.exit(f"relprop: the command needs {error.name}: pip install 'relprop[cli]'")
    app()
