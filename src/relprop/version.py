"""The version of this library, and of what else a result depends on besides the model."""

from __future__ import annotations

import platform
import sys

import torch

VERSION = "0.1.0"


def versions() -> dict[str, str]:
    """What a result depends on besides the model."""
    return {
        "relprop": VERSION,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
    }
