"""The code that draws a map: its function, and what of its file the function uses."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator

from gallery.catalogue import Map

_LEFT_OUT = {"entry"}
"""Decorators that put a map on the page, which readers do not need."""


def code(shown: Map) -> str:
    """The code of a map: imports, helpers and constants that it uses, and a line that draws it.

    It runs as it stands in a copy of the repository: `gallery.data` and `gallery.networks` are imported from there.
    """
    module = sys.modules[shown.draw.__module__]
    text = inspect.getsource(module)
    body = ast.parse(text).body
    wanted, taken = {shown.draw.__name__}, set[int]()
    while found := {n for n, node in enumerate(body) if n not in taken and wanted & set(_defined(node))}:
        taken |= found
        wanted |= {name for n in found for name in _used(body[n])}
    used = {name for n in taken for name in _used(body[n])}
    imports = [line for node in body if (line := _imported(node, used))]
    parts = [_source(text, body[n]) for n in sorted(taken) if not isinstance(body[n], (ast.Import, ast.ImportFrom))]
    return "\n\n\n".join(
        ["\n".join(imports), *parts, f'{shown.draw.__name__}().to_image(2).save("{shown.name}.png")\n']
    )


def _defined(node: ast.stmt) -> Iterator[str]:
    """The names that a statement of a module defines, apart from imports."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, (ast.Assign, ast.AnnAssign)):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            yield from (each.id for each in ast.walk(target) if isinstance(each, ast.Name))


def _used(node: ast.stmt) -> set[str]:
    """The names that a statement reads, without those of decorators that are left out."""
    skipped = {id(part) for each in _decorators(node) for part in ast.walk(each)}
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and id(each) not in skipped}


def _decorators(node: ast.stmt) -> list[ast.expr]:
    """The decorators of a statement that are left out."""
    return [
        each
        for each in getattr(node, "decorator_list", [])
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Name) and each.func.id in _LEFT_OUT
    ]


def _imported(node: ast.stmt, used: set[str]) -> str:
    """An import with those of its names that are used; empty if none is."""
    if not isinstance(node, (ast.Import, ast.ImportFrom)):
        return ""
    if isinstance(node, ast.ImportFrom) and node.module == "__future__":
        return ast.unparse(node)
    node.names = [each for each in node.names if (each.asname or each.name).partition(".")[0] in used]
    return ast.unparse(node) if node.names else ""


def _source(text: str, node: ast.stmt) -> str:
    """The text of a statement as it is written, with its decorators but those that are left out, and comments before it."""
    lines = text.splitlines()
    kept = [each for each in getattr(node, "decorator_list", []) if each not in _decorators(node)]
    first = min([node.lineno, *(each.lineno for each in kept)])
    while not kept and first > 1 and lines[first - 2].startswith("#"):
        first -= 1
    return "\n".join(lines[first - 1 : node.end_lineno])
