"""The engine: one torch function mode that turns autograd's backward pass into relevance propagation."""

from relprop.engine.mode import Propagation
from relprop.engine.registry import register
from relprop.engine.run import Run

__all__ = ["Propagation", "Run", "register"]
