"""How errors are written: they begin with a small letter or a name, and end with a full stop."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import relprop
from relprop import errors

ROOT = Path(relprop.__file__).parent
OURS = {name for name in vars(errors) if name.endswith("Error")}
NAMES = {"CSV", "NIfTI", "Parquet", "GIF"} | set(relprop.__all__) | set(vars(relprop.rules)) | set(vars(relprop.captum))


def text_of(node: ast.expr) -> str:
    """What can be read of a message in the source; `{}` for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return "{}"


def messages() -> Iterator[tuple[str, str]]:
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in OURS and node.args:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", text_of(node.args[0])


def test_messages_begin_with_a_small_letter() -> None:
    wrong = [
        f"{where}: {text}"
        for where, text in messages()
        if text[:1].isupper() and re.match(r"\w+", text)[0] not in NAMES and not re.match(r"\w+\(", text)  # type: ignore[index]
    ]
    assert not wrong, "\n".join(wrong)


def test_messages_end_with_a_full_stop() -> None:
    """Or with what is filled in, which has its own, or a question, or a command to be copied."""
    wrong = [
        f"{where}: {text}" for where, text in messages() if not re.search(r"([.?]|\{\}|\.\)|pip install \S+)$", text)
    ]
    assert not wrong, "\n".join(wrong)


def test_there_are_messages_to_read() -> None:
    assert len(list(messages())) > 150
