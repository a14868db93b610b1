"""The examples of the README and of the pages are the reference, so they run: all in order, as a reader types them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("page", ["README.md", "docs/captum.md"])
def test_the_examples_run(page: str) -> None:
    namespace: dict[str, object] = {"__name__": "page"}
    text = (ROOT / page).read_text(encoding="utf-8")
    examples = list(re.finditer(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))
    assert examples
    for example in examples:
        # Blank lines in front, so that a traceback shows the line of the page.
        line = text.count("\n", 0, example.start(1))
        exec(compile("\n" * line + example[1], page, "exec"), namespace)
    assert tuple(namespace["relevance"].shape) == tuple(namespace["images"].shape)
