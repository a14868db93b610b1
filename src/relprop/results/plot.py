"""One sample of a result on matplotlib axes."""

from __future__ import annotations

from typing import Any

from relprop.errors import InputError
from relprop.rendering.matplotlib import draw
from relprop.rendering.view import Options
from relprop.results.protocol import Result


def plot(result: Result, ax: Any = None, sample: int = 0, **options: Any) -> Any:
    """Draws one sample; see `Relevance.plot`."""
    chosen = Options(**options)
    if not -result.samples <= sample < result.samples:
        raise InputError(f"sample {sample} of {result.samples}.")
    return draw(result.alone(sample).views(chosen)[0], ax, chosen)
