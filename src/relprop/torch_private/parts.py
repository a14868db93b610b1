"""Finding parts of torch, and what is said where one is missing."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import torch

from relprop.errors import UnsupportedOperationError

_NOTHING = object()


def part(path: str, otherwise: Any = None) -> Any:
    """What torch holds at a dotted path below `torch`, or `otherwise` where this torch lacks it. Imports nothing."""
    found: Any = torch
    for name in path.split("."):
        found = getattr(found, name, _NOTHING)
        if found is _NOTHING:
            return otherwise
    return found


def lacking(path: str, feature: str) -> UnsupportedOperationError:
    """The error of a feature whose part of torch is not there."""
    return UnsupportedOperationError(
        f"torch {torch.__version__} has no torch.{path}, which {feature} needs: use a torch that relprop was tested with "
        "(README), or leave this feature aside."
    )


def running(*modules: str) -> bool:
    """Whether a function of one of these Python modules (or packages) is being executed in this thread.

    Stands in for what torch does not tell. Slow: the whole stack is looked through.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if any(name == module or name.startswith(f"{module}.") for module in modules):
            return True
        frame = frame.f_back
    return False


def outside(package: str) -> int:
    """How many frames lie between the caller and the first beyond a package: the `stacklevel` of a warning."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).split(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level
