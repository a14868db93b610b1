"""Runs what a page of documentation shows: all its examples in order, as a reader would type them."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

_BLOCK = re.compile(r"^```(python|pycon)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run(page: Path) -> dict[str, object]:
    """Executes the `python` blocks of a Markdown page, compares what its `pycon` blocks print, and returns the names.

    All blocks share one namespace. Three dots in the output shown stand for anything.
    """
    namespace: dict[str, object] = {"__name__": page.stem}
    text = page.read_text(encoding="utf-8")
    for block in _BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(2))
        if block[1] == "python":
            # Blank lines in front, so that a traceback shows the line of the page.
            code = compile("\n" * line + block[2], str(page), "exec", dont_inherit=True)
            exec(code, namespace)
        else:
            _compare(block[2], page, line, namespace)
    return namespace


def _compare(block: str, page: Path, line: int, namespace: dict[str, object]) -> None:
    test = doctest.DocTestParser().get_doctest(block, namespace, page.name, str(page), line)
    test.globs = namespace  # the parser makes a copy; a name set here is for the blocks that follow
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=_FLAGS, verbose=False).run(test, out=said.append, clear_globs=False)
    assert result.attempted, f"{page}:{line}: a pycon block without a prompt"
    assert not result.failed, "".join(said)


def examples(page: Path) -> int:
    """How many blocks of a page `run` would run."""
    return len(_BLOCK.findall(page.read_text(encoding="utf-8")))
