"""Results in files: one method writes every format, `load` reads folders back.

A folder holds tensors (safetensors) and a manifest (JSON): no pickle, and nothing is imported by a name in a file.
"""

from __future__ import annotations

from relprop.storage.loading import load
from relprop.storage.save import report, save

__all__ = ["load", "report", "save"]
