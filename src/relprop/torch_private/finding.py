"""Finds parts of torch, and makes the error for a missing one."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import torch

from relprop.errors import UnsupportedOperationError

_NOTHING = object()


def part(path: str, otherwise: Any = None) -> Any:
    """The object at a dotted path below `torch`, or `otherwise` if this torch lacks it. Imports nothing."""
    found: Any = torch
    for name in path.split("."):
        found = getattr(found, name, _NOTHING)
        if found is _NOTHING:
            return otherwise
    return found


def lacking(path: str, feature: str) -> UnsupportedOperationError:
    """The error for a feature that needs a part of torch that is missing."""
    return UnsupportedOperationError(
        f"torch {torch.__version__} has no torch.{path}, which {feature} needs: use a torch that relprop was tested with "
        "(README), or leave this feature aside."
    )


def running(*modules: str) -> bool:
    """Whether a function of one of these Python modules (or packages) is running in this thread.

    Used where torch does not tell. Slow: it searches the whole stack.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if any(name == module or name.startswith(f"{module}.") for module in modules):
            return True
        frame = frame.f_back
    return False


def outside(package: str) -> int:
    """The `stacklevel` with which a warning names the first frame outside a package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).split(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level
