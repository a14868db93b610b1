"""Models spread over processes: what torch puts around their modules is linear, and its own backward is right."""

from __future__ import annotations

from relprop.engine.registry import LINEAR
from relprop.torch_private.names import LINEAR_FUNCTIONS

LINEAR.update(LINEAR_FUNCTIONS)
