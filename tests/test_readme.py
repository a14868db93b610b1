"""The examples of the README are the reference, so they run: all in order, as a reader would type them."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_examples_run() -> None:
    namespace: dict[str, object] = {"__name__": "readme"}
    text = README.read_text(encoding="utf-8")
    examples = list(re.finditer(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))
    assert examples
    for example in examples:
        # Blank lines in front, so that a traceback shows the line of the README.
        line = text.count("\n", 0, example.start(1))
        exec(compile("\n" * line + example[1], str(README), "exec"), namespace)
    assert tuple(namespace["relevance"].shape) == tuple(namespace["images"].shape)
