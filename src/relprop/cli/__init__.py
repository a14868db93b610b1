"""The command `relprop`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command, or say in one line what it lacks."""
    try:
        from relprop.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"typer", "rich", "PIL", "numpy"}:
            raise
        sys.exit(f"relprop: the command needs {error.name}: pip install 'relprop[cli]'")
    app()
