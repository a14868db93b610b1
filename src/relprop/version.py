"""The version of this library, and the other versions that a result depends on."""

from __future__ import annotations

import platform
import sys

import torch

VERSION = "0.1.0"


def versions() -> dict[str, str]:
    """The versions that a result depends on besides the model."""
    return {
        "relprop": VERSION,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
    }
