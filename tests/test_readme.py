"""The examples of the README are the reference, so they run."""

from __future__ import annotations

from pathlib import Path

import pytest

import pages

README = Path(__file__).parent.parent / "README.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # they write files
    assert pages.examples(README)
    namespace = pages.run(README)
    assert tuple(namespace["relevance"].shape) == tuple(namespace["images"].shape)
