"""All architectures, of the libraries that are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from benchmarks.coverage import packages
from benchmarks.coverage.architectures import Architecture


def everything(only_packages: bool = False) -> Iterator[Architecture]:
    """Those of the three libraries, as far as they are installed, and then those of packages."""
    if not only_packages:
        yield from _of_libraries()
    yield from packages.ALL


def _of_libraries() -> Iterator[Architecture]:
    if importlib.util.find_spec("transformers"):
        from benchmarks.coverage import sequences

        yield from sequences.ALL
    if importlib.util.find_spec("timm"):
        from benchmarks.coverage import pictures

        yield from pictures.ALL
    if importlib.util.find_spec("torchvision"):
        try:
            import torchvision  # noqa: F401
        except RuntimeError:  # a build for another torch
            return
        from benchmarks.coverage import videos

        yield from videos.ALL
