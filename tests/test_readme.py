"""The examples of the README are the reference, so they run."""

from __future__ import annotations

from pathlib import Path

import pages

README = Path(__file__).parent.parent / "README.md"


def test_the_examples_run() -> None:
    assert pages.examples(README)
    namespace = pages.run(README)
    assert tuple(namespace["relevance"].shape) == tuple(namespace["images"].shape)
