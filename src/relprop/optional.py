"""Libraries that only some functions need. They are imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any


def library(name: str, needed: str, extra: str) -> Any:
    """A library that an extra of relprop brings.

    Args:
        name: the module.
        needed: what needs it, as the message says it: "NIfTI needs nibabel".
        extra: the extra of relprop that installs it.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{needed}: pip install 'relprop[{extra}]'", name=error.name) from error
